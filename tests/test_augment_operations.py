"""Every augmentation: fixed by (seed, sample, view) alone, in range, off where it is off; whole pixels by numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from subclass_kd import augment_colour
from subclass_kd.augment import GROUPS, Views
from subclass_kd.config import Augment
from views_by_hand import OFF, SAMPLES, draws_of, pictures, within_4_errors

EACH = {
    "flip": Augment(shift=0.0),
    "shift": Augment(flip=False),
    "flip_vertical": Augment(**OFF, flip_vertical=True),
    "rotate90": Augment(**OFF, rotate90=True),
    "crop": Augment(**OFF, crop=0.3),
    "rotation": Augment(**OFF, rotation=20),
    "scale": Augment(**OFF, scale=0.2),
    "shear": Augment(**OFF, shear=10),
    "brightness": Augment(**OFF, brightness=0.4),
    "contrast": Augment(**OFF, contrast=0.4),
    "saturation": Augment(**OFF, saturation=0.4),
    "hue": Augment(**OFF, hue=0.2),
    "stain": Augment(**OFF, stain=0.2),
    "erasing": Augment(**OFF, erasing=0.5),
}
GROUP_OF = {
    "flip": "move", "shift": "move", "flip_vertical": "turn", "rotate90": "turn", "rotation": "affine",
    "scale": "affine", "shear": "affine", **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), "colour"),
}  # fmt: skip
EXACT = ("flip", "shift", "flip_vertical", "rotate90", "erasing")
ALL = Augment(
    flip_vertical=True, rotate90=True, crop=0.3, rotation=30, scale=0.3, shear=20, brightness=0.5, contrast=0.5,
    saturation=0.5, hue=0.5, stain=0.2, erasing=0.5,
)  # fmt: skip


@pytest.mark.parametrize("name", EACH)
def test_a_view_differs_from_the_image_and_by_view_seed_and_sample_and_stays_in_range(name):
    augment, images = EACH[name], pictures(100)
    same = images[:1].expand(100, -1, -1, -1)
    seen = [
        Views(5, 9, augment).apply(same, SAMPLES[:100], 1),
        Views(5, 9, augment).apply(same, SAMPLES[:100], 2),
        Views(6, 9, augment).apply(same, SAMPLES[:100], 1),
        Views(5, 9, augment).apply(same, SAMPLES[100:200], 1),
        same,
    ]
    for one, other in itertools.combinations(seen, 2):  # a flip agrees one time in two, as two that do not erase do
        assert (one == other).all(dim=(1, 2, 3)).sum() < 75
    assert seen[0].dtype == (torch.uint8 if name in EXACT else torch.float32)
    assert seen[0].shape == same.shape
    assert seen[0].min() >= 0
    assert seen[0].max() <= 255


@pytest.mark.parametrize("name", [*EACH, "all"])
def test_a_view_is_the_same_in_any_batch_and_order(name):
    """Bytes are equal; floats within 0.01 of 255, since a batch's last pixels are computed by other instructions."""
    views, images = Views(5, 9, EACH.get(name, ALL)), pictures(64)
    samples = torch.arange(64) * 37
    whole = views.apply(images, samples, 3).float()
    order = torch.from_numpy(np.random.default_rng(1).permutation(64))
    shuffled = views.apply(images[order], samples[order], 3).float()
    alone = torch.cat([views.apply(images[k : k + 1], samples[k : k + 1], 3) for k in range(64)]).float()
    for other in (shuffled[order.argsort()], alone):
        torch.testing.assert_close(other, whole, rtol=0, atol=0 if name in EXACT else 0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [*EACH, "all"])
def test_a_view_is_the_same_on_a_gpu(name):
    views, images = Views(5, 9, EACH.get(name, ALL)), pictures(64)
    here, there = (views.apply(images.to(device), SAMPLES[:64], 3).cpu().float() for device in ("cpu", "cuda"))
    torch.testing.assert_close(there, here, rtol=0, atol=0 if name in EXACT else 0.05)


def test_black_white_and_grey_survive_every_operation_at_its_most():
    most = Augment(
        crop=0.001, rotation=180, scale=0.5, shear=45, brightness=1, contrast=1, saturation=1, hue=0.5, stain=0.5,
        erasing=1, rotate90=True,
    )  # fmt: skip
    images = torch.cat([torch.full((500, 3, 16, 16), value, dtype=torch.uint8) for value in (0, 255, 128)])
    seen = Views(1, None, most).apply(images, SAMPLES[:1500], 7)
    assert seen.isfinite().all()
    assert (seen.min() >= 0, seen.max() <= 255) == (True, True)


