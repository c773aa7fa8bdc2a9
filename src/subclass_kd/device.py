"""The device that a study computes on, and in which precision."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from subclass_kd.config import Study
from subclass_kd.errors import UserError


def make_fabric(study: Study) -> Fabric:
    """Give the study's device and precision.

    bfloat16 is used by default only on CUDA devices that compute in it. On a CPU it is left to the user
    (``precision: bfloat16``): whether it gains there differs by network and by the CPU's units.

    Args:
        study: ``device`` and ``precision`` are read.

    Returns:
        A Fabric of one device, on which nothing has been set up yet.
    """
    kind, _, number = study.device.partition(":")
    on_cuda = kind == "cuda" or (kind == "auto" and torch.cuda.is_available())
    gains = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    half = study.precision == "bfloat16" or (study.precision == "auto" and gains)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return Fabric(
        accelerator=kind, devices=[int(number)] if number else 1, precision="bf16-mixed" if half else "32-true"
    )


def check_device(study: Study) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        UserError: there is no such device.
    """
    kind, _, number = study.device.partition(":")
    there = {"auto": 1, "cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if int(number or 0) >= there[kind]:
        expected = f"a device of this machine: {', '.join(name for name, count in there.items() if count)}"
        raise UserError('key "device"', f'"{study.device}"', expected)
