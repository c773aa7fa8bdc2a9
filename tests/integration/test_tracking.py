"""Trackers hear each epoch's numbers, the settings and the results; they change nothing and stop nothing."""

import importlib
import json
from unittest.mock import Mock

import pytest

from subclass_kd import store, tracking
from subclass_kd.errors import UserError
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

NAMES = ["tensorboard", "mlflow", "wandb"]
# What the libraries themselves warn of; an error of theirs would stop the tracker, which the tests would see.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "ResourceWarning")]


def small_study(folder, **changes):
    return make_study(
        {
            "data": {"kind": "fashion-mnist", "root": str(folder)},
            "teacher": {"options": {"width": 4}, "epochs": 2},
            "student": {"options": {"width": 4}, "epochs": 3},
            "distillation": {"views": 2},
            "arms": ["scratch", "skd"],
            "seeds": 1,
            "workers": 1,
            "device": "cpu",
            **changes,
        }
    )


class Hearing(Silent):
    """Progress that keeps every epoch."""

    def __init__(self):
        self.epochs = {}

    def event(self, job, event, content):
        if event == "epoch":
            self.epochs.setdefault(job.path.removesuffix(".safetensors"), []).append(content)


@pytest.fixture(scope="module")
def tracked(small_idx_folder, tmp_path_factory):
    """A run that told all three, what was heard of it, and its results."""
    out, heard = tmp_path_factory.mktemp("runs") / "tracked", Hearing()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        results = run_study(small_study(small_idx_folder, track=NAMES), out, heard)
    return out, heard.epochs, results


RUNS = ["teachers/subclass-seed0", "students/scratch-seed0", "students/skd-seed0"]


def test_tensorboards_event_files_hold_every_epoch(tracked):
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    out, heard, results = tracked
    assert list(heard) == RUNS
    for run in RUNS:
        read = accumulator.EventAccumulator(str(out / "tensorboard" / run))
        read.Reload()
        for name in ("loss", "validation_f1", "validation_log_loss"):
            told = [(each.step, each.value) for each in read.Scalars(name)]
            assert told == [(each.epoch, pytest.approx(getattr(each, name), rel=1e-6)) for each in heard[run]]
        content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"learning_rate" in content
    read = accumulator.EventAccumulator(str(out / "tensorboard/results"))
    read.Reload()
    [last] = read.Scalars("skd/f1")
    assert last.value == pytest.approx(results["arms"]["skd"]["f1"]["mean"], rel=1e-6)


