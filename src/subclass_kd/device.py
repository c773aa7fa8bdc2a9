"""The device that a study computes on, and in which precision."""

from __future__ import annotations

import ctypes
import logging
import socket
import sys
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch

from subclass_kd.config import Study
from subclass_kd.errors import UserError
from subclass_kd.sharding import share_out, shares_weights
from subclass_kd.team import Team, current

# Fabric asks for torchmetrics' version by importing all of it, and torchvision with it: two seconds in every process.
# All that hangs on the answer is a tool that we do not use. To an import, None means that a module is not there.
_absent = sys.modules.setdefault("torchmetrics", None) is None  # type: ignore[arg-type]
from lightning_fabric import Fabric  # noqa: E402
from lightning_fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: E402
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy  # noqa: E402

if _absent:
    del sys.modules["torchmetrics"]
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell of each Fabric's precision


def make_fabric(study: Study, precision: Literal["float32", "bfloat16"] = "float32") -> Fabric:
    """Give the study's device, computing in a precision.

    Args:
        study: ``device`` is read.
        precision: "bfloat16" computes in it where torch's autocast allows; weights stay float32.

    Returns:
        A Fabric of one device, on which nothing has been set up yet.
    """
    kind, _, number = study.device.partition(":")
    if current().count > 1:  # each process has a device of its own
        kind, number = ("cuda", str(current().local_rank)) if on_cuda(study) else ("cpu", "")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: speed is bfloat16's part
    return Fabric(
        accelerator=kind,
        devices=[int(number)] if number else 1,
        precision=PRECISIONS[precision],
        plugins=[LightningEnvironment()],  # under SLURM Fabric would look for more tasks than one device is
    )


def make_team_fabric(study: Study, precision: Literal["float32", "bfloat16"], shard: bool = False) -> Fabric:
    """Give the devices of this process's team, of which each computes a part of a batch; gradients are averaged.

    Args:
        study: ``device`` is read.
        precision: as of :func:`make_fabric`.
        shard: whether each has a share of a network's weights (FSDP), or all of them (DDP).

    Returns:
        A Fabric whose processes have come together.
    """
    return _team_fabric(current(), "cuda" if on_cuda(study) else "cpu", precision, shard)


@cache  # one that shards makes connections of its own, which stay
def _team_fabric(team: Team, kind: str, precision: Literal["float32", "bfloat16"], shard: bool) -> Fabric:
    sharding = partial(ModelParallelStrategy, share_out, data_parallel_size=team.count, tensor_parallel_size=1)
    fabric = Fabric(
        accelerator=kind,
        devices=team.devices,
        num_nodes=team.nodes,
        strategy=sharding() if shard else DDPStrategy(),
        precision=PRECISIONS[precision],
        plugins=[LightningEnvironment()],  # which processes there are is known
    )
    fabric.launch()
    return fabric


def teacher_fabric(study: Study, precision: Literal["float32", "bfloat16"] = "float32") -> Fabric:
    """Give what a trained teacher answers on: the study's device, or its team's where they share the weights out."""
    return make_team_fabric(study, precision, True) if shares_weights(study.teacher) else make_fabric(study, precision)


def on_cuda(study: Study) -> bool:
    """Say whether a team's devices are GPUs, as far as this machine has any."""
    return study.device == "cuda" or (study.device == "auto" and torch.cuda.is_available())


def computes_bfloat16(study: Study) -> bool:
    """Say whether the study's device computes in bfloat16: CUDA from capability 8, CPUs with AVX-512 or AMX."""
    device = make_fabric(study).device
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # What torch asks itself before it lets oneDNN compute in bfloat16.
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not where torch is built without oneDNN
    return device.type == "cpu" and known is not None and bool(known())


@cache
def device_name(study_device: str) -> str:
    """Name the device as its maker does, so that what was measured on one is not taken for another.

    Args:
        study_device: ``Study.device``.
    """
    device = make_fabric(Study(device=study_device)).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = []
    if (information := Path("/proc/cpuinfo")).exists():
        lines = information.read_text("utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([device.type, *models[:1], torch.backends.cpu.get_cpu_capability()])


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, which needs as much again: giving pages back costs time."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: the largest that glibc accepts
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def check_device(study: Study) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        UserError: there is no such device.
    """
    kind, _, number = study.device.partition(":")
    there = {"auto": 1, "cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if (devices := current().devices) > 1 and on_cuda(study) and devices > there["cuda"]:
        found = f"{there['cuda']} GPUs on {socket.gethostname()}"
        raise UserError(f"--devices {devices}", found, "as many as that on each node")
    if int(number or 0) >= there[kind]:
        expected = f"a device of this machine: {', '.join(name for name, count in there.items() if count)}"
        raise UserError('key "device"', f'"{study.device}"', expected)
