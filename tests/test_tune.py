"""What a search draws, counts and writes, without training anything."""

import shutil
import threading
import time
from contextlib import nullcontext
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console
from typer.testing import CliRunner

from subclass_kd import cli_tune
from subclass_kd.cli import app
from subclass_kd.config import Own, tuned_by
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.plan import plan
from subclass_kd.study_file import load_study, make_study
from subclass_kd.training import Diverged
from subclass_kd.tune import outcome, search, storage, worker
from subclass_kd.tune.space import make_sampler, suggest
from subclass_kd.tune.trial import jobs_of

SPACE = make_study({"arms": ["scratch", "kd", "skd"], "seeds": 3, "tune": {"trials": 8}})


# These tests take trials by hand, and none of them lives long enough to be believed dead.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


def drawn(arm, numbers, study=SPACE, mark="a"):
    found = []
    asked = optuna.create_study()
    for number in numbers:
        asked.sampler = make_sampler(mark, arm, number, study.tune.trials)
        found.append(suggest(asked.ask(), arm, study.tune))
    return found


def opened(path, arm="skd"):
    return storage.open_study(storage.open_storage(f"sqlite:///{path}"), "mark", arm, epochs=4)


@pytest.mark.parametrize(
    ("arm", "names"),
    [
        ("scratch", ["learning_rate"]),
        ("subclass-labels", ["learning_rate"]),
        ("kd-collapsed", ["learning_rate", "temperature", "alpha"]),
        ("skd-shuffled", ["learning_rate", "temperature", "alpha", "hard_target"]),
    ],
)
def test_each_arm_draws_what_concerns_it_within_the_space(arm, names):
    for own in drawn(arm, range(5)):
        given = own.model_dump(exclude_none=True)
        assert list(given) == names == list(tuned_by(arm))
        assert 0.003 <= given["learning_rate"] <= 0.03
        assert 1 <= given.get("temperature", 1) <= 8
        assert 0.3 <= given.get("alpha", 1) <= 1


def test_a_trials_draw_is_its_own_and_repeatable():
    first = drawn("skd", range(4))
    assert first == drawn("skd", range(4))
    assert len({str(own) for own in first}) == 4
    assert first != drawn("skd", range(4), mark="b")


def test_choices_are_drawn_as_they_stand():
    study = make_study({}, ["tune.temperature={choices: [1, 4]}", "tune.alpha={choices: [0.9]}", "tune.trials=8"])
    found = drawn("kd", range(12), study)
    assert {own.temperature for own in found} == {1, 4}
    assert {own.alpha for own in found} == {0.9}


def test_trials_share_teachers_and_targets_and_equal_draws_share_students():
    cold, hot = Own(learning_rate=0.01, temperature=1.0), Own(learning_rate=0.01, temperature=4.0)
    jobs = {name: jobs_of(SPACE, "skd", own, "data") for name, own in {"cold": cold, "hot": hot}.items()}
    shared = [[job for job in each if job.kind != "students"] for each in jobs.values()]
    assert shared[0] == shared[1]
    assert {job.kind for job in shared[0]} == {"teachers", "targets"}
    students = [[job.path for job in each if job.kind == "students"] for each in jobs.values()]
    assert len(students[0]) == 2  # two seeds judge
    assert not set(students[0]) & set(students[1])
    assert jobs["cold"] == jobs_of(SPACE, "skd", Own(temperature=1.0, learning_rate=0.01), "data")


def test_the_space_and_trackers_change_no_recipe_and_an_arms_own_settings_only_its_own():
    def recipes(*overrides):
        return {job.path: job.recipe for job in plan(make_study({"seeds": 1}, overrides), "data")}

    plain = recipes()
    assert recipes("tune.trials=3", "tune.alpha={choices: [0.5]}", "track=[tensorboard]") == plain
    own = recipes("per_arm={skd: {temperature: 4}}")
    changed = {path for path in plain if plain[path] != own[path]}
    assert changed == {"students/skd-seed0.safetensors", "predictions/students/skd-seed0.safetensors"}
    of_all = recipes("distillation.temperature=4")
    assert own["students/skd-seed0.safetensors"] == of_all["students/skd-seed0.safetensors"]


