"""A study's networks: built from a seed, checked before any work is done, counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from subclass_kd.arithmetic import Choices
from subclass_kd.config import Network, Study
from subclass_kd.data.rows import Samples
from subclass_kd.device import check_device, make_fabric
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint
from subclass_kd.measuring import choose
from subclass_kd.models import build_model
from subclass_kd.sharding import check_weights, shares_weights


def check(study: Study, samples: Samples, before: Any = None) -> Choices:
    """Check device and models before any work is done, and choose how they compute.

    Args:
        study: what to run.
        samples: its data.
        before: what an earlier part of this run chose, as :meth:`Choices.as_dict` gave; None if there was none.

    Raises:
        UserError: the device is not there, or a model cannot be built, run or trained, or gives other outputs.
    """
    check_device(study)
    for key, network in (("teacher", study.teacher), ("student", study.student)):
        for outputs in sorted({samples.hierarchy.num_subclasses, samples.hierarchy.num_classes}):
            _check_model(study, network, key, outputs, samples)
    networks = {"teacher": study.teacher, "student": study.student}
    outputs = samples.hierarchy.num_subclasses
    try:
        return choose(
            study, lambda role: seeded_model(networks[role], outputs, samples, 0), samples.images.shape[1:], before
        )
    except torch.OutOfMemoryError as error:
        expected, remedy = "a step of teacher and student that fits", "Lower their batch_size or data.size."
        raise UserError('key "device"', "too little memory on it", expected, remedy) from error


def _check_model(study: Study, network: Network, key: str, outputs: int, samples: Samples) -> None:
    """Build a model and pass images through it, forward and backward."""
    # What is too large for one device is tried in main memory.
    device = torch.device("cpu") if shares_weights(network) else make_fabric(study).device
    model = seeded_model(network, outputs, samples, seed=0).to(device)
    if shares_weights(network):
        check_weights(model)
    image_shape = samples.images.shape[1:]
    images = torch.zeros(4, *image_shape, device=device)
    try:
        logits = model(images)
        shape = tuple(logits.shape)
        if shape == (4, outputs):
            logits.sum().backward()
            model.eval()(images)
    except Exception as error:  # the user's model may raise anything, and timm's assert their image size
        seen = image_shape if network.size is None else (image_shape[0], network.size, network.size)
        found = f"a model that fails on images of shape {seen} ({_reason(error)})"
        remedy = f"Set data.size or {key}.size, or choose another."
        raise UserError(f'key "{key}.model"', found, "a model for this image size", remedy) from None
    if network.compile:
        _check_compiler(model, key, images)
    if shape != (4, outputs):
        expected = f"logits of shape (4, {outputs}) for 4 images and {outputs} outputs"
        remedy = "The model must heed num_classes."
        raise UserError(f'key "{key}.model"', f"an output of shape {shape}", expected, remedy)


def _check_compiler(model: nn.Module, key: str, images: Tensor) -> None:
    """Compile a model and pass images through it, forward and backward."""
    try:
        torch.compile(model.train())(images).sum().backward()
    except Exception as error:  # a missing compiler, or code that torch cannot trace
        found = f"true, and a model that does not compile ({_reason(error)})"
        expected = "a compiler for torch.compile (g++ on a CPU, Triton on CUDA), and a model that it takes"
        raise UserError(f'key "{key}.compile"', found, expected, "Set it to false.") from None


def _reason(error: Exception) -> str:
    """Give the first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def derived_seed(*parts: Any) -> int:
    """Derive a generator's seed, 0 to 2^31 - 1, from what it is for, so that no two uses share a stream."""
    return int(fingerprint(*parts), 16) % 2**31


def seeded_model(network: Network, outputs: int, samples: Samples, seed: int) -> nn.Module:
    """Build a network whose weights a seed fixes, whatever else draws random numbers."""
    mean, std = (torch.from_numpy(statistic) for statistic in samples.mean_and_std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(network, outputs, samples.images.shape[1], mean, std)


def network_cost(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Count a network's parameters, and its multiply-adds for one image.

    Args:
        model: takes (1, C, H, W) on the CPU; left in evaluation mode.
        image_shape: (C, H, W).

    Returns:
        ``parameters`` and ``multiply_adds``: of convolutions and matrix products, as torch counts them.
    """
    counter = FlopCounterMode(display=False)
    model.eval()
    with torch.no_grad(), counter:
        model(torch.zeros(1, *image_shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "multiply_adds": counter.get_total_flops() // 2}
