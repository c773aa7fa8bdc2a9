"""Duplicates: equal digests are grouped, altered copies are found, images that are alike by nature are not."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from subclass_kd.data import duplicates
from subclass_kd.data.duplicates import exact, near, signature

BILINEAR = Image.Resampling.BILINEAR


def scenery(number, side=160, coarse=9):
    """Draw an image of smooth random patches."""
    patches = np.random.default_rng(number).uniform(30, 200, (coarse, coarse)).astype(np.float32)
    return Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)


def grey(image):
    return np.asarray(image).clip(0, 255).round().astype(np.uint8)


def alike_by_nature(number):
    """Draw an image that shares most of what it shows with all others, as X-rays of one posture do."""
    return Image.fromarray(0.6 * np.asarray(scenery(0)) + 0.4 * np.asarray(scenery(number, coarse=9)))


def jpeg(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=50)
    return np.asarray(Image.open(content))


def crop(pixels, share):
    height, width = pixels.shape
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return np.asarray(Image.fromarray(pixels).resize((width, height), BILINEAR, box))


ALTERATIONS = {
    "jpeg": jpeg,
    "resized": lambda pixels: np.asarray(Image.fromarray(pixels).resize((120, 120), BILINEAR)),
    "brightness": lambda pixels: grey(pixels * 1.1),
    "contrast": lambda pixels: grey((pixels - 128.0) * 0.8 + 128),
    "noise": lambda pixels: grey(pixels + np.random.default_rng(1).normal(0, 3, pixels.shape)),
    "moved": lambda pixels: np.pad(pixels, ((1, 0), (1, 0)), mode="edge")[:-1, :-1],
    "cropped": lambda pixels: crop(pixels, 0.01),
    "as it is": lambda pixels: pixels,
}


def signatures(images):
    return np.stack([signature(image) for image in images])


def test_equal_digests_are_grouped_by_first_row():
    assert exact([b"x", b"y", b"x", None, b"z", b"y", b"x", None]) == [[0, 2, 6], [1, 5]]
    assert exact([]) == []


# Where most is common to all images, moving it changes more than what is an image's own.
IN_PLACE = [name for name in ALTERATIONS if name not in ("moved", "cropped")]


@pytest.mark.parametrize(
    ("alteration", "draw"), [(name, scenery) for name in ALTERATIONS] + [(name, alike_by_nature) for name in IN_PLACE]
)
def test_altered_copies_are_found_and_nothing_else(alteration, draw):
    originals = [grey(draw(number)) for number in range(1, 81)]
    copies = [ALTERATIONS[alteration](image) for image in originals[:20]]
    pairs = near(signatures([*originals, *copies]))
    assert pairs.tolist() == [[row, 80 + row] for row in range(20)]


@pytest.mark.parametrize("draw", [scenery, alike_by_nature])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 400])
def test_different_images_make_no_pair(count, draw):
    assert near(signatures([grey(draw(number)) for number in range(1, count + 1)])).shape == (0, 2)


def test_a_signature_holds_the_low_frequencies_of_a_thumbnail():
    """Against scipy's transform, of an image that needs no resizing."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    centred = pixels - pixels.mean()
    expected = dctn(centred / np.linalg.norm(centred), norm="ortho")
    found = signature(pixels)
    assert found.shape == (duplicates.NUMBERS,)
    assert np.allclose(found[:2], [expected[0, 1], expected[1, 0]], atol=1e-5)
    inside = [(i, j) for i in range(17) for j in range(17) if 0 < i * i + j * j <= 256]
    assert len(inside) == duplicates.NUMBERS
    assert np.allclose(np.sort(found), np.sort([expected[place] for place in inside]), atol=1e-5)


def test_brightness_and_contrast_leave_a_signature_as_it_is():
    pixels = grey(scenery(3)) // 2 + 20
    assert np.allclose(signature(pixels), signature(pixels + 50), atol=1e-5)
    assert np.allclose(signature(pixels), signature((pixels * 1.5).astype(np.uint8)), atol=0.01)


def test_images_of_one_grey_are_near_nothing():
    images = [np.full((40, 40), value, np.uint8) for value in (0, 0, 128, 255)]
    assert near(signatures(images)).shape == (0, 2)
    assert near(signatures([*images, grey(scenery(1)), grey(scenery(1))])).tolist() == []  # two others are too few
    three = [grey(scenery(number)) for number in (1, 2, 1)]
    assert near(signatures([*images, *three])).tolist() == [[4, 6]]


def test_a_crowd_of_copies_costs_no_more_than_its_window():
    """A thousand equal images: pairs grow with N, not with its square, and still link all of them."""
    copy = signature(grey(scenery(1)))
    others = signatures([grey(scenery(number)) for number in range(2, 30)])
    pairs = near(np.concatenate([np.tile(copy, (1000, 1)), others]))
    assert pairs.max() < 1000
    assert len(pairs) <= 1000 * duplicates.WINDOW * duplicates.ORDERS
    linked = {0}
    for first, second in pairs.tolist():  # sorted, so that one pass is enough
        if first in linked:
            linked.add(second)
    assert len(linked) == 1000


def test_rows_may_stand_in_any_order():
    images = [grey(scenery(number)) for number in range(60)]
    found = signatures([*images, jpeg(images[5]), crop(images[9], 0.01)])
    order = np.random.default_rng(0).permutation(len(found))
    pairs = {tuple(sorted(order[pair])) for pair in near(found[order])}
    assert pairs == {(5, 60), (9, 61)}
