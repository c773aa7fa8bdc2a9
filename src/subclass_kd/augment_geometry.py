"""Where the pixels of a view come from: whole-pixel moves, right angles, and one interpolation for the rest."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from subclass_kd.config import Augment

ASPECT = 4 / 3  # widest crop against the image's own shape; its inverse is the tallest


def move(images: Tensor, draws: Tensor, turn: Tensor | None, augment: Augment) -> Tensor:
    """Move images by whole pixels, the border repeated, mirror them, and turn them by right angles, in this order.

    Args:
        images: (B, C, H, W), any dtype; square if ``augment.rotate90``.
        draws: (B, 3) in [0, 1): down, across, mirror left and right.
        turn: (B, 2) in [0, 1): mirror top and bottom, quarter turns against the clock; None if neither is on.
        augment: ``flip``, ``shift``, ``flip_vertical`` and ``rotate90``.

    Returns:
        (B, C, H, W), pixels of ``images``.
    """
    count, channels, height, width = images.shape
    upended = turn[:, 0] if turn is not None and augment.flip_vertical else None
    # A view's pixel (r, c) is the image's pixel number rows[r] + columns[c], after right angles too.
    rows = _positions(draws[:, 0], upended, height, width, augment.shift)  # (B, H)
    columns = _positions(draws[:, 1], draws[:, 2] if augment.flip else None, width, 1, augment.shift)  # (B, W)
    if turn is not None and augment.rotate90:
        turns = (4 * turn[:, 1:]).long()  # (B, 1)
        rows, columns = (torch.where(turns >= 2, axis.flip(1), axis) for axis in (rows, columns))
        odd = turns % 2 == 1
        rows, columns = torch.where(odd, columns.flip(1), rows), torch.where(odd, rows, columns)
    pixels = (rows[:, :, None] + columns[:, None, :]).view(count, 1, height * width).expand(-1, channels, -1)
    return images.reshape(count, channels, height * width).gather(2, pixels).view(images.shape)


def _positions(draw: Tensor, mirror: Tensor | None, length: int, step: int, shift: float) -> Tensor:
    """Turn draws (B,) into the source position (B, length) of each row or column, in units of ``step``."""
    largest = int(shift * length)
    number = (draw * (2 * largest + 1)).long()  # (B,) uniform on 0..2 largest
    if mirror is not None:
        number = torch.add(number, mirror < 0.5, alpha=2 * largest + 1)
    return _position_table(length, step, largest, draw.device).index_select(0, number)


# Made once for each axis of the images at hand: a step of the demo takes 10 ms, and making this would be 0.1 of them.
@lru_cache(maxsize=8)
def _position_table(length: int, step: int, largest: int, device: torch.device) -> Tensor:
    """Give the positions (2 M, length) of each of the M = 2 ``largest`` + 1 moves, and of each of them mirrored."""
    offsets = torch.arange(-largest, largest + 1, device=device)[:, None]  # (M, 1)
    positions = (torch.arange(length, device=device) + offsets).clamp(0, length - 1) * step  # (M, length)
    return torch.cat([positions, positions.flip(1)])


def resample(images: Tensor, affine: Tensor | None, crop: Tensor | None, augment: Augment) -> Tensor:
    """Turn, scale and shear images about their centre, then cut out a part at full size: one bilinear interpolation.

    The crop keeps a share a of the area, uniform on [``augment.crop``, 1], with sides sqrt(a r) W and sqrt(a / r) H;
    log r is uniform within log 3/4 to log 4/3, as far as the crop fits. Beyond the image its border is repeated.

    Args:
        images: (B, C, H, W) float32.
        affine: (B, 3) in [0, 1): angle, scale, shear; or None.
        crop: (B, 4) in [0, 1): area, aspect, left, top; or None.
        augment: ``rotation``, ``scale``, ``shear`` and ``crop``.

    Returns:
        (B, C, H, W) float32, in the range of ``images``.
    """
    count, _, height, width = images.shape
    # Positions as shares of half the image, from its centre: -1 and 1 are its edges.
    across = _centres(width, images.device).expand(count, -1)  # (B, W)
    down = _centres(height, images.device).expand(count, -1)  # (B, H)
    if crop is not None:
        wide, high = rectangle_sides(augment.crop + (1 - augment.crop) * crop[:, 0], crop[:, 1], ASPECT)  # (B,) shares
        across = wide[:, None] * across + ((1 - wide) * (2 * crop[:, 2] - 1))[:, None]
        down = high[:, None] * down + ((1 - high) * (2 * crop[:, 3] - 1))[:, None]
    across, down = across[:, None, :], down[:, :, None]  # (B, 1, W), (B, H, 1)
    if affine is not None:
        angle, scale, shear = (2 * affine - 1).unbind(1)  # (B,) in [-1, 1)
        angle, shear = math.radians(augment.rotation) * angle, torch.tan(math.radians(augment.shear) * shear)
        scale = 1 + augment.scale * scale
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        # The inverse of scale * rotation * shear; H/W because across and down have units of their own.
        sheared = [cos - sin * shear, (cos * shear + sin) * (height / width), -sin * (width / height), cos]
        a, b, c, d = (each[:, None, None] for each in sheared)  # (B, 1, 1)
        across, down = a * across + b * down, c * across + d * down  # (B, H, W)
    # Positions beyond the outermost pixels' centres are brought back to them, which repeats the border; not every
    # device knows padding_mode="border" (https://github.com/pytorch/pytorch/issues/125098).
    across, down = (axis.clamp(1 / length - 1, 1 - 1 / length) for axis, length in ((across, width), (down, height)))
    shape = (count, height, width)
    grid = torch.stack([across.expand(shape), down.expand(shape)], dim=-1)  # (B, H, W, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rectangle_sides(area: Tensor, draw: Tensor, widest: float) -> tuple[Tensor, Tensor]:
    """Give the sides (B,), as shares of width and height, of a rectangle with a share (B,) of an image's area.

    Their ratio is log-uniform from 1 / ``widest`` to ``widest`` of the image's own, as far as the rectangle fits.
    """
    limit = (-area.log()).clamp(max=math.log(widest))  # (B,)
    ratio = ((2 * draw - 1) * limit).exp()
    return (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)


def _centres(length: int, device: torch.device) -> Tensor:
    """Give the centres (length,) of pixels on an axis from -1 to 1."""
    return (2 * torch.arange(length, device=device, dtype=torch.float32) + 1) / length - 1
