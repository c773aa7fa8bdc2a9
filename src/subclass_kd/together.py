"""One training over many devices: how its processes come together, and what all but the first of them do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from subclass_kd.cli_shared import say
from subclass_kd.config import Study
from subclass_kd.errors import UserError
from subclass_kd.plan import Job
from subclass_kd.team import ALONE, Team, current, enter

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

    from subclass_kd.arithmetic import Choices
    from subclass_kd.channel import Channel
    from subclass_kd.data.rows import Samples

# Kinds of jobs that all devices do. The rest is the first one's, but for what a teacher in shares predicts.
TOGETHER = ("teachers", "targets", "students")
GONE = "a process of the training is gone without a word; is there enough memory?"
COMING = timedelta(minutes=10)  # that processes have to come together
LOCAL = "127.0.0.1"
_channel: Channel | None = None


@contextlib.contextmanager
def joined(devices: int, nodes: int) -> Iterator[Team]:
    """Be one of the processes of a run on several devices; all but the first work in here, and never come out.

    Under torchrun or SLURM's srun, which start a process for each device, this one finds the others. On one node and
    without them, it starts the others itself.

    Args:
        devices: on each node.
        nodes: machines.

    Raises:
        UserError: there are other processes than that, or none that could be started.
    """
    global _channel
    launcher, count, rank, local_rank = _place()
    if devices * nodes == 1 and launcher != "torchrun":
        yield ALONE
        return
    if launcher is None and nodes > 1:
        line = f"torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        remedy = f'On each node: "{line} -m subclass_kd.cli run ...", or srun: see docs/devices.md.'
        raise UserError(f"--nodes {nodes}", "no torchrun or srun", "a process for each device", remedy)
    if launcher is not None and count != devices * nodes:
        if rank:
            sys.exit()  # the first one says it
        found, expected = f"{count} processes that {launcher} started", f"{devices * nodes}, one for each device"
        remedy = f"Start so many with {launcher}, or change --devices and --nodes."
        raise UserError(f"--devices {devices} --nodes {nodes}", found, expected, remedy)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch would print its stack where a process is gone
    team = Team(rank, devices * nodes, local_rank, nodes)
    store, children = _launched(team) if launcher is None else (_store(team), [])
    channel = _open(team, store, children)
    if rank:
        _follow(channel)
    code = 0
    try:
        yield team
    except BaseException as error:
        # In words, before the others end: a launcher that sees one end may end all.
        code = _report(_cause(error, channel))
        sys.exit(code)
    finally:
        channel.end(code)
        enter(ALONE)
        _channel = None


def _cause(error: BaseException, channel: Channel) -> BaseException:
    """Give why another process ended, where this one feels it as a lost connection."""
    if not isinstance(error, UserError | SystemExit | KeyboardInterrupt):
        try:
            channel.raise_end()
        except (UserError, RuntimeError, SystemExit) as told:
            return told
    return error


def _report(error: BaseException) -> int:
    """Tell the user what ended the run, and give its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, UserError):
        say(str(error))
        return 2
    if is_lost(error):
        say(GONE)
    else:
        traceback.print_exception(error)
    return 1


def is_lost(error: BaseException) -> bool:
    """Say whether an error is that of a connection to a process that has ended."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def follow() -> NoReturn:
    """Be a process that :func:`joined` has started on this machine."""
    environment = os.environ
    team = Team(int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment["LOCAL_RANK"]))
    _follow(_open(team, _store(team), []))


def _open(team: Team, store: Store, children: Sequence[subprocess.Popen[bytes]]) -> Channel:
    global _channel
    from subclass_kd.channel import Channel
    from subclass_kd.checkpoint import stop_at_a_checkpoint

    _channel = Channel(store, team, children)
    stop_at_a_checkpoint(signal.SIGTERM, signal.SIGINT)
    enter(team)
    return _channel


def _place() -> tuple[str | None, int, int, int]:
    """Give what started this process among others, if anything; how many; its number among all and on its node."""
    for launcher, names in (
        ("torchrun", ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK")),
        ("srun", ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")),
    ):
        mark, *numbers = (os.environ.get(name) for name in names)
        by_hand = launcher == "srun" and os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
        if mark is not None and None not in numbers and not by_hand:
            count, rank, local_rank = (int(number or 0) for number in numbers)
            return launcher, count, rank, local_rank
    return None, 1, 0, 0


def _store(team: Team) -> Store:
    """Reach the store that all processes share, where their launcher says."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    if "MASTER_ADDR" not in os.environ:  # torchrun says it; of SLURM the first node is known to all
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        nodes = os.environ.get("SLURM_JOB_NODELIST", "127.0.0.1")
        os.environ["MASTER_ADDR"] = SLURMEnvironment.resolve_root_node_address(nodes)
    os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10000))
    store: Store
    store, _, _ = next(rendezvous("env://", team.rank, team.count, timeout=COMING))
    return store