def test_mlflows_database_holds_every_epoch_the_settings_and_the_results(tracked):
    client = importlib.import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{tracked[0] / 'mlflow.db'}")
    out, heard, results = tracked
    experiment = client.get_experiment_by_name("subclass-kd")
    runs = {run.data.tags["run"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {*RUNS, "results"}
    for name in RUNS:
        history = client.get_metric_history(runs[name].info.run_id, "validation_f1")
        assert [(each.step, each.value) for each in history] == [(e.epoch, e.validation_f1) for e in heard[name]]
        assert runs[name].info.status == "FINISHED"
    assert runs["students/skd-seed0"].data.params["distillation.alpha"] == "0.9"
    assert "distillation.alpha" not in runs["students/scratch-seed0"].data.params
    assert runs["results"].data.metrics["skd/f1"] == results["arms"]["skd"]["f1"]["mean"]
    assert runs["results"].data.params["student.epochs"] == "3"
    assert out.name in runs["results"].info.run_name


def test_wandb_leaves_a_folder_for_each_run_and_sends_nothing(tracked):
    folders = list((tracked[0] / "wandb").glob("offline-run-*"))
    assert len(folders) == 4
    assert all(len(list(folder.glob("*.wandb"))) == 1 for folder in folders)


def test_wandb_writes_down_no_argument_of_the_command(python, tmp_path):
    script = tmp_path / "told.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom subclass_kd.tracking import START\n"
        "run = START['wandb'](Path(sys.argv[1]), 'run', {'seed': 7})\nrun.log({'loss': 1.0}, 1)\nrun.close(True)\n"
        "print(sys.argv[2:])\n"
    )
    (out := tmp_path / "run").mkdir()
    url = "postgresql://user:geheim@host/db"
    ended = python(str(script), str(out), "--storage", url, WANDB_MODE="offline")
    assert (ended.returncode, ended.stdout) == (0, f"['--storage', '{url}']\n"), ended.stderr
    files = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert any(b"told.py" in content for content in files)  # where W&B has written the arguments beside
    assert not [content for content in files if b"geheim" in content]


def test_trackers_change_no_result_and_no_recipe(tracked, small_idx_folder, tmp_path):
    out, _, results = tracked
    plain = run_study(small_study(small_idx_folder), tmp_path / "plain")
    assert not {"tensorboard", "wandb", "mlflow.db"} & {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"track", "tune"}.isdisjoint(results["study"])
    assert plain["arms"]["skd"]["f1"] == results["arms"]["skd"]["f1"]
    for run in RUNS:
        path = f"{run}.safetensors"
        recipe = json.loads(json.dumps(store._header(tmp_path / "plain" / path)))["recipe"]
        assert store.is_valid(out / path, recipe)
    assert run_study(small_study(small_idx_folder), out) == results  # the same folder, without trackers


def test_a_tracker_that_fails_is_told_no_more_and_the_run_goes_on(small_idx_folder, tmp_path, monkeypatch, capsys):
    class Failing:
        def __init__(self, *_):
            pass

        def log(self, values, step):
            raise ConnectionError("no route")

    monkeypatch.setitem(tracking.START, "tensorboard", Failing)
    study = small_study(small_idx_folder, track=["tensorboard"], arms=["scratch"])
    assert run_study(study, tmp_path / "run")["arms"]["scratch"]["f1"]["mean"] >= 0
    said = capsys.readouterr().err
    assert said == "skd: tensorboard is told no more (ConnectionError: no route); the run goes on\n"


@pytest.mark.parametrize(("given", "seconds"), [(None, 60.0), ("5", 5.0)])
def test_wandb_waits_for_the_network_only_so_long_and_only_once(tmp_path, monkeypatch, capsys, given, seconds):
    class Unsent:
        def log(self, values, step):
            pass

        def finish(self, exit_code):
            raise TimeoutError("Timed out finishing run.")

    begun = []
    monkeypatch.setattr("wandb.init", lambda **options: begun.append(options) or Unsent())
    monkeypatch.delenv("WANDB_FINISH_TIMEOUT", raising=False)
    if given is not None:
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", given)
    with tracking.Tracking(["wandb"], tmp_path) as told:
        for run in ("first", "second"):
            told.log(run, {}, {"loss": 1.0}, 1)
        for run in ("first", "third"):
            told.log(run, {}, {"loss": 1.0}, 2)
            told.finish(run)
    assert [options["name"] for options in begun] == ["first", "second"]
    settings = begun[0]["settings"]
    assert (settings.finish_timeout, settings.finish_timeout_raises, settings.silent) == (seconds, True, True)
    said = capsys.readouterr().err
    assert said == "skd: wandb is told no more (TimeoutError: Timed out finishing run.); the run goes on\n"


@pytest.mark.parametrize(("took", "ended"), [(4.0, ["second", "third"]), (11.0, [])])
def test_a_tracker_that_failed_ends_its_other_runs_unless_it_kept_us_waiting(
    tmp_path, monkeypatch, capsys, took, ended
):
    closed, clock = [], [0.0]

    class Failing:
        def __init__(self, out, run, settings):
            self.run = run

        def log(self, values, step):
            if step == 2:
                clock[0] += took
                raise ConnectionError("no route")

        def close(self, whole):
            if self.run == "first":
                raise ConnectionError("no route")
            closed.append((self.run, whole))

    monkeypatch.setitem(tracking.START, "mlflow", Failing)
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    told = tracking.Tracking(["mlflow"], tmp_path)
    for run in ("first", "second", "third"):
        told.log(run, {}, {"loss": 1.0}, 1)
    for run in ("first", "second"):
        told.log(run, {}, {"loss": 1.0}, 2)
    told.finish("second")
    told.finish_all(whole=False)
    assert closed == [(run, run == "second") for run in ended]
    said = capsys.readouterr().err
    assert said == "skd: mlflow is told no more (ConnectionError: no route); the run goes on\n"


def test_mlflow_waits_a_minute_for_a_server_that_is_gone(tmp_path, monkeypatch):
    variables = importlib.import_module("mlflow.environment_variables")
    for name in tracking.MLFLOW:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked = Mock(side_effect=ConnectionError("nobody"))
    monkeypatch.setattr("requests.Session.request", asked)
    with pytest.raises(Exception, match="nobody"):
        tracking.START["mlflow"](tmp_path, "run", {})
    [seconds] = [call.kwargs["timeout"] for call in asked.call_args_list]
    retries, factor, jitter = (
        getattr(variables, f"MLFLOW_HTTP_REQUEST_{name}").get()
        for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "BACKOFF_JITTER")
    )
    pauses = sum(factor * 2**number for number in range(1, retries)) + retries * jitter
    assert (seconds, retries, pauses) == (10, 3, 15)
    assert (retries + 1) * seconds + pauses <= 60
    assert variables.MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.get() is False
    assert variables.MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT.get() == 60
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # who says otherwise is heard
    with pytest.raises(Exception, match="nobody"):
        tracking.START["mlflow"](tmp_path, "run", {})
    assert asked.call_args.kwargs["timeout"] == 120


def test_mlflows_database_lies_in_the_run_folder_whatever_that_is_called(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (folder := tmp_path / "a%20b?c=d").mkdir()
    tracking.START["mlflow"](folder, "run", {"seed": 0}).close(whole=True)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_done(small_idx_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("subclass_kd.extras._is_there", lambda module: module != "wandb")
    with pytest.raises(UserError, match=r"--track wandb: found no wandb in this Python.*subclass-kd\[wandb\]"):
        run_study(small_study(small_idx_folder, track=["wandb"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
