"""A teacher's logits for every view of every training image: computed once, refused when stale."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from subclass_kd import store
from subclass_kd.augment import Views
from subclass_kd.errors import UserError
from subclass_kd.training import predict


@dataclass(frozen=True)
class Origin:
    """Fingerprints of what targets were made from; a change of any makes them stale."""

    teacher: str
    data: str
    views: str


def compute(teacher: nn.Module, images: Tensor, train: Tensor, views: Views, fabric: Fabric) -> Tensor:
    """Give the teacher's logits for each view of each training image.

    Args:
        teacher: gives logits (B, K) for (B, C, H, W) in [0, 1].
        images: (N, C, H, W) uint8.
        train: (n,) int64 rows of the training images.
        views: V views.
        fabric: device and precision.

    Returns:
        (V, n, K) float32 on the CPU.
    """
    return torch.stack([predict(teacher, images, train, fabric, views, view) for view in range(views.count)])


def write(path: Path, logits: Tensor, origin: Origin, recipe: str) -> None:
    """Store targets (V, n, K) with their origin."""
    store.save(path, {"logits": logits}, recipe, asdict(origin))


def read(path: Path, origin: Origin) -> Tensor:
    """Read targets (V, n, K), or refuse them if they were made from something else.

    Raises:
        UserError: teacher, data or views changed since; the message names which, and how to make them anew.
    """
    made_from = store.notes(path)
    changed = [part for part, mark in asdict(origin).items() if made_from.get(part) != mark]
    if changed:
        expected = f"targets made from the present {' and '.join(changed)}"
        remedy = f'Remove the file and run the study again: rm "{path}"'
        raise UserError(str(path), f"targets of another {' and '.join(changed)}", expected, remedy)
    logits: Tensor = store.load(path)["logits"]
    return logits