def test_of_two_processes_that_take_the_last_trial_one_gives_way(tmp_path):
    study = opened(tmp_path / "tune.db")
    numbers = [study.ask().number for _ in range(4)]
    assert [storage.is_surplus(study, number, trials=3) for number in numbers] == [False, False, False, True]
    study.tell(0, state=TrialState.FAIL)
    assert storage.is_surplus(study, 3, trials=3) is False


def test_one_that_waits_is_among_those_there_are(tmp_path):
    study = opened(tmp_path / "tune.db")
    numbers = [study.ask().number for _ in range(3)]
    study.tell(numbers[1], state=TrialState.FAIL)
    storage.again(study, study.get_trials()[1])  # number 3
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))  # another process did not see it wait
    assert storage.is_surplus(study, 4, trials=3)
    assert not storage.is_surplus(study, study.ask().number, trials=3)


def test_no_two_processes_take_the_same_trial(tmp_path):
    path, count = tmp_path / "tune.db", 12
    opened(path)
    barrier, taken = threading.Barrier(3), []

    def take():
        study = opened(path)  # with connections of its own, as a process has
        for _ in range(count):
            barrier.wait(60)
            taken.append(study.ask().number)
            barrier.wait(60)

    takers = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    for taker in takers:
        taker.start()
    study = opened(path)
    for _ in range(count):
        for _ in range(2):
            study.enqueue_trial({})
        barrier.wait(60)
        barrier.wait(60)
    assert sorted(taken) == list(range(2 * count))


def tried(study, monkeypatch, judge):
    """Do one trial that is worth what a function of it says."""
    monkeypatch.setattr(worker, "_judge", lambda *given: judge(given[-1]))
    worker._try(worker.Search(SPACE, "", "", "a", "data"), None, None, study, "skd")


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_that_another_process_took_over_and_ended_is_left_to_it(tmp_path, monkeypatch, state):
    study = opened(tmp_path / "tune.db")

    def judge(trial):
        study.tell(trial.number, 0.5 if state == TrialState.COMPLETE else None, state=state)
        return 0.7

    tried(study, monkeypatch, judge)
    tried(study, monkeypatch, lambda trial: judge(trial) and trial.report(0.7, 1))
    assert [trial.state for trial in study.get_trials()] == [state, state]


@pytest.mark.parametrize("fault", [ValueError, AssertionError, OSError])
def test_a_fault_of_a_trial_ends_the_search(tmp_path, monkeypatch, fault):
    def judge(trial):
        raise fault("of our own")

    with pytest.raises(fault, match="of our own"):
        tried(opened(tmp_path / "tune.db"), monkeypatch, judge)


def told_as_lost(call):
    with pytest.raises(UserError) as caught:
        storage.lost(call)
    assert caught.value.where == "--storage"
    return caught.value.found


def test_a_database_that_is_lost_is_told_by_its_own_words(tmp_path, monkeypatch):
    folder = tmp_path / "database"
    folder.mkdir()
    study = opened(folder / "tune.db")

    def judge(trial):
        shutil.rmtree(folder)
        study._storage._backend.engine.dispose()
        trial.report(0.7, 1)

    monkeypatch.setattr("optuna.study._optimize.get_heartbeat_thread", lambda *_: nullcontext())  # it would fail too
    words = "a database that was there and does not answer ((sqlite3.OperationalError) unable to open database file)"
    assert told_as_lost(lambda: tried(study, monkeypatch, judge)) == words
    assert told_as_lost(lambda: study.tell(0, 0.7)) == words


def test_another_fault_is_not_told_as_a_lost_database():
    with pytest.raises(UnboundLocalError, match="of our own"):
        storage.lost(Mock(side_effect=UnboundLocalError("of our own")))