def _launched(team: Team) -> tuple[Store, list[subprocess.Popen[bytes]]]:
    """Start the other processes of a team on this machine, and give the store in which they meet this one."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # A socket of ours: torch's own would listen on all addresses, and who reaches the store may give orders.
    listening = socket.create_server((LOCAL, 0))
    port = listening.getsockname()[1]
    store = TCPStore(
        LOCAL,
        port,
        None,
        is_master=True,
        wait_for_workers=False,
        timeout=COMING,
        master_listen_fd=listening.detach(),  # torch closes it
    )
    meeting = {"MASTER_ADDR": LOCAL, "MASTER_PORT": str(port), "WORLD_SIZE": str(team.count)}
    children = []
    for rank in range(1, team.count):
        own = {**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-c", "from subclass_kd.together import follow; follow()"]
        # A session of its own, out of the terminal's reach: whether and when to stop is the first one's to say.
        child = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        children.append(child)
    return store, children


def check_together(study: Study, workers: int | None) -> None:
    """Refuse what one device can do and a team cannot.

    Args:
        study: what to run.
        workers: as the user gave them for this run, if so.

    Raises:
        UserError: a device of this number, one that torch cannot connect, a network to compile, or workers.
    """
    if workers is not None and workers > 1:
        raise UserError(f"--workers {workers}", "workers with --devices", "one or the other", "Leave one out.")
    if study.device not in ("auto", "cpu", "cuda"):
        raise UserError('key "device"', f'"{study.device}" with --devices', "auto, cpu or cuda beside it")
    for key in ("teacher", "student"):
        if getattr(study, key).compile:
            raise UserError(f'key "{key}.compile"', "true with --devices", "false beside it")


def summon(study: Study, samples: Samples, out: Path, jobs: Sequence[Job], choices: Choices) -> None:
    """Have all processes of the team begin these jobs with this one; nothing where they are this one's alone.

    Raises:
        UserError, RuntimeError: another process cannot.
    """
    if current().count == 1 or _channel is None:
        return
    from subclass_kd.sharding import shares_weights

    if jobs[0].kind not in TOGETHER and not (jobs[0].name.startswith("teachers/") and shares_weights(study.teacher)):
        return
    _channel.order(
        {
            "study": study.model_dump(mode="json"),
            "data": samples.fingerprint,
            "out": str(out.absolute()),
            "jobs": [asdict(job) for job in jobs],
            "choices": choices.as_dict(),
        }
    )
    _connect(study)


def _follow(channel: Channel) -> NoReturn:
    """Do what the first process orders, until it ends; then so does this one."""
    code: int = 1
    error: UserError | str | None = None
    try:
        try:
            _obey(channel)
        except RuntimeError as broken:
            raise _cause(broken, channel) from None
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except UserError as refused:
        code, error = 2, refused
    except BaseException as fault:
        error = None if is_lost(fault) else traceback.format_exc()
    if code == 1 and error is None:  # the first one feels it too, and says it while it lives
        if not channel.is_open():
            say(GONE)
    else:
        channel.end(code, error)
    os._exit(code)  # at once: what waits in torch's threads for a process that has ended would wait long


def _obey(channel: Channel) -> NoReturn:
    import torch

    from subclass_kd.arithmetic import from_dict
    from subclass_kd.device import keep_freed_memory
    from subclass_kd.work import make

    torch.set_num_threads(1)
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="lightning_fabric")
    while True:
        order = channel.next()
        study, out = Study.model_validate(order["study"]), Path(order["out"])
        samples = _samples(json.dumps(order["study"]), order["data"])
        if not (out / "study.json").exists():
            expected = "the run folder, which all nodes must see"
            raise UserError(str(out), "no run on one of the machines", expected, "Give another --out.")
        jobs = [Job(**{**job, "needs": tuple(job["needs"])}) for job in order["jobs"]]
        channel.ready()
        _connect(study)
        make(study, samples, out, jobs, from_dict(order["choices"]), lambda job, epoch: None)


@lru_cache(maxsize=1)
def _samples(study: str, fingerprint: str) -> Samples:
    """Read the data as the first process did, and see to it that this device is there."""
    from subclass_kd.device import check_device
    from subclass_kd.engine import load_again

    content = Study.model_validate_json(study)
    check_device(content)
    return load_again(content, fingerprint, verify=current().local_rank == 0)  # the first of another machine


def _connect(study: Study) -> None:
    """Let the team's processes compute together, when all are ready to."""
    from torch import cuda, distributed

    from subclass_kd.device import on_cuda

    if distributed.is_initialized():
        return
    team = current()
    # As Fabric's environment for processes that somebody else has started wants it.
    os.environ |= {"LOCAL_RANK": str(team.local_rank), "NODE_RANK": str(team.rank // team.devices)}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    backend = "cpu:gloo,cuda:nccl" if on_cuda(study) else "gloo"
    if on_cuda(study):
        cuda.set_device(team.local_rank)
    if _channel is not None:
        _channel.connect(backend)
