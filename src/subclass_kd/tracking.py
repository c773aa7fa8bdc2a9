"""Telling TensorBoard, MLflow or Weights & Biases of each training, by their own libraries; only where asked.

What they hear changes no result, and what goes wrong with them stops no run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from subclass_kd.arms import ARMS
from subclass_kd.config import Study
from subclass_kd.epoch import Epoch
from subclass_kd.extras import demand
from subclass_kd.plan import Job
from subclass_kd.run_folder import flattened

PROJECT = "subclass-kd"
UPLOAD = 60.0  # seconds to send the rest of a training's numbers, while others wait
WAITED = 10.0  # seconds that a tracker may have kept a run waiting in vain, to be asked once more to end its other runs
# By itself MLflow would try for four minutes where nobody answers, and for twenty where somebody does not answer.
MLFLOW = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "2",  # seconds between them: none, 4, 8, and up to one more each
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a server may ask for any time
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "60",
}
Values = Mapping[str, float]
Settings = Mapping[str, Any]


class Tracker(Protocol):
    """One training, or the results, told to one library."""

    def log(self, values: Values, step: int) -> None:
        """Tell numbers of a step."""

    def close(self, whole: bool) -> None:
        """End it; not whole, where it was stopped."""


class Tracking:
    """Tells every tracker of every training: each file of weights is a run of its own, named by its path.

    Args:
        names: of the trackers.
        out: the run folder; what stays on this machine lies there.

    Raises:
        UserError: a tracker's library is not installed.
    """

    def __init__(self, names: Sequence[str], out: Path) -> None:
        for name in names:
            demand(f"--track {name}", name)
        self._names, self._out = list(names), out
        self._waited = dict.fromkeys(names, 0.0)  # seconds, for what failed
        self._open: dict[str, dict[str, Tracker]] = {}  # run -> tracker's name -> it

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.finish_all(whole=kind is None)

    def epoch(self, job: Job, settings: Settings, epoch: Epoch, folder: str = "") -> None:
        """Tell what an epoch of a job did; the first one begins a run with its settings."""
        values = asdict(epoch)
        self.log(_run_of(job, folder), settings, values, values.pop("epoch"))

    def finish_job(self, job: Job, folder: str = "") -> None:
        """End a job's run; nothing where none began, since it trains nothing."""
        self.finish(_run_of(job, folder))

    def finish_all(self, whole: bool = True) -> None:
        """End all runs."""
        for run in list(self._open):
            self.finish(run, whole)

    def log(self, run: str, settings: Settings, values: Values, step: int) -> None:
        """Tell numbers of a step of a run."""
        if run not in self._open and self._names:
            self._open[run] = {}
            for name in list(self._names):
                self._guard(
                    name, lambda name=name: self._open[run].update({name: START[name](self._out, run, settings)})
                )
        for name, tracker in self._open.get(run, {}).items():
            if name in self._names:
                self._guard(name, lambda tracker=tracker: tracker.log(values, step))

    def finish(self, run: str, whole: bool = True) -> None:
        """End a run, also of a tracker that is told no more, unless it kept us waiting; nothing where none began."""
        for name, tracker in self._open.pop(run, {}).items():
            if self._waited[name] < WAITED:
                self._guard(name, lambda tracker=tracker: tracker.close(whole))

    def _guard(self, name: str, call: Any) -> None:
        """Do without a tracker that fails, and say so once."""
        began = time.monotonic()
        try:
            call()
        except Exception as error:  # whatever a library, a server or a disk may raise
            self._waited[name] += time.monotonic() - began
            if name in self._names:
                self._names.remove(name)
                sys.stderr.write(f"skd: {name} is told no more ({type(error).__name__}: {error}); the run goes on\n")


def _run_of(job: Job, folder: str) -> str:
    return folder + job.path.removesuffix(".safetensors")


def settings_of(study: Study, job: Job) -> dict[str, Any]:
    """Give what a network was trained with, flat: its own settings, and what it was taught with where it has a teacher.

    >>> given = settings_of(Study(), Job("students", "skd", 3, (), ""))
    >>> given["arm"], given["seed"], given["learning_rate"], given["distillation.temperature"]
    ('skd', 3, 0.01, 1.0)
    """
    if job.kind == "teachers":
        return {"teacher": job.name, "seed": job.seed} | study.teacher.model_dump(mode="json")
    own = study.of_arm(job.name)
    given = {"arm": job.name, "seed": job.seed} | own.student.model_dump(mode="json")
    if ARMS[job.name].teacher:
        given |= {f"distillation.{key}": value for key, value in own.distillation.model_dump(mode="json").items()}
    return given