def test_a_process_that_is_asked_to_stop_queues_its_trial_once(tmp_path, monkeypatch):
    study = opened(tmp_path / "tune.db")

    def stop(trial):
        raise SystemExit(143)

    def stop_too_late(trial):
        study.tell(trial.number, 0.5)
        raise SystemExit(143)

    for judge in (stop, stop_too_late):
        with pytest.raises(SystemExit):
            tried(study, monkeypatch, judge)
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("end", "whole"),
    [
        (None, True),
        (optuna.TrialPruned(), True),
        (Diverged("student skd", "a", "b"), True),
        (Diverged("teacher", "a", "b"), False),
        (SystemExit(143), False),
        (OSError("disk"), False),
    ],
)
def test_trackers_hear_whether_a_trial_came_to_its_end(tmp_path, monkeypatch, end, whole):
    study, tracking = opened(tmp_path / "tune.db"), Mock()
    monkeypatch.setattr(worker, "judge", Mock(side_effect=[end or 0.5]))
    given = worker.Search(SPACE, tmp_path, "", "a", "data")
    with nullcontext() if end is None else pytest.raises((optuna.TrialPruned, type(end))):
        worker._judge(given, None, tracking, study, "skd", study.ask())
    assert tracking.mock_calls == [call.finish_all(whole)]


def test_a_trial_that_ended_in_the_middle_is_queued_with_what_it_drew(tmp_path):
    study = opened(tmp_path / "tune.db")
    trial = study.ask()
    alpha = trial.suggest_float("alpha", 0, 1)
    study.tell(trial, state=TrialState.FAIL)
    storage.again(study, study.get_trials()[0])
    assert storage.count(study, TrialState.WAITING) == 1
    taken = study.ask()
    assert taken.suggest_float("alpha", 0, 1) == alpha
    assert study.get_trials()[1].system_attrs["retry_history"] == [0]


def test_a_trial_whose_process_died_before_its_first_word_is_queued_and_one_that_lives_is_not(tmp_path):
    study = storage.open_study(storage.open_storage(f"sqlite:///{tmp_path}/tune.db", grace=1), "mark", "skd", epochs=4)
    study.ask()
    alive, seen = study.ask(), set()
    until = time.monotonic() + 60
    while not storage.count(study, TrialState.WAITING) and time.monotonic() < until:
        storage.queue_the_dead([study], seen)
        study._storage.record_heartbeat(alive._trial_id)
        time.sleep(0.05)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert study.get_trials()[2].system_attrs["retry_history"] == [0]
    assert len(seen) == 2


def test_what_was_found_is_a_study_of_each_arms_best_trial(tmp_path):
    studies = {arm: opened(tmp_path / "tune.db", arm) for arm in SPACE.arms}
    best = {}
    for arm, study in studies.items():
        settings = []
        for number in range(6):
            trial = study.ask()
            study.sampler = make_sampler("a", arm, number, trials=6)
            settings.append(own := suggest(trial, arm, SPACE.tune))
            trial.set_user_attr("settings", own.model_dump(exclude_none=True))
            trial.report(0.5, 1)
            if number == 5:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, 0.9 - 0.1 * abs(number - 3))
        best[arm] = settings[3]
    found = outcome.write_outcome(SPACE, studies, {}, tmp_path)
    again = load_study(tmp_path / "best.yaml")
    assert again.per_arm == best
    assert again == make_study({"arms": ["scratch", "kd", "skd"], "seeds": 3}).model_copy(update={"per_arm": best})
    assert [(row["trials"], row["pruned"]) for row in found["arms"].values()] == [(6, 1)] * 3
    assert found["arms"]["skd"]["best"]["validation_f1"] == 0.9
    assert sum(found["arms"]["kd"]["importance"].values()) == pytest.approx(1)
    assert (tmp_path / "tune.svg").read_text().count("<circle") == 6 * (1 + 3 + 4)


def test_an_arm_without_a_trial_that_ended_is_refused(tmp_path):
    study = opened(tmp_path / "tune.db", "scratch")
    study.tell(study.ask(), state=TrialState.PRUNED)
    with pytest.raises(UserError, match="1 trials, all given up"):
        outcome.write_outcome(SPACE, {"scratch": study}, {}, tmp_path)


