"""The jobs of a study as tasks of Ray, on the machines of a cluster: this says which may begin, Ray says where."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from subclass_kd import engine_ray_node as node
from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.engine import Engine, OnEvent, Prepare, may_begin, members_of
from subclass_kd.engine_ray_places import Places
from subclass_kd.errors import UserError
from subclass_kd.extras import demand
from subclass_kd.mirror import Mirror
from subclass_kd.plan import Job, grouped

RETRIES = 10  # of a job whose node or process died; a training goes on from its last checkpoint
PATIENCE = 10.0  # seconds for a cluster to answer
PASSED_ON = ("SUBCLASS_KD_CACHE",)


@contextlib.contextmanager
def on_cluster(address: str | None = None, mirror: Mirror | None = None) -> Iterator[Engine]:
    """Connect to a Ray cluster for a while, as :func:`connected` does.

    Args:
        address: of the cluster.
        mirror: of the store that the run folder is in, if it is in one.

    Yields:
        What runs a study's jobs there: an engine for :func:`subclass_kd.study.run_study`.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    with connected(address):
        yield partial(run_jobs, mirror=mirror)


@contextlib.contextmanager
def connected(address: str | None, **options: Any) -> Iterator[None]:
    """Be connected to a Ray cluster for a while; a connection that is there is taken, and stays.

    Args:
        address: of the cluster, as ``ray.init`` takes it, "auto" for the one that runs on this machine; None for what
            RAY_ADDRESS says, or a new one of this machine alone.
        options: further ones of ``ray.init``.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    demand("--engine ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
    import ray

    if ray.is_initialized():
        yield
        return
    # Ray itself would join whichever cluster it finds running here, which may be another user's.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_answers(address)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)  # which Ray takes for itself
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse a host and port where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", or nonsense, which Ray refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    found = f"{address}, where no cluster answers ({error})"
    return UserError("--address", found, "HOST:PORT, as ray start prints it", "Start Ray there.")


def run_jobs(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    prepare: Prepare,
    on_event: OnEvent,
    before: Any = None,
    mirror: Mirror | None = None,
) -> None:
    """Make the files of these jobs on the cluster that this process is connected to.

    As :func:`subclass_kd.engine.run_jobs`, with the same results where the machines are alike. Each machine reads the
    study's data itself and keeps its own decoded images. The run folder is one that all share, or with ``mirror`` a
    store, from which each job gets what it reads and to which it puts what it makes.

    Raises:
        UserError: as there, or the machines do not share the folder or the packages' versions.
        RuntimeError: a job failed otherwise, or its process died again and again.
    """
    import ray

    ray_api: Any = ray  # its types differ from version to version
    share, places = share_of(study, [each["Resources"] for each in ray_api.nodes() if each["Alive"]])
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    order = node.Order(
        study,
        samples.fingerprint,
        out.absolute(),
        f".{uuid.uuid4().hex}.part",
        None if mirror is None else mirror.url_of(out),
        Path.cwd(),
        environment,
        node.versions(),
        cores=int(share["num_cpus"]),
    )
    check, make = (ray_api.remote(**share, max_retries=RETRIES)(task) for task in (node.check, _make))
    there = Places(share)
    choices = _outcome("check", there.await_end(check.remote(order, before)))
    most = len(jobs) if study.workers == "auto" else study.workers
    prepare(min(most, places, len(jobs)), choices)
    if mirror is not None:
        mirror.push_plain()
    waiting = grouped(jobs, members_of(study, choices["student"]["chosen"]["members"]), study.distillation.unlabelled)
    watch = _Watch(jobs, on_event)
    running: dict[Any, tuple[Job, ...]] = {}
    missing, ready = {job.path for job in jobs}, True
    (out / order.mark).touch()
    try:
        while missing:
            if ready:
                for group in [group for group in waiting if may_begin(group, missing)][: most - len(running)]:
                    waiting.remove(group)
                    running[make.remote(order, group, choices, watch.board)] = group
            done, _ = ray.wait(list(running), timeout=1)
            watch.relay()
            for task in done:
                group = running.pop(task)
                last = _outcome(", ".join(job.path for job in group), task)
                missing.difference_update(job.path for job in group)
                if mirror is not None:
                    mirror.pull(*(out / job.path for job in group))
                watch.finish(group, last)
            if not (ready := bool(done)):
                there.look()
        node.await_files(out, [jobs[-1].path])
    finally:
        for task in running:
            ray.cancel(task, force=True)
        (out / order.mark).unlink(missing_ok=True)


def share_of(study: Study, nodes: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], int]:
    """Say which share of a machine each job takes, and how many jobs have a place at once.

    Without a GPU each job takes one CPU. With ``device: cuda``, or ``auto`` where any machine has a GPU, each takes one
    GPU, or a part of one where ``workers`` asks for more jobs than there are GPUs, and its part of the CPUs.

    Args:
        study: ``device`` and ``workers`` are read.
        nodes: what each machine has, as "CPU" and "GPU".

    Raises:
        UserError: the study asks for a GPU of a certain number, which only one machine can have.

    >>> share_of(Study(), [{"CPU": 4.0}, {"CPU": 2.0}])
    ({'num_cpus': 1}, 6)
    >>> share_of(Study(), [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 2.0}])
    ({'num_cpus': 8, 'num_gpus': 1.0}, 2)
    >>> share_of(Study(workers=6), [{"CPU": 16.0, "GPU": 2.0}])
    ({'num_cpus': 2, 'num_gpus': 0.3333}, 6)
    """
    kind, _, number = study.device.partition(":")
    if number:
        remedy = 'Write "cuda": Ray gives each job a GPU of its own.'
        raise UserError('key "device"', f'"{study.device}" on a cluster', "a kind of device", remedy)
    with_gpu = [each for each in nodes if each.get("GPU", 0) >= 1]
    if kind not in ("auto", "cuda") or (kind == "auto" and not with_gpu):
        return {"num_cpus": 1}, sum(int(each.get("CPU", 0)) for each in nodes)
    gpus = sum(each["GPU"] for each in with_gpu)
    jobs_on_one = 1 if study.workers == "auto" else max(1, math.ceil(study.workers / max(1, gpus)))
    cpus = max(1, min((int(each["CPU"] / (each["GPU"] * jobs_on_one)) for each in with_gpu), default=1))
    places = sum(min(int(each["CPU"] / cpus), int(each["GPU"]) * jobs_on_one) for each in with_gpu)
    return {"num_cpus": cpus, "num_gpus": math.floor(1e4 / jobs_on_one) / 1e4}, places  # Ray counts in ten-thousandths


def _make(order: node.Order, group: tuple[Job, ...], choices: dict[str, Any], board: Any) -> node.Outcome:
    """Make a group's files, and tell the board of it."""
    return node.make(order, group, choices, lambda *told: board.tell.remote(*told))


