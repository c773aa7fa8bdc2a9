"""Views: fixed by (seed, sample, view) and by nothing else, and what numpy gives by hand."""

import time

import numpy as np
import pytest
import torch

from subclass_kd.augment import Views
from subclass_kd.config import Augment

VIEWS = Views(seed=3, count=6, augment=Augment(shift=0.1))


def pictures(count, channels=1, height=28, width=20, seed=0):
    shape = (count, channels, height, width)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def draws(seed, view, rows):
    """Give the draws (rows, 3) in [0, 1) that numpy's documented Philox generator makes: down, across, mirror."""
    return np.random.Generator(np.random.Philox(key=[seed, view])).random((rows, 3), dtype=np.float32)


def moved_by_hand(image, down, across, mirror):
    """Move an image (H, W) by padding and slicing: row r of the view is row r + down of the image."""
    height, width = image.shape
    far = max(height, width)
    padded = np.pad(image, far, mode="edge")
    view = padded[far + down : far + down + height, far + across : far + across + width]
    return view[:, ::-1] if mirror else view


def test_view_0_is_the_image():
    images = pictures(5)
    assert VIEWS.apply(images, torch.arange(5), 0).equal(images)


@pytest.mark.parametrize(("flip", "shift"), [(True, 0.1), (False, 0.1), (True, 0.0), (True, 0.5)])
def test_a_view_is_numpys_slice_of_the_image(flip, shift):
    views, images = Views(3, 6, Augment(flip=flip, shift=shift)), pictures(40)
    found = views.apply(images, torch.arange(40), view=4).numpy()
    down, across = int(28 * shift), int(20 * shift)
    for image, view, (a, b, c) in zip(images.numpy(), found, draws(3, 4, 40), strict=True):
        offsets = int(a * (2 * down + 1)) - down, int(b * (2 * across + 1)) - across
        assert np.array_equal(view[0], moved_by_hand(image[0], *offsets, mirror=flip and c < 0.5))


def test_a_view_depends_on_its_sample_not_on_the_batch_or_the_order():
    images, samples = pictures(64), torch.arange(64) * 37  # samples beyond the first 1,024 rows too
    whole = VIEWS.apply(images, samples, 2)
    order = torch.from_numpy(np.random.default_rng(1).permutation(64))
    assert VIEWS.apply(images[order], samples[order], 2).equal(whole[order])
    one_by_one = [VIEWS.apply(images[k : k + 1], samples[k : k + 1], 2) for k in range(64)]
    assert torch.cat(one_by_one).equal(whole)


def test_a_view_is_the_same_after_many_others_were_asked_for():
    images, samples = pictures(8), torch.arange(8)
    first = VIEWS.apply(images, samples, 1)
    for seed in range(5):
        for view in range(6):
            Views(seed, 6, Augment(shift=0.1)).apply(images, samples + 5000, view)
    assert VIEWS.apply(images, samples, 1).equal(first)


def test_seed_sample_and_view_each_change_the_view():
    images, samples = pictures(1).expand(50, -1, -1, -1), torch.arange(50)
    first = VIEWS.apply(images, samples, 1)
    same = [
        VIEWS.apply(images, samples + 50, 1),
        VIEWS.apply(images, samples, 2),
        Views(4, 6, Augment(shift=0.1)).apply(images, samples, 1),
    ]
    for other in same:  # 2 x 5 x 5 views of equal chance: two agree 1 time in 50
        assert (other == first).all(dim=(1, 2, 3)).sum() <= 6
    assert len({view.numpy().tobytes() for view in first}) > 25


def test_the_number_of_views_changes_none_of_them():
    images, samples = pictures(8), torch.arange(8)
    assert Views(3, 100, Augment(shift=0.1)).apply(images, samples, 5).equal(VIEWS.apply(images, samples, 5))


def test_half_of_the_views_are_mirrored():
    """4,000 images: 2,000 expected, sd 31.6; six sd either way."""
    image = torch.tensor([[0, 1]], dtype=torch.uint8).expand(4000, 1, 1, 2)
    mirrored = Views(0, 2, Augment(shift=0.0)).apply(image, torch.arange(4000), 1)[:, 0, 0, 0] == 1
    assert abs(int(mirrored.sum()) - 2000) < 190
    assert not Views(0, 2, Augment(flip=False, shift=0.0)).apply(image, torch.arange(4000), 1)[:, 0, 0, 0].any()