def test_a_search_whose_processes_had_another_database_is_told_so(tmp_path):
    study = opened(tmp_path / "tune.db", "scratch")
    with pytest.raises(UserError) as caught:
        outcome.write_outcome(SPACE, {"scratch": study}, {}, tmp_path)
    assert (caught.value.where, caught.value.expected) == ("--storage", "a database that every machine reaches")
    assert "learning_rate" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("tune.db", '"tune.db"'),
        ("postgresql:/user:secret@host/db", "no such URL"),
        ("postgresql://user:secret@host:x/db", "no such URL"),
        ("postgresql://user:secret", "no such URL"),  # the password where a port would be
        ("host=db password=secret", "no such URL"),
        ("postgresql://user:a@secret@host/db", "a password with an @ in it"),
        ("sqlite://user:secret@host/db", "no database that answers"),
        ("postgresql://127.0.0.1:9/name?password=secret", "no database that answers"),
        ("oracle://host/name", "no driver for it"),
        ("postgresql://me:secret@127.0.0.1:9/name", "no database that answers"),
    ],
)
def test_a_database_that_is_none_is_refused_without_its_password(url, found, monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError) as caught:
        storage.open_storage(url)
    assert caught.value.found.startswith(found)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "url"), [([], "sqlite:///a.db"), (["--storage", "sqlite:///b.db"], "sqlite:///b.db")]
)
def test_the_database_may_be_named_by_the_environment_which_ps_does_not_show(tmp_path, monkeypatch, arguments, url):
    def tune(study, out, storage, *_):
        raise UserError("asked for", storage, "nothing")

    monkeypatch.setattr(search, "tune", tune)
    monkeypatch.setenv("SKD_STORAGE", "sqlite:///a.db")
    (tmp_path / "study.yaml").write_text("seeds: 1")
    ended = CliRunner().invoke(app, ["tune", str(tmp_path / "study.yaml"), *arguments])
    assert ended.exception.found == url


@pytest.mark.parametrize("name", ["a?b=c", "a%20b", "a#b c"])
def test_the_database_lies_in_the_folder_whatever_that_is_called(tmp_path, name):
    (folder := tmp_path / name).mkdir()
    storage.open_study(storage.open_storage(search.own_url(folder)), "mark", "skd", epochs=4).ask()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in folder.iterdir()] == ["tune.db"]
    again = storage.open_storage(search.own_url(folder))
    assert [each.study_name for each in again.get_all_studies()] == ["skd mark skd"]


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("tune.alpha={low: 0.9, high: 0.1}", "tune.alpha", "choices, or low and a larger high"),
        ("tune.alpha={choices: [1], high: 2}", "tune.alpha", "choices, or low and high"),
        ("tune.alpha={low: 0, high: 2}", "tune.alpha", "numbers less than or equal to 1"),
        ("tune.learning_rate={choices: [0]}", "tune.learning_rate", "numbers greater than 0"),
        ("per_arm={scratch: {alpha: 0.1}}", "per_arm", "of scratch learning_rate alone, not alpha"),
        ("per_arm={skd: {alfa: 0.1}}", "per_arm.skd.alfa", "one of learning_rate, temperature, alpha, hard_target"),
        ("track=[wandb, wandb]", "track", "each at most once, but wandb is repeated"),
    ],
)
def test_a_wrong_space_is_refused(override, key, expected):
    with pytest.raises(UserError) as caught:
        make_study({}, [override])
    assert caught.value.where.endswith(f'key "{key}"')
    assert caught.value.expected == expected


