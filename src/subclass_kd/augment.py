"""Views: augmentations of each image, fixed by (study seed, sample, view), the same for teacher and student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subclass_kd import augment_colour, augment_geometry
from subclass_kd.config import Augment

# How many draws each group of operations takes. A group's place here is part of what fixes its views: append only.
GROUPS = {"move": 3, "turn": 2, "crop": 4, "affine": 3, "stain": 6, "colour": 4, "erasing": 5}


@dataclass(frozen=True)
class Views:
    """``count`` views of each image, each fixed by (seed, sample, view).

    View 0 is the image itself. A further view is, in this order: moved by whole pixels, mirrored and turned by right
    angles; turned by any angle, scaled and sheared, then cropped, in one interpolation; changed in its stains,
    brightness, contrast, saturation and hue; erased in a rectangle. What is off in ``augment`` is left out, and
    changes nothing of the rest.

    Whole pixels keep a view's bytes the same on every device. Where a view is interpolated or its colours change, its
    values agree within rounding of float32, whatever the batch and the device.

    Args:
        seed: >= 0; another seed gives other views.
        count: >= 1; None for view numbers without end.
        augment: which operations, and how far they go.

    >>> image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    >>> Views(seed=0, count=2, augment=Augment()).apply(image, torch.tensor([0]), view=0).equal(image)
    True
    """

    seed: int
    count: int | None
    augment: Augment

    def describe(self) -> dict[str, Any]:
        """Give all that decides the views, for a fingerprint."""
        return {"seed": self.seed, "count": self.count, "augment": self.augment.model_dump()}

    def apply(self, images: Tensor, samples: Tensor, view: int) -> Tensor:
        """Give one view of each image of a batch.

        Args:
            images: (B, C, H, W) uint8.
            samples: (B,) int64 on the CPU: which samples of the data these are, since that fixes their views.
            view: 0 to ``count`` - 1.

        Returns:
            (B, C, H, W) on the device of ``images``, as :meth:`render` gives them.

        Raises:
            ValueError: there is no such view.
        """
        draws = self.draws(samples, view)
        return images if draws is None else self.render(images, draws.to(images.device))

    def draws(self, samples: Tensor, view: int) -> Tensor | None:
        """Give what fixes a view of these samples, for :meth:`render`; None where it is the images themselves.

        Args:
            samples: (B,) int64 on the CPU.
            view: 0 to ``count`` - 1.

        Returns:
            (B, D) float32 in [0, 1): 3 for flip and shift, and those of :data:`GROUPS` for what else is on.

        Raises:
            ValueError: there is no such view.
        """
        if view < 0 or (self.count is not None and view >= self.count):
            most = "" if self.count is None else f" to {self.count - 1}"
            raise ValueError(f"view: found {view}; expected 0{most}")
        if view == 0 or not self._groups:
            return None
        rows = 1 << max(10, int(samples.max()).bit_length())  # in powers of two, so that a table is made once
        return torch.from_numpy(_table(self.seed, view, rows, self._groups)).index_select(0, samples)

    def render(self, images: Tensor, draws: Tensor) -> Tensor:
        """Give the view that draws fix.

        Args:
            images: (B, C, H, W) uint8.
            draws: (B, D) of :meth:`draws`, on the device of ``images``.

        Returns:
            (B, C, H, W): uint8 where only flips, shift, right angles and erasing are on, else float32 in [0, 255].
        """
        augment = self.augment
        if self._groups == ("move",):
            return augment_geometry.move(images, draws, None, augment)
        widths = [GROUPS[name] for name in self._groups]
        parts = dict(zip(self._groups, torch.split(draws, widths, dim=1), strict=True))  # (B, width) each
        turn, crop, affine = parts.get("turn"), parts.get("crop"), parts.get("affine")
        if turn is not None or augment.flip or augment.shift:
            images = augment_geometry.move(images, parts["move"], turn, augment)
        if crop is not None or affine is not None:
            images = augment_geometry.resample(images.float(), affine, crop, augment)
        if "stain" in parts:
            images = augment_colour.stain(images.float(), parts["stain"], augment.stain)
        if "colour" in parts:
            images = augment_colour.jitter(images.float(), parts["colour"], augment)
        if "erasing" in parts:
            images = augment_colour.erase(images, parts["erasing"], augment.erasing)
        return images

    @cached_property
    def _groups(self) -> tuple[str, ...]:
        """Name the groups of operations of which one is on; with any, the moves, so that the first draws are theirs."""
        augment = self.augment
        on = {
            "turn": augment.flip_vertical or augment.rotate90,
            "crop": augment.crop,
            "affine": augment.rotation or augment.scale or augment.shear,
            "stain": augment.stain,
            "colour": augment.brightness or augment.contrast or augment.saturation or augment.hue,
            "erasing": augment.erasing,
        }
        on["move"] = augment.flip or augment.shift or any(on.values())
        return tuple(name for name in GROUPS if on[name])


# A view's table is asked for at each of its batches; two views' worth covers the one in use and the next.
@lru_cache(maxsize=2)
def _table(seed: int, view: int, rows: int, groups: tuple[str, ...]) -> NDArray[np.float32]:
    """Give a view's draws (rows, D): each group's from a stream of its own, so that none moves another's."""
    # Philox fills rows in order, so a sample's draws do not depend on how many samples follow it.
    streams = (np.random.Philox(key=[seed, view], counter=[0, 0, 0, list(GROUPS).index(name)]) for name in groups)
    parts = [
        np.random.Generator(stream).random((rows, GROUPS[name]), dtype=np.float32)
        for name, stream in zip(groups, streams, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