def _outcome(name: str, task: Any) -> Any:
    """Give what came of a task.

    Raises:
        UserError: what the task found is the user's to mend.
        RuntimeError: it failed otherwise.
    """
    import ray

    try:
        event, content = ray.get(task)
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{name}: {error}\nIs there enough memory, and subclass-kd on every machine?") from error
    if event == "failed":
        raise content if isinstance(content, UserError) else RuntimeError(content)
    return content


class _Board:
    """Where jobs write how far they are, and the driver reads it."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str, Any]] = []

    def tell(self, path: str, event: str, content: Any) -> None:
        """Note an event of a job."""
        self._told.append((path, event, content))

    def take(self) -> list[tuple[str, str, Any]]:
        """Give what is new."""
        told, self._told = self._told, []
        return told


class _Watch:
    """Passes on what happens to jobs: started first and finished last, whatever the board may have lost.

    Args:
        jobs: of the run.
        on_event: hears of them.
    """

    def __init__(self, jobs: Sequence[Job], on_event: OnEvent) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote: Any = ray.remote
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)  # lives as we do
        self.board: Any = remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()
        self._new: Any = self.board.take.remote()
        self._on_event, self._jobs = on_event, {job.path: job for job in jobs}
        self._epochs: dict[str, int] = {}  # of the jobs that go on, the last that was told

    def relay(self) -> None:
        """Pass on what the board has; of a job that began again after its node died, only what is new."""
        import ray

        if self._new is None or not ray.wait([self._new], timeout=0)[0]:
            return
        try:
            told = ray.get(self._new)
        except ray.exceptions.RayError:  # only display is lost
            self._new = None
            return
        self._new = self.board.take.remote()
        for path, event, content in told:
            if path in self._jobs:
                self._tell(self._jobs[path], content if event == "epoch" else None)

    def finish(self, group: Sequence[Job], last: Mapping[str, Any]) -> None:
        """Say that jobs are finished.

        Args:
            group: these.
            last: the last epoch of those that were trained, by path.
        """
        for job in group:
            self._tell(job, last.get(job.path))
            self._on_event(self._jobs.pop(job.path), "finished", None)

    def _tell(self, job: Job, epoch: Any) -> None:
        if job.path not in self._epochs:
            self._epochs[job.path] = 0
            self._on_event(job, "started", None)
        if epoch is not None and epoch.epoch > self._epochs[job.path]:
            self._epochs[job.path] = epoch.epoch
            self._on_event(job, "epoch", epoch)