def numbers_of(results: Mapping[str, Any]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    """Give the numbers of results.json that stand for all seeds, and those of each seed by its number."""
    means: dict[str, float] = {}
    seeds: dict[int, dict[str, float]] = {seed: {} for seed in results["study"]["seeds"]}
    for arm, row in results["arms"].items():
        for metric, summary in row.items():
            if isinstance(summary, Mapping) and summary.get("mean") is not None:
                means[f"{arm}/{metric}"] = summary["mean"]
                for seed, value in zip(seeds, summary["per_seed"], strict=True):
                    seeds[seed][f"{arm}/{metric} of a seed"] = value
    for row in results["comparisons"]:
        means[f"{row['arm']} - {row['reference']}/{row['metric']}"] = row["difference"]
    return means, seeds


def tell_results(tracking: Tracking, results: Mapping[str, Any]) -> None:
    """Tell the numbers of results.json, as a run of their own; the step of a seed's numbers is the seed."""
    means, seeds = numbers_of(results)
    settings = {"seeds": len(seeds)} | flattened(results["study"])
    tracking.log("results", settings, means, 0)
    for seed, values in seeds.items():
        tracking.log("results", settings, values, seed)
    tracking.finish("results")


class _TensorBoard:
    """Event files in ``tensorboard/`` of the run folder, a folder for each run."""

    def __init__(self, out: Path, run: str, settings: Settings) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(out / "tensorboard" / run))
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
        }
        parameters = summary_v2.hparams_pb(plain, trial_id=run)
        self._writer.add_event(Event(wall_time=time.time(), summary=parameters))

    def log(self, values: Values, step: int) -> None:
        told = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=told)))

    def close(self, whole: bool) -> None:
        self._writer.close()


class _MLflow:
    """Runs of the experiment that the environment names, on the server that it names, else a database in the folder."""

    def __init__(self, out: Path, run: str, settings: Settings) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
        from sqlalchemy import URL

        for variable, value in MLFLOW.items():
            os.environ.setdefault(variable, value)
        self._metric = Metric
        # With its driver: by "sqlite:" alone MLflow would make a folder of the name as the URL has it.
        here = URL.create("sqlite+pysqlite", database=str((out / "mlflow.db").resolve()))
        there = os.environ.get("MLFLOW_TRACKING_URI") or here.render_as_string(hide_password=False)
        self._client = MlflowClient(tracking_uri=there)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if self._client.get_experiment_by_name(name) is None:
            with contextlib.suppress(MlflowException):  # another process was faster
                self._client.create_experiment(name)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            raise MlflowException(f'no experiment "{name}" can be made')
        key = experiment.experiment_id
        made = self._client.create_run(key, run_name=f"{out.name}/{run}", tags={"folder": str(out), "run": run})
        self._run = made.info.run_id
        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in settings.items()])

    def log(self, values: Values, step: int) -> None:
        now = int(1000 * time.time())
        # Of a name MLflow takes letters, digits and these alone.
        named = [(re.sub(r"[^\w\-. /]", "_", name), value) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=[self._metric(name, value, now, step) for name, value in named])

    def close(self, whole: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if whole else "KILLED")


class _WandB:
    """Runs in ``wandb/`` of the run folder, which send nothing unless WANDB_MODE says so."""

    def __init__(self, out: Path, run: str, settings: Settings) -> None:
        import wandb

        with _no_arguments():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=out.name,
                name=run,
                config=dict(settings),
                dir=str(out),
                mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
                reinit="create_new",  # trainings go on side by side
                # By itself it would wait at a run's end until all is sent: with the network gone, without end.
                settings=wandb.Settings(
                    silent=True,
                    finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", UPLOAD)),
                    finish_timeout_raises=True,
                ),
            )

    def log(self, values: Values, step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, whole: bool) -> None:
        self._run.finish(exit_code=0 if whole else 1)


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide the command's arguments, which W&B writes down and sends: ``--storage`` may hold a password."""
    kept = sys.argv
    sys.argv = kept[:1]
    try:
        yield
    finally:
        sys.argv = kept


START: dict[str, Any] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}
