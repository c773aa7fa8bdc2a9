"""Crop and affine against torchvision and scipy, and their parameters' distributions read off views of ramps."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy.ndimage import map_coordinates

from subclass_kd import augment_geometry
from subclass_kd.augment import Views
from subclass_kd.config import Augment
from views_by_hand import OFF, SAMPLES, draws_of, pictures, within_4_errors


@pytest.mark.parametrize(
    ("angle", "scale", "shear"), [(20, 1, 0), (-35, 1, 0), (0, 1.2, 0), (0, 0.8, 0), (0, 1, 15), (25, 1.1, -12)]
)
def test_affine_is_torchvisions(angle, scale, shear):
    """Within 0.01 of 255, wherever torchvision reads no pixel from beyond the image."""
    images = pictures(3, size=28)[:, :, :, :20].float()  # not square
    augment = Augment(rotation=90, scale=0.5, shear=45)
    draws = torch.tensor([[angle / 90, (scale - 1) / 0.5, shear / 45]]).expand(3, -1) / 2 + 0.5
    found = augment_geometry.resample(images, draws, None, augment)
    expected, inside = (
        tv.affine(pixels, angle, [0, 0], scale, [shear, 0], interpolation=tv.InterpolationMode.BILINEAR)
        for pixels in (images, torch.ones_like(images))
    )
    inside = inside > 0.9999
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=0.01)


@pytest.mark.parametrize(("left", "top", "side"), [(5, 9, 16), (0, 16, 16), (0, 0, 32), (3, 1, 24)])
def test_a_crop_is_torchvisions_resized_crop(left, top, side):
    """Within 0.01 of 255; but for the outermost pixels, where a crop that is cut out first has no neighbours."""
    images = pictures(3, size=32).float()
    area = (side / 32) ** 2
    free = max(32 - side, 1)
    draws = torch.tensor([[0, 0.5, left / free, top / free]]).expand(3, -1)
    found = augment_geometry.resample(images, None, draws, Augment(crop=area))
    expected = tv.resized_crop(images, top, left, side, side, [32, 32], antialias=False)
    inner = slice(1, -1) if side < 32 else slice(None)
    torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner], rtol=0, atol=0.01)


def test_affine_and_crop_are_one_bilinear_interpolation_with_the_border_repeated():
    """Against scipy's map_coordinates of order 1, in float64, from the formulas in the docstrings; 0.01 of 255."""
    images = pictures(40, channels=2, size=28)[:, :, :, :20]
    augment = Augment(**OFF, crop=0.4, rotation=40, scale=0.3, shear=15)
    views = Views(8, 3, augment)
    found = views.apply(images, SAMPLES[:40], 1).numpy()
    height, width = 28, 20
    y, x = (grid.astype(np.float64) for grid in np.mgrid[:height, :width])
    for image, view, affine, crop in zip(
        images.numpy(), found, draws_of(views, "affine"), draws_of(views, "crop"), strict=False
    ):
        area = 0.4 + 0.6 * crop[0]
        limit = min(math.log(4 / 3), -math.log(area))
        ratio = math.exp((2 * crop[1] - 1) * limit)
        wide, high = width * math.sqrt(area * ratio), height * math.sqrt(area / ratio)
        # Pixel centres lie at halves; the crop's corner is at (left, top), the whole is turned about its centre.
        left, top = crop[2] * (width - wide), crop[3] * (height - high)
        cut_x = left + (x + 0.5) / width * wide - width / 2
        cut_y = top + (y + 0.5) / height * high - height / 2
        angle, scale, shear = 2 * affine - 1
        angle, shear = math.radians(40 * angle), math.radians(15 * shear)
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        # Shear along x by -tan, as torchvision's.
        forward = (1 + 0.3 * scale) * rotation @ np.array([[1, -math.tan(shear)], [0, 1]])
        from_x, from_y = np.einsum("ij,jhw->ihw", np.linalg.inv(forward), np.stack([cut_x, cut_y]))
        place = [from_y + height / 2 - 0.5, from_x + width / 2 - 0.5]
        for channel in range(2):
            expected = map_coordinates(image[channel].astype(np.float64), place, order=1, mode="nearest")
            np.testing.assert_allclose(view[channel], expected, rtol=0, atol=0.01)


def ramps(count, size=64):
    """Give images (count, 2, size, size) whose two channels are the position across and down, from the centre."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([across, down]).expand(count, -1, -1, -1)


def read_off(views):
    """Give the matrix (n, 2, 2) and the offset (n, 2) by which views find their pixels, from views of ramps."""
    seen = torch.cat([views.apply(ramps(len(part)), part, 1)[..., 28:36, 28:36] for part in SAMPLES.split(500)])
    seen = seen.double()
    across, down = seen[..., 4, 5] - seen[..., 4, 4], seen[..., 5, 4] - seen[..., 4, 4]
    return torch.stack([across, down], dim=-1), seen[..., 3:5, 3:5].mean(dim=(2, 3))


def test_crops_are_as_large_and_as_placed_as_documented():
    matrix, offset = read_off(Views(4, 2, Augment(**OFF, crop=0.3)))
    wide, high = matrix[:, 0, 0].numpy(), matrix[:, 1, 1].numpy()
    area, ratio = wide * high, wide / high
    assert (area.min() > 0.2999, area.max() < 1.0001) == (True, True)
    assert within_4_errors(area, 0.65)
    assert abs(area.std() - 0.7 / math.sqrt(12)) < 0.01
    assert (ratio.min() > 0.7499, ratio.max() < 1.3334) == (True, True)
    assert within_4_errors(np.log(ratio), 0)
    assert abs(np.log(ratio)[area < 0.75].std() - math.log(4 / 3) / math.sqrt(3)) < 0.01
    for axis, share in enumerate((wide, high)):
        free = 32 * (1 - share)
        assert (np.abs(offset[:, axis].numpy()) <= free + 1e-3).all()
        placed = (offset[:, axis].numpy() / free)[free > 1]  # from -1 at one edge to 1 at the other
        assert within_4_errors(placed, 0)
        assert abs(placed.std() - 1 / math.sqrt(3)) < 0.02


def test_angles_scales_and_shears_are_uniform_within_their_limits():
    matrix, offset = read_off(Views(4, 2, Augment(**OFF, rotation=20, scale=0.2, shear=10)))
    forward = torch.linalg.inv(matrix).numpy()
    scale = np.hypot(forward[:, 0, 0], forward[:, 1, 0])
    angle = np.degrees(np.arctan2(forward[:, 1, 0], forward[:, 0, 0]))
    along = forward[:, 0, 0] * forward[:, 0, 1] + forward[:, 1, 0] * forward[:, 1, 1]
    shear = np.degrees(np.arctan(along / scale**2))
    assert offset.abs().max() < 1e-4
    for values, middle, largest in ((angle, 0, 20), (scale, 1, 0.2), (shear, 0, 10)):
        assert np.abs(values - middle).max() < 1.001 * largest
        assert within_4_errors(values, middle)
        assert abs(values.std() - largest / math.sqrt(3)) < 0.02 * largest