def test_what_is_off_changes_nothing():
    """All off: the image itself. Any one on: its draws, and those of flip and shift, are those with all others on."""
    images = pictures(10)
    nothing = Views(5, 3, Augment(**OFF))
    assert nothing.draws(SAMPLES, 2) is None
    assert nothing.apply(images, SAMPLES[:10], 2) is images
    usual = Views(5, 3, Augment()).draws(SAMPLES, 2)
    assert usual.shape == (4000, 3)
    everything = Views(5, 3, ALL).draws(SAMPLES, 2)
    assert everything[:, :3].equal(usual)
    places = dict(zip(GROUPS, everything.split(list(GROUPS.values()), dim=1), strict=True))
    for name, augment in EACH.items():
        found = Views(5, 3, augment).draws(SAMPLES, 2)
        group = GROUP_OF.get(name, name)
        assert found.equal(usual if group == "move" else torch.cat([usual, places[group]], dim=1))


def test_draws_are_numpys_and_uncorrelated():
    found = Views(5, 3, ALL).draws(SAMPLES, 2)
    by_hand = np.concatenate([draws_of(Views(5, 3, ALL), group, 2) for group in GROUPS], axis=1)
    assert np.array_equal(found.numpy(), by_hand.astype(np.float32))
    assert found.shape == (4000, sum(GROUPS.values()))
    assert all(within_4_errors(column, 0.5) for column in by_hand.T)
    correlations = np.corrcoef(by_hand.T)[np.triu_indices(by_hand.shape[1], 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)


def test_right_angles_are_numpys_after_the_move():
    views, images = Views(3, 9, Augment(flip_vertical=True, rotate90=True)), pictures(60)
    found = views.apply(images, SAMPLES[:60], 4)
    moved = Views(3, 9, Augment()).apply(images, SAMPLES[:60], 4)
    turn = draws_of(views, "turn", 4)
    for image, view, (upended, turns) in zip(moved.numpy(), found.numpy(), turn[:60], strict=True):
        expected = image[:, ::-1] if upended < 0.5 else image
        assert np.array_equal(view, np.rot90(expected, int(4 * turns), axes=(1, 2)))
    assert within_4_errors(turn[:, 0] < 0.5, 0.5)
    for number in range(4):
        assert within_4_errors((4 * turn[:, 1]).astype(int) == number, 0.25)


def test_a_rectangle_of_whole_pixels_takes_the_images_mean():
    images, views = pictures(300), Views(2, 3, Augment(**OFF, erasing=0.5))
    found = views.apply(images, SAMPLES[:300], 1).numpy()
    for image, view, draws in zip(images.numpy(), found, draws_of(views, "erasing"), strict=False):
        expected = image.copy()
        if draws[0] < 0.5:
            area = 0.02 + 0.31 * draws[1]
            limit = min(math.log(10 / 3), -math.log(area))
            ratio = math.exp((2 * draws[2] - 1) * limit)
            wide, high = (max(1, round(24 * math.sqrt(share))) for share in (area * ratio, area / ratio))
            left, top = int(draws[3] * (24 - wide + 1)), int(draws[4] * (24 - high + 1))
            mean = image.astype(int).sum(axis=(1, 2), keepdims=True) // (24 * 24)
            expected[:, top : top + high, left : left + wide] = mean
        assert np.array_equal(view, expected)


def test_as_many_and_as_much_are_erased_as_documented():
    """White images with one black corner pixel: whatever is erased turns from 255 to 254."""
    images = torch.full((4000, 1, 40, 40), 255, dtype=torch.uint8)
    images[:, :, 0, 0] = 0
    seen = Views(2, 3, Augment(**OFF, erasing=0.3)).apply(images, SAMPLES, 1)
    erased = (seen == 254).float().mean(dim=(1, 2, 3)).numpy()
    assert within_4_errors(erased > 0, 0.3)
    shares = erased[erased > 0]
    assert within_4_errors(shares, 0.175)
    assert (shares.min() > 0.015, shares.max() < 0.36) == (True, True)
    everywhere = (seen == 254).float().mean(dim=(0, 1))  # (40, 40): the middle is hit more often than the border
    torch.testing.assert_close(everywhere, everywhere.flip(0), rtol=0, atol=0.03)


def test_floats_are_erased_with_their_mean():
    images = pictures(5).float() + 0.25
    seen = augment_colour.erase(images, torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.0]]).expand(5, -1), 1.0)
    torch.testing.assert_close(seen[:, :, 0, 0], images.mean(dim=(2, 3)))
    assert seen[:, :, -1, -1].equal(images[:, :, -1, -1])
