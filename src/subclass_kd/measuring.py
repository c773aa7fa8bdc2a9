"""Which arithmetic is fastest here: candidates take a few steps in turns, once for each network and device."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from subclass_kd.arithmetic import Arithmetic, Choice, Choices, Layout, Precision, choice_from, from_dict
from subclass_kd.arms import ARMS
from subclass_kd.cache import cache_folder
from subclass_kd.config import Network, Study
from subclass_kd.device import computes_bfloat16, device_name, make_fabric
from subclass_kd.ensemble import Ensemble, may_be_stacked
from subclass_kd.files import fingerprint, write_json
from subclass_kd.models import model_version
from subclass_kd.sharding import shares_weights
from subclass_kd.training import as_input

GAIN = 1.1  # another choice than the first must be so many times faster, or a shaky clock would choose
SECONDS = 6.0  # that candidates are timed for, at most, once each has been timed twice
ROUNDS = 5
MEMBERS = 3  # at most so many students train as one: a study of six arms has three with the same outputs
# On a CPU the size changes little but the last digits, which a clock must not choose.
PREDICTION_BATCHES = {"cpu": (128,), "other": (32, 128, 512, 1024, 2048, 4096)}


def choose(
    study: Study,
    build: Callable[[Literal["teacher", "student"]], nn.Module],
    shape: tuple[int, ...],
    before: Any = None,
) -> Choices:
    """Choose how this study's networks compute on this device.

    Every candidate takes a few steps on noise, in turns. The first (channels last, in bfloat16 on a GPU) stays unless
    another is 10 % faster, so that a second measurement would choose alike; it is kept in the cache all the same.

    Args:
        study: networks, device, precision.
        build: gives a new network on the CPU.
        shape: of an image, (C, H, W).
        before: choices of the run that goes on, as :meth:`Choices.as_dict` gave; they stay if the device is the same.
    """
    name = device_name(study.device)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        if (known := from_dict(before)).device == name:
            return known
    shared = _unmeasured(study) if shares_weights(study.teacher) else None
    teacher = shared or _cached(
        study, study.teacher, shape, "train", lambda: _for_training(study, study.teacher, build("teacher"), shape)
    )
    outputs = [ARMS[arm].outputs for arm in study.arms]
    members = min(MEMBERS, max(outputs.count(kind) for kind in outputs))
    student = _cached(
        study,
        study.student,
        shape,
        f"{members} students",
        lambda: _for_students(study, build("student"), shape, members),
    )
    targets = shared or _cached(
        study, study.teacher, shape, "predict", lambda: _for_targets(study, build("teacher"), shape)
    )
    # What was tried may have filled the card, which others may share.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
    return Choices(name, teacher, student, targets)


def layouts(network: Network, model: nn.Module, device: str = "cpu") -> tuple[Layout, ...]:
    """Give the layouts that a network may be trained in, the one to prefer first.

    A callable of the user's keeps the usual layout, on which its code may count. On a CPU channels last is not safe for
    a 1x1 convolution with a stride and fewer than 16 input channels: oneDNN, in computing the gradient of its weights,
    then writes past its workspace (https://github.com/uxlfoundation/oneDNN/issues/6035).

    >>> from subclass_kd.config import Student
    >>> layouts(Student(model="timm:resnet18"), nn.Conv2d(16, 32, 1, stride=2))
    ('channels_last', 'contiguous')
    >>> layouts(Student(model="timm:resnet18"), nn.Conv2d(15, 32, 1, stride=2))
    ('contiguous',)
    """
    unsafe = device == "cpu" and any(
        set(layer.kernel_size) == {1} and max(layer.stride) > 1 and layer.in_channels // layer.groups < 16
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    )
    ours = network.model.startswith(("small:", "timm:"))
    return ("channels_last", "contiguous") if ours and not unsafe else ("contiguous",)


def precisions(study: Study) -> tuple[Precision, ...]:
    """Give the number formats that a study allows on this device, the one to prefer first.

    >>> precisions(Study(precision="bfloat16"))
    ('bfloat16',)
    """
    if study.precision != "auto":
        return (study.precision,)
    if not computes_bfloat16(study):
        return ("float32",)
    return ("float32", "bfloat16") if make_fabric(study).device.type == "cpu" else ("bfloat16", "float32")


def _candidates(study: Study, network: Network, model: nn.Module, batch_size: int) -> list[Arithmetic]:
    return [
        Arithmetic(layout, precision, batch_size)
        for precision in precisions(study)
        for layout in layouts(network, model, make_fabric(study).device.type)
    ]


def _unmeasured(study: Study) -> Choice:
    """Choose for a teacher that may fit on no single device, where it could be timed: weights in shares lie one way."""
    return Choice(Arithmetic("contiguous", precisions(study)[0], study.teacher.batch_size), {})


def _for_training(study: Study, network: Network, model: nn.Module, shape: tuple[int, ...]) -> Choice:
    candidates = _candidates(study, network, model, network.batch_size)
    if len(candidates) == 1:
        return Choice(candidates[0], {})
    steps = {str(candidate): _training_step(study, model, shape, candidate) for candidate in candidates}
    return _fastest(candidates, _time(steps))


def _for_students(study: Study, model: nn.Module, shape: tuple[int, ...], members: int) -> Choice:
    """Choose as for any training; on a GPU, which a small network leaves idle, ask also whether several as one pay."""
    choice = _for_training(study, study.student, model, shape)
    kind = make_fabric(study).device.type
    if kind == "cpu" or members == 1 or study.student.compile or not may_be_stacked(model):
        return choice
    several = replace(choice.chosen, members=members)
    candidates = {str(each): each for each in (choice.chosen, several)}
    try:
        times = _time({name: _training_step(study, model, shape, each) for name, each in candidates.items()})
    except (RuntimeError, NotImplementedError):  # what vmap cannot do, or too little memory
        return choice
    each = {name: ms / candidates[name].members for name, ms in times.items()}
    return _fastest([choice.chosen, several], {**choice.milliseconds, **each})


def _for_targets(study: Study, model: nn.Module, shape: tuple[int, ...]) -> Choice:
    """Choose layout and precision first, then on a GPU the smallest batch size within a tenth of the fastest.

    Milliseconds are those of an image.
    """
    kind = make_fabric(study).device.type
    first, *larger = PREDICTION_BATCHES["cpu" if kind == "cpu" else "other"]
    candidates = _candidates(study, study.teacher, model, first)
    choice = Choice(candidates[0], {})
    if len(candidates) > 1:
        times = _time({str(candidate): _prediction(study, model, shape, candidate) for candidate in candidates})
        choice = _fastest(candidates, {name: ms / first for name, ms in times.items()})
    if not larger:
        return choice
    sizes = {f"{size} at once": replace(choice.chosen, batch_size=size) for size in (first, *larger)}
    each: dict[str, float] = {}  # least milliseconds an image
    for name, candidate in sizes.items():
        try:
            taken = _time({name: _prediction(study, model, shape, candidate)})[name]
        except RuntimeError:  # too little memory
            break
        each[name] = taken / candidate.batch_size
        if taken > 1000 * SECONDS / ROUNDS:
            break  # larger ones would take long to ask
    near = [name for name, ms in each.items() if ms <= GAIN * min(each.values())]
    return Choice(sizes[near[0]] if near else choice.chosen, {**choice.milliseconds, **each})


def _fastest(candidates: list[Arithmetic], milliseconds: dict[str, float]) -> Choice:
    best = min(candidates, key=lambda candidate: milliseconds[str(candidate)])
    keep = milliseconds[str(candidates[0])] < GAIN * milliseconds[str(best)]
    return Choice(candidates[0] if keep else best, milliseconds)


def _training_step(
    study: Study, model: nn.Module, shape: tuple[int, ...], arithmetic: Arithmetic
) -> Callable[[], None]:
    """Give a function that takes one step of training on noise."""
    fabric = make_fabric(study, arithmetic.precision)
    count = arithmetic.members
    own = copy.deepcopy(model).to(memory_format=arithmetic.memory_format) if count == 1 else Ensemble([model] * count)
    learner, optimizer = fabric.setup(own, torch.optim.AdamW(own.parameters(), fused=True))
    images, labels = _noise(arithmetic.batch_size, shape, fabric.device)

    def step() -> None:
        logits = learner(as_input(images, arithmetic.memory_format))  # (B, K) or (M, B, K)
        loss = F.cross_entropy(logits.float().flatten(0, -2), labels.repeat(arithmetic.members))
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(fabric.device)

    return step


def _prediction(study: Study, model: nn.Module, shape: tuple[int, ...], arithmetic: Arithmetic) -> Callable[[], None]:
    """Give a function that predicts one batch of noise."""
    fabric = make_fabric(study, arithmetic.precision)
    own = fabric.setup_module(copy.deepcopy(model).to(memory_format=arithmetic.memory_format)).eval()
    images, _ = _noise(arithmetic.batch_size, shape, fabric.device)

    def step() -> None:
        with torch.no_grad():
            own(as_input(images, arithmetic.memory_format))
        _wait(fabric.device)

    return step


def _noise(count: int, shape: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images.to(device), torch.zeros(count, dtype=torch.int64, device=device)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _time(steps: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Give the least milliseconds that each step took, timed in turns: what else the machine does only adds."""
    for step in steps.values():
        step()  # the first one sets up
    taken: dict[str, list[float]] = {name: [] for name in steps}
    started = time.perf_counter()
    for number in range(ROUNDS):
        if number >= 2 and time.perf_counter() - started > SECONDS:
            break
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: min(values) for name, values in taken.items()}


def _cached(study: Study, network: Network, shape: tuple[int, ...], use: str, measure: Callable[[], Choice]) -> Choice:
    """Give what was measured before of this network on this device, or measure now."""
    of_network = network.model_dump(include={"model", "options", "batch_size", "compile"})
    name = device_name(study.device)
    seen = list(shape) if network.size is None else [*shape, network.size]
    marks = [use, name, torch.__version__, of_network, model_version(network), seen, study.precision]
    path = cache_folder() / "arithmetic" / f"{fingerprint(*marks)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return choice_from(json.loads(path.read_text("utf-8")))
    choice = measure()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs another measurement
        write_json(path, {"measured": marks, **asdict(choice)})
    return choice
