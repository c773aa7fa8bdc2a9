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
        rows: (n + u,) the images to learn from among all samples.
        labelled: n, how many of them, the first, have a label; of the others the loss is its soft part alone.
        fabric: device.
    """

    def __init__(self, lesson: Lesson, rows: Tensor, labelled: int, fabric: Fabric) -> None:
        self.lesson, self.labelled = lesson, labelled
        labels = lesson.labels[rows]
        labels[labelled:] = 0  # what they are is not looked at
        self.labels = fabric.to_device(labels)  # (n + u,)
        targets = lesson.targets
        self.stored = fabric.to_device(targets) if isinstance(targets, Tensor) else None  # (V, n, K)
        self.teacher = None if isinstance(targets, Tensor) else targets
        flat = lesson.hierarchy.num_subclasses == lesson.hierarchy.num_classes  # no class has anything within
        whole = flat or (lesson.hard_target == "subclass" and lesson.within_class == 1)
        self.mixes = self.stored is not None and whole and lesson.temperature == 1
        self.view = 0
        self.mixed = self.excess = torch.empty(0, device=fabric.device)

    def begin(self, view: int) -> None:
        """Make ready for an epoch of one view of the images."""
        self.view = view
        if self.mixes and self.stored is not None:
            known = losses.mixed_targets(
                self.stored[view, : self.labelled], self.labels[: self.labelled], self.lesson.alpha
            )
            others = losses.mixed_targets(self.stored[view, self.labelled :], self.labels[self.labelled :], alpha=1.0)
            self.mixed, self.excess = (
                torch.cat(both) for both in zip(known, others, strict=True)
            )  # (n + u, K), (n + u,)

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
        if len(self.labels) == self.labelled:
            return Loss(loss.total, loss.hard.detach())
        return Loss(torch.where(batch < self.labelled, loss.total, loss.soft), loss.hard.detach())

    def means(self, total: Tensor, hard: Tensor, seen: Tensor) -> tuple[float, float, float]:
        """Give the means over an epoch of the loss and its two parts.

        Args:
            total: (m,) the loss of each image that was seen.
            hard: (m,) its hard part.
            seen: (m,) which image each was.

        Returns:
            (total, hard, soft): total and soft over all images, hard over those with a label. soft is 0 without a
            teacher, or with an alpha of 0.
        """
        alpha = self.lesson.alpha
        total, hard, known = total.double(), hard.double(), seen < self.labelled
        if self.mixes:
            total = total - self.excess[seen]
        soft = torch.zeros_like(total)
        if self.lesson.targets is not None and alpha > 0:
            soft = torch.where(known, (total - (1 - alpha) * hard) / alpha, total)
        of_known = hard[known].sum() / known.sum().clamp(min=1)  # an epoch of few images may have none with a label
        means: list[float] = torch.stack([total.mean(), of_known, soft.mean()]).tolist()
        return means[0], means[1], means[2]