def searched(monkeypatch, out, worth, *overrides, **of_study):
    """Search with trials that are worth what is said; give what was found."""

    def run(given, *_):
        for arm, study in given.studies().items():
            while not worker.finished({arm: study}, given.study.tune.trials):
                own = {"learning_rate": 0.01}
                study.add_trial(optuna.trial.create_trial(value=worth, user_attrs={"settings": own}))

    monkeypatch.setattr(search, "_run_here", run)
    monkeypatch.setattr(search, "check", lambda *_: SimpleNamespace(as_dict=lambda: {"device": "cpu"}))
    content = {"data": {"train_images": 200}, "arms": ["skd"], "seeds": 1, "tune": {"trials": 3}, **of_study}
    return search.tune(make_study(content, overrides), out)["arms"]


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_trials_of_a_model_whose_code_has_changed_are_another_search(tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    (module := tmp_path / "mynet.py").write_text("WIDTH = 4")
    values = []
    for worth, text in [(0.9, "WIDTH = 4"), (0.1, "WIDTH = 4"), (0.2, "WIDTH = 8")]:
        module.write_text(text)
        found = searched(monkeypatch, tmp_path / "out", worth, **{network: {"model": "mynet:net"}})
        values.append([trial["validation_f1"] for trial in found["skd"]["all"]])
    assert values == [[0.9] * 3, [0.9] * 3, [0.2] * 3]


def test_arms_with_more_trials_than_asked_for_are_ranked_by_their_first(tmp_path, capsys):
    study = make_study({"arms": ["kd", "skd"], "tune": {"trials": 5}})
    studies = {arm: opened(tmp_path / "tune.db", arm) for arm in study.arms}
    for arm, trials in {"kd": 5, "skd": 9}.items():
        for number in range(trials):
            trial = studies[arm].ask()
            for name, low, high in [("temperature", 1, 8), ("alpha", 0.3, 1), ("learning_rate", 0.003, 0.03)]:
                trial.suggest_float(name, low, high)
            trial.set_user_attr("settings", {"temperature": 1.0 + number})
            studies[arm].tell(trial, 0.5 + 0.05 * number)
    found = outcome.write_outcome(study, studies, {}, tmp_path)["arms"]
    assert {arm: (row["trials"], row["left_out"], len(row["all"])) for arm, row in found.items()} == {
        "kd": (5, 0, 5),
        "skd": (5, 4, 5),
    }
    assert [row["best"]["number"] for row in found.values()] == [4, 4]
    assert load_study(tmp_path / "best.yaml").per_arm["skd"] == Own(temperature=5.0)
    alone = opened(tmp_path / "alone.db")
    alone.add_trials(studies["skd"].get_trials()[:5])
    assert (
        outcome.write_outcome(study, {"skd": alone}, {}, tmp_path)["arms"]["skd"]["importance"]
        == (found["skd"]["importance"])
    )
    cli_tune.show(Console(width=200), {"seeds": [0], "arms": found})
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said == ["skd: the first 5 of its trials count, as many as tune.trials; 4 more are left out."]


def test_a_search_that_is_given_fewer_trials_and_another_arm_stays_equal(tmp_path, monkeypatch):
    searched(monkeypatch, tmp_path, 0.5, "tune.trials=6")
    found = searched(monkeypatch, tmp_path, 0.5, "tune.trials=4", "arms=[kd, skd]")
    assert {arm: (row["trials"], row["left_out"]) for arm, row in found.items()} == {"kd": (4, 0), "skd": (4, 2)}


@pytest.mark.parametrize(("workers", "cores", "each"), [(2, 7, 3), (4, 2, 1)])
def test_processes_side_by_side_share_the_cores_that_decode(monkeypatch, workers, cores, each):
    heard, images = [], object.__new__(OnDemand)

    class Process:
        pid = None

        def __init__(self, target, args, daemon):
            self.search, _, self.sender = args

        def start(self):
            worker.work(self.search)
            self.sender.send(None)

    monkeypatch.setattr(search, "count_cores", lambda: cores)
    monkeypatch.setattr(search, "worker_context", lambda device: SimpleNamespace(Pipe=Pipe, Process=Process))
    monkeypatch.setattr(worker, "load_samples", lambda *_, **__: SimpleNamespace(fingerprint="data", images=images))
    monkeypatch.setattr(worker, "from_dict", lambda choices: None)
    monkeypatch.setattr(worker, "_take", lambda search, shop, _: heard.append(shop.samples.images.processes))
    given = worker.Search(make_study({"workers": workers}), Path(), "", "a", "data")
    search._run_here(given, "cpu", lambda: None)
    assert heard == [each] * workers
    worker.work(given)  # as under Ray, which gives each process one core
    assert heard[-1] == 1


def test_samples_without_the_test_split_are_the_others_as_they_were():
    study = make_study({"data": {"train_images": 200}})
    whole, blind = load_samples(study), load_samples(study, test=False)
    assert len(blind.test) == 0
    assert len(blind.table) == len(whole.table) - len(whole.test)
    for split in ("train", "validation"):
        before, after = (getattr(samples, split) for samples in (whole, blind))
        assert np.array_equal(whole.images[before], blind.images[after])
        assert np.array_equal(whole.subclass_labels[before], blind.subclass_labels[after])
