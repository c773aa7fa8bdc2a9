"""What a machine of a cluster does of a study: check the device, make files. It needs no Ray to be told of it."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import subclass_kd
from subclass_kd.arms import ARMS
from subclass_kd.cache import cache_folder
from subclass_kd.config import Study
from subclass_kd.data.on_demand import decode_with
from subclass_kd.data.rows import Samples
from subclass_kd.engine import same_samples
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.lock import hold
from subclass_kd.mirror import RemoteFolder, kept_in_store
from subclass_kd.plan import Job, asked_networks, plan, teacher_paths

LATE = 90.0  # seconds after which what another machine has written must be seen: NFS remembers absence for up to 60
Outcome = tuple[str, Any]  # "finished" and what came of it, or "failed" and a UserError or a traceback


@dataclass(frozen=True)
class Order:
    """What every job of a run is told.

    Args:
        study: what to run.
        fingerprint: of the samples that the driver has read.
        out: the run folder, the same for all machines; not read where there is a store.
        mark: name of a file that the driver has put there; a folder without it is another one of the same name.
        store: URL of the run folder, where it is in no file system.
        folder: where ``skd`` was called, from which relative paths start.
        environment: variables of the driver that count.
        versions: of the packages that decide results, on the driver.
        cores: that a job may decode images with.
    """

    study: Study
    fingerprint: str
    out: Path
    mark: str
    store: str | None
    folder: Path
    environment: dict[str, str]
    versions: dict[str, str]
    cores: int


def versions() -> dict[str, str]:
    """Give the versions here of what decides results."""
    return {"subclass-kd": subclass_kd.__version__, "torch": version("torch")}


def check(order: Order, before: Any) -> Outcome:
    """Check device and models on this node, and choose how they compute, as :func:`subclass_kd.build.check` does."""

    def choose() -> dict[str, Any]:
        from subclass_kd.build import check

        return check(order.study, _load(order), before).as_dict()

    return _attempt(order, "check", choose)


def make(order: Order, group: Sequence[Job], choices: dict[str, Any], tell: Callable[[str, str, Any], None]) -> Outcome:
    """Make the files of a group of jobs in the run folder.

    Args:
        order: of the run.
        group: as :func:`subclass_kd.plan.grouped` puts jobs together.
        choices: how the networks compute, as :meth:`Choices.as_dict` gives it.
        tell: called with a job's path, "started" or "epoch", and an Epoch or None; nothing depends on it.

    Returns:
        "finished" and the last epoch of each path that was trained, or what went wrong.
    """

    def do() -> dict[str, Epoch]:
        from subclass_kd import work
        from subclass_kd.arithmetic import from_dict

        last: dict[str, Epoch] = {}

        def on_epoch(job: Job, epoch: Epoch) -> None:
            last[job.path] = epoch
            tell(job.path, "epoch", epoch)

        with _workplace(order, group) as out:
            for job in group:
                tell(job.path, "started", None)
            work.make(order.study, _load(order), out, group, from_dict(choices), on_epoch)
        return last

    return _attempt(order, ", ".join(job.path for job in group), do)


@contextlib.contextmanager
def _workplace(order: Order, group: Sequence[Job]) -> Iterator[Path]:
    """Give a folder with what jobs read, and keep what they make in it: the run's, or one to work in beside a store."""
    read = dict.fromkeys(path for job in group for path in inputs(order, job))
    if order.store is None:
        check_shared(order)
        await_files(order.out, list(read))
        yield order.out
        return
    remote = RemoteFolder(order.store)
    with tempfile.TemporaryDirectory(prefix="skd-job-") as folder:
        out = Path(folder)
        for path in read:
            remote.get(path, out / path)
        first = Path(group[0].path)
        with kept_in_store(remote, out, checkpoint_path(first).as_posix()):
            yield out
            for job in group:
                remote.put(out / job.path, job.path)


def inputs(order: Order, job: Job) -> list[str]:
    """List the files of the run that a job reads, which for predictions are fewer than it waits for."""
    study, teacher = order.study, ARMS[job.name].teacher if job.kind == "students" else None
    if job.kind == "predictions":
        return list(asked_networks(study, job))
    if job.kind == "results":
        return [made.path for made in plan(study, order.fingerprint)[:-1]]
    return [*job.needs, *(teacher_paths(study, teacher, job.seed) if teacher else ())]


def await_files(out: Path, paths: Sequence[str]) -> None:
    """Wait until files that are known to be made are seen here too, which over NFS may be later.

    Raises:
        UserError: one is not seen.
    """
    until = time.monotonic() + LATE
    for path in paths:
        while not (out / path).exists():
            if time.monotonic() > until:
                where, expected = f"{out / path} on {socket.gethostname()}", "what another machine has put there"
                raise UserError(where, "no file", expected, "Give an --out that all machines share, and run again.")
            time.sleep(0.5)
            with contextlib.suppress(OSError):
                os.listdir((out / path).parent)  # which has NFS look again


def _attempt(order: Order, name: str, action: Callable[[], Any]) -> Outcome:
    """Bring this process to where a worker of the local engine is, act, and say what came of it."""
    try:
        os.environ.update(order.environment)
        with contextlib.suppress(OSError):  # no relative path then; one that is needed will be missed by name
            os.chdir(order.folder)
        check_versions(order)
        import torch

        from subclass_kd.device import keep_freed_memory

        torch.set_num_threads(1)
        keep_freed_memory()
        return "finished", action()
    except UserError as error:
        return "failed", error
    except Exception:
        return "failed", f"{name} on {socket.gethostname()}: {traceback.format_exc()}"


def check_versions(order: Order) -> None:
    """Refuse packages here that are others than on the driver.

    Raises:
        UserError: one is.
    """
    for name, there in order.versions.items():
        if (here := versions()[name]) != there:
            expected = f"{there}, as where skd was called"
            raise UserError(f"{name} on {socket.gethostname()}", here, expected, "Install the same on all machines.")


def check_shared(order: Order) -> None:
    """Refuse a folder that only has the name of the run's.

    Raises:
        UserError: what the driver has put into it is not there.
    """
    if not (order.out / order.mark).exists():
        where = f"{order.out} on {socket.gethostname()}"
        raise UserError(where, "no folder of this run", "a folder that all machines share", "Give another --out.")


def checkpoint_path(path: Path) -> Path:
    """Give where the checkpoint of a file lies while it is made, as :class:`subclass_kd.checkpoint.Checkpoint` says."""
    return path.with_name(f".{path.stem}.checkpoint")


def _load(order: Order) -> Samples:
    """Read the data, once in a process; one process of a machine after the other, the first of which decodes files."""
    folder = cache_folder()
    with contextlib.suppress(OSError):  # who needs it will say so
        folder.mkdir(parents=True, exist_ok=True)
    # By the machine's name: a cache that machines share must not have all wait for one that died.
    with _in_turn(folder / f".loading-{socket.gethostname()}.lock"):
        samples = _samples(order.study.model_dump_json(), order.fingerprint)
    decode_with(samples.images, order.cores)
    return samples


@lru_cache(maxsize=1)
def _samples(study: str, fingerprint: str) -> Samples:
    # Verified: what this machine has stored of the images, nobody has looked at in this run.
    return same_samples(Study.model_validate_json(study), fingerprint, verify=True)


@contextlib.contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """Let one process at a time in, where the folder can be written and locked."""
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError:
        yield
        return
    with file:
        while hold(file) is False:
            time.sleep(0.2)
        yield
