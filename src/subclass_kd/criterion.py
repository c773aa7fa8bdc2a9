"""What a lesson asks of a batch: its loss, in as little work as a step of a small network leaves room for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from subclass_kd import losses

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from subclass_kd.training import Lesson


class Loss(NamedTuple):
    """A loss to descend, (B,), and its hard part, (B,) without a gradient, both in nats."""

    total: Tensor
    hard: Tensor


class Criterion:
    """The loss of one lesson, epoch by epoch.

    A teacher's stored targets at a temperature of 1 are mixed with the labels once an epoch, by
    :func:`subclass_kd.losses.mixed_targets`: one cross-entropy a step then does the work of two losses. It exceeds the
    loss of :func:`subclass_kd.losses.subclass_distillation` by a constant of each image, without a gradient, which
    :meth:`means` takes off again.

    Args:
        lesson: what is taught.
        rows: (n,) the training images among all samples.
        fabric: device.
    """

    def __init__(self, lesson: Lesson, rows: Tensor, fabric: Fabric) -> None:
        self.lesson = lesson
        self.labels = fabric.to_device(lesson.labels[rows])  # (n,)
        targets = lesson.targets
        self.stored = fabric.to_device(targets) if isinstance(targets, Tensor) else None  # (V, n, K)
        self.teacher = None if isinstance(targets, Tensor) else targets
        whole = lesson.hard_target == "subclass" and lesson.within_class == 1
        self.mixes = self.stored is not None and whole and lesson.temperature == 1
        self.view = 0
        self.mixed = self.excess = torch.empty(0, device=fabric.device)

    def begin(self, view: int) -> None:
        """Make ready for an epoch of one view of the images."""
        self.view = view
        if self.mixes and self.stored is not None:
            self.mixed, self.excess = losses.mixed_targets(self.stored[view], self.labels, self.lesson.alpha)

    def __call__(self, logits: Tensor, batch: Tensor, images: Tensor) -> Loss:
        """Give the loss of logits (B, K) for the training images ``batch`` (B,), seen as (B, C, H, W)."""
        labels = self.labels[batch]
        if self.mixes:
            logits = logits.float()
            hard = F.cross_entropy(logits.detach(), labels, reduction="none")
            return Loss(F.cross_entropy(logits, self.mixed[batch], reduction="none"), hard)
        if self.stored is not None:
            targets = self.stored[self.view, batch]  # (B, K)
        elif self.teacher is not None:
            targets = self.teacher(images)
        else:
            hard = F.cross_entropy(logits.float(), labels, reduction="none")
            return Loss(hard, hard.detach())
        lesson = self.lesson
        loss = losses.subclass_distillation(
            logits,
            targets,
            labels,
            lesson.hierarchy,
            temperature=lesson.temperature,
            alpha=lesson.alpha,
            hard_target=lesson.hard_target,
            within_class=lesson.within_class,
        )
        return Loss(loss.total, loss.hard.detach())

    def means(self, total: float, hard: float, seen: Tensor) -> tuple[float, float, float]:
        """Turn means over an epoch into those of the loss and its parts.

        Args:
            total: mean of the loss.
            hard: mean of its hard part.
            seen: (m,) the training images of the epoch, as often as they were seen.

        Returns:
            (total, hard, soft), where total = alpha * soft + (1 - alpha) * hard; soft is 0 without a teacher, or with
            an alpha of 0.
        """
        alpha = self.lesson.alpha
        if self.lesson.targets is None or alpha == 0:
            return total, hard, 0.0
        if self.mixes:
            total -= self.excess[seen].mean().item()
        return total, hard, (total - (1 - alpha) * hard) / alpha
