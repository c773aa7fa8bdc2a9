"""What changes in the values of a view: stains, brightness, contrast, saturation, hue, and an erased rectangle."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from subclass_kd.augment_geometry import rectangle_sides
from subclass_kd.config import Augment

# Optical density of haematoxylin, eosin and DAB in red, green and blue: Ruifrok, Johnston 2001, "Quantification of
# histochemical staining by color deconvolution", Anal Quant Cytol Histol 23:291-299, pubmed.ncbi.nlm.nih.gov/11531144.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
GREY = (0.299, 0.587, 0.114)  # share of red, green and blue in luminance, ITU-R BT.601
ERASED = (0.02, 0.33)  # share of area
ERASED_ASPECT = 10 / 3


def stain(images: Tensor, draws: Tensor, largest: float) -> Tensor:
    """Change how much of each stain colour images hold (Tellez et al. 2018, https://arxiv.org/abs/1808.05896).

    Densities -ln((x + 1) / 256) are taken apart into haematoxylin, eosin and DAB (Ruifrok, Johnston 2001); each
    amount s becomes a s + b, with a uniform on 1 - ``largest`` to 1 + ``largest`` and b on -``largest`` to ``largest``.

    Args:
        images: (B, 3, H, W) float32 in [0, 255], red, green, blue.
        draws: (B, 6) in [0, 1): a of the three stains, b of the three.
        largest: 0 to 0.5; 0.05 is light, 0.2 is strong.

    Returns:
        (B, 3, H, W) float32 in [0, 255].
    """
    change = largest * (2 * draws - 1)  # (B, 6)
    passed, densities = _stains(images.device)
    # Sums written out: a matrix product may round to fewer digits on some devices.
    mixing = ((1 + change[:, :3, None, None]) * passed).sum(1)[..., None, None]  # (B, from, to, 1, 1)
    added = math.log2(math.e) * (change[:, 3:, None] * densities).sum(1)[..., None, None]  # (B, 3, 1, 1)
    density = 8 - torch.log2(images + 1)  # (B, 3, H, W), to base 2, which is faster
    mixed = added + density[:, :1] * mixing[:, 0] + density[:, 1:2] * mixing[:, 1] + density[:, 2:] * mixing[:, 2]
    return (torch.exp2(8 - mixed) - 1).clamp(0, 255)


@lru_cache(maxsize=8)  # copied to a device once: a copy at each step would hold it up
def _stains(device: torch.device) -> tuple[Tensor, Tensor]:
    """Give what a colour's density gives to another's by way of a stain (stain, from, to), and STAINS (3, 3)."""
    passed = np.linalg.inv(STAINS).T[:, :, None] * STAINS[:, None, :]
    return torch.from_numpy(passed).float().to(device), torch.from_numpy(STAINS).float().to(device)


def jitter(images: Tensor, draws: Tensor, augment: Augment) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order, as torchvision's ColorJitter does each.

    Args:
        images: (B, C, H, W) float32 in [0, 255]; 3 channels for saturation and hue.
        draws: (B, 4) in [0, 1), in the same order.
        augment: ``brightness``, ``contrast``, ``saturation`` and ``hue``.

    Returns:
        (B, C, H, W) float32 in [0, 255].
    """
    brightness, contrast, saturation, hue = (2 * draws - 1)[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    if augment.brightness:
        images = (images * (1 + augment.brightness * brightness)).clamp(0, 255)
    if augment.contrast:
        mean = _grey(images).mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
        images = (mean + (1 + augment.contrast * contrast) * (images - mean)).clamp(0, 255)
    if augment.saturation:
        grey = _grey(images)  # (B, 1, H, W)
        images = (grey + (1 + augment.saturation * saturation) * (images - grey)).clamp(0, 255)
    if augment.hue:
        images = _turn_hue(images, augment.hue * hue)
    return images


def _grey(images: Tensor) -> Tensor:
    """Give luminance (B, 1, H, W) of images (B, C, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = torch.split(images, 1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images (B, 3, H, W) by a share of the circle (B, 1, 1, 1); value and saturation stay.

    A channel of hue h (in sixths) is value - chroma * max(0, min(k, 4 - k, 1)), k = (n + h) mod 6, with n = 5 for red,
    3 for green and 1 for blue (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative).
    """
    red, green, blue = torch.split(images, 1, dim=1)  # (B, 1, H, W)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    divisor = torch.where(chroma == 0, 1, chroma)  # grey has no hue, and none is given to it
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    shift = 5 - 2 * torch.arange(3, device=images.device)[:, None, None]  # (3, 1, 1): n
    sixth = (shift + hue + 6 * turn).remainder(6)  # (B, 3, H, W)
    return value - chroma * torch.minimum(sixth, 4 - sixth).clamp(0, 1)


def erase(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Fill a rectangle of some images with their own mean (Zhong et al. 2017, https://arxiv.org/abs/1708.04896).

    Their mean, by channel, since black or noise could pass for a finding, and a fixed grey for an edge. The rectangle
    has 2 to 33 % of the area, 0.3 to 1 / 0.3 of the image's aspect ratio, and sides of whole pixels.

    Args:
        images: (B, C, H, W), uint8 or float32.
        draws: (B, 5) in [0, 1): whether, area, aspect, left, top.
        chance: 0 to 1, that there is a rectangle.

    Returns:
        (B, C, H, W), dtype of ``images``; the mean of uint8 is rounded down.
    """
    _, _, height, width = images.shape
    area = ERASED[0] + (ERASED[1] - ERASED[0]) * draws[:, 1]
    wide, high = rectangle_sides(area, draws[:, 2], ERASED_ASPECT)  # (B,) shares
    across = _span(wide, draws[:, 3], width)[:, None, None, :]  # (B, 1, 1, W)
    down = _span(high, draws[:, 4], height)[:, None, :, None]  # (B, 1, H, 1)
    chosen = across & down & (draws[:, 0] < chance)[:, None, None, None]  # (B, 1, H, W)
    if images.is_floating_point():
        mean = images.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
    else:  # in whole numbers, so that bytes are the same on every device
        mean = (images.sum(dim=(2, 3), keepdim=True, dtype=torch.int32) // (height * width)).to(images.dtype)
    return torch.where(chosen, mean, images)


def _span(share: Tensor, draw: Tensor, length: int) -> Tensor:
    """Say which positions (B, length) lie in a run of a share (B,) of them that starts where a draw (B,) says."""
    size = (share * length).round().clamp(1, length)
    first = (draw * (length - size + 1)).floor()  # (B,) uniform on 0..length - size
    position = torch.arange(length, device=draw.device)
    return (position >= first[:, None]) & (position < (first + size)[:, None])