@pytest.mark.parametrize(("shift", "largest"), [(0.08, 2), (0.25, 7), (0.03, 0), (0.5, 14)])
def test_moves_are_uniform_from_minus_the_largest_to_the_largest(shift, largest):
    """6,000 images whose pixel is their row: the middle row tells the move; chi-square to one in a million."""
    image = torch.arange(29, dtype=torch.uint8)[:, None].expand(6000, 1, 29, 29)
    down = Views(0, 2, Augment(flip=False, shift=shift)).apply(image, torch.arange(6000), 1)[:, 0, 14, 0].long() - 14
    across = (
        Views(0, 2, Augment(flip=False, shift=shift)).apply(image.mT, torch.arange(6000), 1)[:, 0, 0, 14].long() - 14
    )
    for moves in (down, across):
        counts = torch.bincount(moves + largest, minlength=2 * largest + 1)
        assert len(counts) == 2 * largest + 1
        expected = 6000 / len(counts)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        freedom = len(counts) - 1
        assert chi_square <= freedom + 7 * max(1, 2 * freedom) ** 0.5
    if largest:
        assert abs(np.corrcoef(down.numpy(), across.numpy())[0, 1]) < 6 / 6000**0.5


def test_pixels_may_be_bytes_or_floats_and_channels_move_together():
    images, samples = pictures(20, channels=3), torch.arange(20)
    as_bytes = VIEWS.apply(images, samples, 3)
    as_floats = VIEWS.apply(images.float() / 255, samples, 3)
    assert (as_bytes.dtype, as_floats.dtype) == (torch.uint8, torch.float32)
    assert (as_bytes.float() / 255).equal(as_floats)
    for channel in range(3):
        assert VIEWS.apply(images[:, channel : channel + 1], samples, 3).equal(as_bytes[:, channel : channel + 1])


def test_the_images_given_stay_as_they_were():
    images = pictures(4)
    before = images.clone()
    VIEWS.apply(images, torch.arange(4), 1)
    assert images.equal(before)


def first_version(images, draws, shift):
    """Give the views of version 0.1, which the demo's figures come from: its code, as it was."""

    def moved(draw, length):
        largest = int(shift * length)
        offset = (draw * (2 * largest + 1)).long() - largest
        return (torch.arange(length) + offset[:, None]).clamp(0, length - 1)

    _, channels, height, width = images.shape
    rows, columns = moved(draws[:, 0], height), moved(draws[:, 1], width)
    columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 28, 20), (3, 9, 64)])
def test_the_default_views_are_byte_for_byte_those_of_the_first_version(channels, height, width):
    images, samples = pictures(500, channels, height, width), torch.arange(500) * 3
    for seed, view in ((0, 1), (7, 3), (2**31 - 1, 999)):
        given = torch.from_numpy(draws(seed, view, 1500))[samples]
        expected = first_version(images, given, 0.08)
        assert Views(seed, 1000, Augment()).apply(images, samples, view).equal(expected)


def test_view_numbers_may_have_no_end():
    images, samples = pictures(8), torch.arange(8)
    endless = Views(3, None, Augment(shift=0.1))
    assert endless.apply(images, samples, 0).equal(images)
    assert endless.apply(images, samples, 5).equal(VIEWS.apply(images, samples, 5))
    assert not endless.apply(images, samples, 10**9).equal(endless.apply(images, samples, 10**9 + 1))
    with pytest.raises(ValueError, match=r"view: found -1; expected 0$"):
        endless.draws(samples, -1)


def test_a_million_draws_take_less_than_a_second():
    """They are drawn once an epoch."""
    started = time.process_time()
    assert Views(3, None, Augment()).draws(torch.arange(1_000_000), 1).shape == (1_000_000, 3)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("view", [-1, 6])
def test_a_view_that_is_not_there_is_refused(view):
    with pytest.raises(ValueError, match=f"view: found {view}; expected 0 to 5"):
        VIEWS.apply(pictures(1), torch.tensor([0]), view)
