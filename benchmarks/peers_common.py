"""What the contenders of ``benchmarks.peers`` share: the task, the networks, the images, the score.

It runs in the peers' own environment too, so it needs torch, timm and safetensors, and of this package the networks.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from subclass_kd import networks

SEED = 0
SPLITS = ("train", "validation", "held_out")


@dataclass(frozen=True)
class Task:
    """One training of one student, the same for every contender.

    Args:
        arrays: an .npz with images (n, C, H, W) uint8 and labels (n,) int64 of each split.
        teacher, student: "small:NAME" or "timm:NAME".
        teacher_weights, student_weights: .safetensors; the student's are those that training starts from.
        outputs: K.
        images: how many of the training images are used, a multiple of ``batch_size``.
        epochs, batch_size, learning_rate, weight_decay: of the student.
        temperature, alpha: of the loss, alpha T^2 KL + (1 - alpha) CE.
        views: how many views our targets are stored for.
        shift: largest move of an image, in pixels; 0 switches augmentation off, mirroring too.
        layout: "channels_last" or "contiguous", for teachers and students of the peers.
    """

    arrays: str
    teacher: str
    teacher_weights: str
    student: str
    student_weights: str
    outputs: int
    images: int
    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 0.01
    temperature: float = 2.0
    alpha: float = 0.9
    views: int = 8
    shift: int = 5
    layout: str = "contiguous"

    def write(self, path: Path) -> None:
        """Write it for :func:`run`."""
        path.write_text(json.dumps(asdict(self)))

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.images // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """Give the order (n,) of the images in an epoch, which is that of ``subclass_kd.training``."""
        return torch.randperm(self.images, generator=torch.Generator().manual_seed(SEED * 1_000_003 + epoch))

    def rate(self, step: int) -> float:
        """Give the learning rate's factor at a step, which is that of ``subclass_kd.training``."""
        steps = self.epochs * self.steps
        warmup = max(1, steps // 20)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Split(NamedTuple):
    """Images (n, C, H, W) uint8 and labels (n,) int64."""

    images: Tensor
    labels: Tensor


class Trained(NamedTuple):
    """The weights of the best epoch, and of each epoch the means (total, soft) of the loss; soft may be unknown."""

    weights: dict[str, Tensor]
    history: list[tuple[float, float | None]]


Contender = Callable[[Task, dict[str, Split], nn.Module, nn.Module], Trained]


def build(name: str, outputs: int, channels: int) -> nn.Module:
    """Build a network that takes (N, C, H, W) in [0, 1]."""
    kind, _, model = name.partition(":")
    body: nn.Module
    if kind == "small":
        small = {"resnet": networks.SmallResNet, "convnet": networks.SmallConvNet}[model]
        body = small(num_classes=outputs, in_chans=channels)
    else:
        import timm

        body = timm.create_model(model, num_classes=outputs, in_chans=channels)
    return networks.Normalised(body, torch.full((channels,), 0.5), torch.full((channels,), 0.25))


def layout(task: Task) -> torch.memory_format:
    """As torch calls the peers' layout."""
    return torch.channels_last if task.layout == "channels_last" else torch.contiguous_format


class Best:
    """Keeps the weights of the epoch whose log loss on the validation split is least."""

    def __init__(self) -> None:
        self.log_loss = math.inf
        self.weights: dict[str, Tensor] = {}

    def see(self, student: nn.Module, log_loss: float) -> None:
        """Keep a student's weights if it is better than all before."""
        if log_loss < self.log_loss:
            self.log_loss, self.weights = log_loss, copy.deepcopy(student.state_dict())


@torch.no_grad()
def score(model: nn.Module, split: Split) -> tuple[float, float]:
    """Give (accuracy, log loss in nats) of a network on a split."""
    model.eval()
    logits = torch.cat([model(images.float() / 255) for images in split.images.split(256)])  # (n, K)
    accuracy = (logits.argmax(-1) == split.labels).float().mean().item()
    return accuracy, F.cross_entropy(logits, split.labels).item()


def read(task: Task) -> tuple[dict[str, Split], nn.Module, nn.Module]:
    """Give a task's splits, its teacher (frozen, in evaluation mode) and its student."""
    with np.load(task.arrays) as arrays:
        splits = {
            name: Split(*(torch.from_numpy(arrays[f"{name}_{part}"]) for part in Split._fields)) for name in SPLITS
        }
    splits["train"] = Split(*(part[: task.images] for part in splits["train"]))
    channels = splits["train"].images.shape[1]
    teacher, student = (build(name, task.outputs, channels) for name in (task.teacher, task.student))
    teacher.load_state_dict(load_file(task.teacher_weights))
    student.load_state_dict(load_file(task.student_weights))
    return splits, teacher.eval().requires_grad_(False), student


def run(contender: Contender) -> None:
    """Train as the task in the file ``argv[1]`` says, on one thread, and write what came out to ``argv[2]``.

    The clock runs over the contender's training alone: not over imports, nor reading of arrays and weights.
    """
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    splits, teacher, student = read(task)
    started, worked = time.perf_counter(), time.process_time()
    trained = contender(task, splits, teacher, student)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    student.load_state_dict(trained.weights)
    accuracy, log_loss = score(student.to(memory_format=torch.contiguous_format), splits["held_out"])
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    result: dict[str, Any] = {**times, "accuracy": accuracy, "log_loss": log_loss, "history": trained.history}
    Path(sys.argv[2]).write_text(json.dumps(result))


def without_augmentation(task: Task, **changes: Any) -> Task:
    """Give the task with every image as it is, in one view."""
    return replace(task, views=1, shift=0, **changes)
