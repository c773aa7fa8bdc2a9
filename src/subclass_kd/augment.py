"""Views: a fixed number of augmentations of each image, the same for teacher and student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """``count`` views of each image, each fixed by (seed, sample, view).

    View 0 is the image itself. A further view is moved by whole pixels, up to ``shift`` times height and width (the
    border is repeated), and mirrored left-right or not. Whole pixels keep a view's bytes the same on every device.

    Args:
        seed: >= 0; another seed gives other views.
        count: >= 1.
        flip: mirror half of the views.
        shift: 0 to 0.5, the largest move as a share of height and width.

    >>> image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    >>> Views(seed=0, count=2, flip=True, shift=0.0).apply(image, torch.tensor([0]), view=0).equal(image)
    True
    """

    seed: int
    count: int
    flip: bool
    shift: float

    def apply(self, images: Tensor, samples: Tensor, view: int) -> Tensor:
        """Give one view of each image of a batch.

        Args:
            images: (B, C, H, W), any dtype.
            samples: (B,) int64 on the CPU: which samples of the data these are, since that fixes their views.
            view: 0 to ``count`` - 1.

        Returns:
            (B, C, H, W), dtype and device of ``images``.

        Raises:
            ValueError: there is no such view.
        """
        draws = self.draws(samples, view)
        return images if draws is None else self.render(images, draws.to(images.device))

    def draws(self, samples: Tensor, view: int) -> Tensor | None:
        """Give what fixes a view of these samples, for :meth:`render`; None for view 0, the images themselves.

        Args:
            samples: (B,) int64 on the CPU.
            view: 0 to ``count`` - 1.

        Returns:
            (B, 3) float32 in [0, 1): move down, move right, mirror.

        Raises:
            ValueError: there is no such view.
        """
        if not 0 <= view < self.count:
            raise ValueError(f"view: found {view}; expected 0 to {self.count - 1}")
        if view == 0:
            return None
        return torch.from_numpy(_draws(self.seed, view, int(samples.max()) + 1))[samples]

    def render(self, images: Tensor, draws: Tensor) -> Tensor:
        """Move and mirror images (B, C, H, W) as their draws (B, 3), on the same device, say."""
        _, channels, height, width = images.shape
        rows = _moved(draws[:, 0], height, self.shift)  # (B, H)
        columns = _moved(draws[:, 1], width, self.shift)  # (B, W)
        if self.flip:
            columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
        images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
        return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _moved(draw: Tensor, length: int, shift: float) -> Tensor:
    """Turn draws (B,) into the source position (B, length) of each row or column of the view."""
    largest = int(shift * length)
    offset = (draw * (2 * largest + 1)).long() - largest  # (B,) uniform on -largest..largest
    return (torch.arange(length, device=draw.device) + offset[:, None]).clamp(0, length - 1)


# A view's table is asked for at each of its batches; two views' worth covers the one in use and the next.
@lru_cache(maxsize=2)
def _table(seed: int, view: int, rows: int) -> NDArray[np.float32]:
    # Philox fills rows in order, so a sample's draws do not depend on how many samples follow it.
    return np.random.Generator(np.random.Philox(key=[seed, view])).random((rows, 3), dtype=np.float32)


def _draws(seed: int, view: int, at_least: int) -> NDArray[np.float32]:
    """Give the first rows of a view's table of draws, sized in powers of two so that it is made once."""
    return _table(seed, view, 1 << max(10, (at_least - 1).bit_length()))
