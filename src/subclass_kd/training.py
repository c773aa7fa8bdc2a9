"""One loop that trains teachers and the students of every arm; they differ in what they are taught."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from subclass_kd import curriculum, losses
from subclass_kd.augment import Views
from subclass_kd.config import Network
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.hierarchy import SubclassHierarchy


@dataclass(frozen=True)
class Lesson:
    """What a network is taught: labels, and a teacher's targets or none.

    Args:
        hierarchy: of the network's outputs; its identity for a network that predicts classes.
        labels: (N,) int64 into the outputs, for every sample of the data.
        targets: (V, n, K) teacher logits for each view of each training image, in the order of ``train``; or None.
        temperature, alpha, hard_target: as in :func:`subclass_kd.losses.subclass_distillation`.
        weights: (N,) how much each sample counts, a mean of 1 over the training images; None for all alike.
        stage: (N,) the stage of a curriculum in which each training image enters; None for all at once.
        select_by: what chooses the best epoch on the validation split: "f1" of the positive class for a network that
            decides, "log_loss" of its own labels for one whose probabilities are passed on.
    """

    hierarchy: SubclassHierarchy
    labels: Tensor
    targets: Tensor | None = None
    temperature: float = 1.0
    alpha: float = 0.0
    hard_target: Literal["subclass", "class"] = "subclass"
    weights: Tensor | None = None
    stage: NDArray[np.int64] | None = None
    select_by: Literal["f1", "log_loss"] = "f1"


@dataclass(frozen=True)
class Pixels:
    """The images and the rows that a training may see: no test row is among them.

    Args:
        images: (N, C, H, W) uint8.
        train, validation: row numbers, (n,) int64.
        positive: number of the class that F1 speaks of.
    """

    images: Tensor
    train: Tensor
    validation: Tensor
    positive: int


def train(
    model: nn.Module,
    lesson: Lesson,
    pixels: Pixels,
    views: Views,
    network: Network,
    fabric: Fabric,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a network and give the weights of its best epoch by validation, with the history of all.

    Epoch e sees view e mod V of every training image, in an order fixed by (seed, e): all arms of a seed see the same
    images in the same order and take the same number of steps. With a curriculum the early epochs see the easy images
    only, several times each, in as many steps. AdamW (Loshchilov, Hutter 2017,
    https://arxiv.org/abs/1711.05101), the learning rate rising over the first 5 % of the steps and falling to zero
    along a cosine.

    Args:
        model: gives logits (B, K) for images (B, C, H, W) in [0, 1].
        lesson: what it is taught.
        pixels: the images.
        views: their augmentations.
        network: epochs, batch size, learning rate, weight decay.
        fabric: device and precision.
        seed: fixes order and dropout.
        on_epoch: called after each epoch.

    Returns:
        The weights of the best epoch on the CPU, by name, and what each epoch did.

    Raises:
        UserError: the loss is no longer finite.
    """
    layout = memory_format(network, model)
    decay = network.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), lr=network.learning_rate, weight_decay=decay, fused=True)
    count = len(pixels.train)
    steps = math.ceil(count / network.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(network.epochs * steps))
    learner, learning = fabric.setup(model.to(memory_format=layout), optimizer)

    # Everything that a step reads lies on the device before the first, so that no step waits for the host.
    images = fabric.to_device(pixels.images[pixels.train])  # (n, C, H, W) uint8
    labels = fabric.to_device(lesson.labels[pixels.train])  # (n,)
    targets = None if lesson.targets is None else fabric.to_device(lesson.targets)  # (V, n, K)
    weights = None if lesson.weights is None else fabric.to_device(lesson.weights[pixels.train])  # (n,)
    history: list[Epoch] = []
    kept: dict[str, Tensor] = {}
    torch.manual_seed(seed)  # dropout
    for number in range(network.epochs):
        started = time.perf_counter()
        learner.train()
        view = number % views.count
        draws = views.draws(pixels.train, view)
        draws = None if draws is None else fabric.to_device(draws)  # (n, 3)
        order = _order(lesson, pixels.train, seed * 1_000_003 + number, number, network.epochs)  # (n,)
        sums = torch.zeros(3, device=fabric.device)  # total, hard, soft; read once an epoch
        # Batches of nearly one size: a last batch of one image would break batch normalisation.
        for batch in fabric.to_device(order).tensor_split(steps):
            seen = images[batch] if draws is None else views.render(images[batch], draws[batch])
            logits = learner(_as_input(seen, layout))  # (B, K)
            loss = _loss(logits, labels[batch], None if targets is None else targets[view, batch], lesson)
            each = loss.total if weights is None else loss.total * weights[batch]  # (B,)
            fabric.backward(each.mean())
            learning.step()
            learning.zero_grad(set_to_none=True)
            schedule.step()
            sums += torch.stack([part.detach().sum() for part in loss])
        total, hard, soft = (sums / count).tolist()
        log_loss, f1 = _validate(learner, lesson, pixels, fabric)
        if not math.isfinite(total + log_loss):
            where = f'key "{type(network).__name__.lower()}.learning_rate"'
            found = f"{network.learning_rate}, with which the loss is no longer finite in epoch {number + 1}"
            raise UserError(where, found, "a rate at which training converges", "Lower it.")
        history.append(Epoch(number + 1, total, hard, soft, log_loss, f1, time.perf_counter() - started))
        if best_epoch(history, lesson) is history[-1]:
            kept = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        on_epoch(history[-1])
    return kept, history


