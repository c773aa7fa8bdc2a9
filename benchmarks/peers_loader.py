"""Images as the peers' examples feed them: a data set that transforms each sample, and torch's DataLoader.

Of what their examples allow, the fastest was taken: decoded images in memory, transforms of tensors (0.26 ms a sample
of 64 x 64 pixels; of Pillow's images, as in torchdistill's example for CIFAR, 0.33 ms), and no worker processes, which
would occupy a second core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from benchmarks.peers_common import Split, Task


class Transformed(Dataset[tuple[Tensor, int]]):
    """A split, image by image, in [0, 1]."""

    def __init__(self, split: Split, shift: int = 0) -> None:
        self.images, self.labels = split.images, split.labels.tolist()
        size = split.images.shape[2:]
        augment = [transforms.RandomCrop(size, padding=shift, padding_mode="edge"), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*(augment if shift else []), transforms.ConvertImageDtype(torch.float32)])

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """Give an image (C, H, W) and its label."""
        return self.transform(self.images[row]), self.labels[row]


class InTaskOrder(Sampler[int]):
    """Gives the rows of each epoch in the task's order."""

    def __init__(self, _: Any, task: Task) -> None:
        self.task, self.epoch = task, 0

    def __len__(self) -> int:
        """Count the images."""
        return self.task.images

    def __iter__(self) -> Iterator[int]:
        """Give the rows of the next epoch."""
        self.epoch += 1
        return iter(self.task.order(self.epoch - 1).tolist())


@torch.no_grad()
def log_loss(student: nn.Module, loader: DataLoader[Any]) -> float:
    """Give a student's log loss on a loader's images, in nats."""
    student.eval()
    sums = [F.cross_entropy(student(images), labels, reduction="sum") for images, labels in loader]
    return torch.stack(sums).sum().item() / len(loader.dataset)  # type: ignore[arg-type]


class SoftPart:
    """Finds the soft part of a peer's total loss from the logits that a hook sees; for the check, untimed."""

    def __init__(self, student: nn.Module, task: Task) -> None:
        self.alpha, self.logits = task.alpha, torch.empty(0)
        student.register_forward_hook(self._see)

    def _see(self, module: nn.Module, inputs: Any, logits: Tensor) -> None:
        self.logits = logits.detach()

    def of(self, total: Tensor, labels: Tensor) -> Tensor:
        """Give soft = (total - (1 - alpha) CE) / alpha, the means of the batch."""
        return (total - (1 - self.alpha) * F.cross_entropy(self.logits, labels)) / self.alpha