def _order(lesson: Lesson, train: Tensor, seed: int, number: int, epochs: int) -> Tensor:
    """Give the order (n,) in which epoch ``number`` sees the training images; a curriculum repeats the easy ones."""
    if lesson.stage is None:
        return torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    admitted = curriculum.admitted(lesson.stage[train.numpy()], number, epochs)
    return torch.from_numpy(curriculum.order(admitted, seed))


def best_epoch(history: list[Epoch], lesson: Lesson) -> Epoch:
    """Give the epoch whose weights were kept; the first of equals."""
    return max(history, key=lambda epoch: _merit(epoch, lesson))


def _merit(epoch: Epoch, lesson: Lesson) -> tuple[float, float]:
    by_loss = -epoch.validation_log_loss
    return (by_loss, epoch.validation_f1) if lesson.select_by == "log_loss" else (epoch.validation_f1, by_loss)


def _loss(logits: Tensor, labels: Tensor, targets: Tensor | None, lesson: Lesson) -> losses.DistillationLoss:
    """Give the parts of the loss for logits and targets (B, K), labels (B,); without targets the hard part is all."""
    if targets is None:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return losses.DistillationLoss(total=hard, hard=hard, soft=torch.zeros_like(hard))
    return losses.subclass_distillation(
        logits,
        targets,
        labels,
        lesson.hierarchy,
        temperature=lesson.temperature,
        alpha=lesson.alpha,
        hard_target=lesson.hard_target,
    )


def _validate(model: nn.Module, lesson: Lesson, pixels: Pixels, fabric: Fabric) -> tuple[float, float]:
    """Give (log loss of the outputs' labels in nats, F1 of the positive class) on the validation split."""
    logits = predict(model, pixels.images, pixels.validation, fabric)  # (n, K)
    labels = lesson.labels[pixels.validation]
    log_loss = F.cross_entropy(logits, labels).item()
    decided = lesson.hierarchy.class_log_probs(logits).argmax(-1) == pixels.positive
    truly = lesson.hierarchy.class_labels(labels) == pixels.positive
    hits = int((decided & truly).sum())
    return log_loss, 2 * hits / max(1, int(decided.sum()) + int(truly.sum()))


@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor, rows: Tensor, fabric: Fabric, views: Views | None = None, view: int = 0
) -> Tensor:
    """Give a network's logits for some images, as they are or in one view, and leave it in evaluation mode.

    Args:
        model: on the fabric's device.
        images: (N, C, H, W) uint8 on the CPU.
        rows: (n,) int64: which of them.
        fabric: device and precision.
        views: their augmentations, or None for the images themselves.
        view: which view, if there are any.

    Returns:
        (n, K) float32 on the CPU.
    """
    model.eval()
    logits = []
    for samples in torch.split(rows, 512):
        batch = fabric.to_device(images[samples])
        if views is not None:
            batch = views.apply(batch, samples, view)
        logits.append(model(_as_input(batch)).float().cpu())
    return torch.cat(logits)


def memory_format(network: Network, model: nn.Module) -> torch.memory_format:
    """Give the layout to train a network in: channels last, where convolutions train faster, if it is safe.

    A callable of the user's keeps the usual layout, on which its code may count. On a CPU channels last is not safe for
    a 1x1 convolution with a stride and fewer than 16 input channels: oneDNN, in computing the gradient of its weights,
    then writes past its workspace (https://github.com/uxlfoundation/oneDNN/issues/6035).

    >>> from subclass_kd.config import Student
    >>> memory_format(Student(model="timm:resnet18"), nn.Conv2d(16, 32, 1, stride=2))
    torch.channels_last
    >>> memory_format(Student(model="timm:resnet18"), nn.Conv2d(15, 32, 1, stride=2))
    torch.contiguous_format
    """
    unsafe = any(
        set(layer.kernel_size) == {1} and max(layer.stride) > 1 and layer.in_channels // layer.groups < 16
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    )
    ours = network.model.startswith(("small:", "timm:"))
    return torch.channels_last if ours and not unsafe else torch.contiguous_format


def _as_input(images: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Turn uint8 pixels (B, C, H, W) into [0, 1]."""
    return images.to(dtype=torch.float32, memory_format=layout) / 255


def _warmup_cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor
