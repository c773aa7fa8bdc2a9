"""Colours against torchvision, stains against numpy in float64."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv

from subclass_kd import augment_colour
from subclass_kd.augment import Views
from subclass_kd.config import Augment
from views_by_hand import OFF, SAMPLES, draws_of, pictures

COLOURS = {
    "brightness": (tv.adjust_brightness, 1.0),
    "contrast": (tv.adjust_contrast, 1.0),
    "saturation": (tv.adjust_saturation, 1.0),
    "hue": (tv.adjust_hue, 0.0),
}


@pytest.mark.parametrize(("name", "channels"), [("brightness", 1), ("contrast", 1), *((name, 3) for name in COLOURS)])
def test_colours_are_torchvisions(name, channels):
    """Within 0.05 of 255: torchvision's shares of red, green and blue in grey add up to 0.9999."""
    adjust, middle = COLOURS[name]
    images, largest = pictures(30, channels), 0.5
    views = Views(2, 3, Augment(**OFF, **{name: largest}))
    found = views.apply(images, SAMPLES[:30], 1)
    drawn = 2 * draws_of(views, "colour")[:30, list(COLOURS).index(name)] - 1
    for image, view, draw in zip(images.float() / 255, found, drawn, strict=True):
        expected = 255 * adjust(image, middle + largest * draw)
        torch.testing.assert_close(view, expected, rtol=0, atol=0.05)


def test_colour_jitters_follow_each_other_in_the_order_of_the_keys():
    images, augment = pictures(10), Augment(**OFF, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    views = Views(2, 3, augment)
    found = views.apply(images, SAMPLES[:10], 1)
    for image, view, draws in zip(images.float() / 255, found, 2 * draws_of(views, "colour")[:10] - 1, strict=True):
        for (name, (adjust, middle)), draw in zip(COLOURS.items(), draws, strict=True):
            image = adjust(image, middle + getattr(augment, name) * draw)
        torch.testing.assert_close(view, 255 * image, rtol=0, atol=0.1)


def stained_by_hand(image, largest, draws):
    """Change stains in float64: densities apart, a s + b, together again (Ruifrok 2001; Tellez 2018)."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = -np.log((image.astype(np.float64) + 1) / 256).reshape(3, -1).T  # (pixels, colours)
    amounts = density @ np.linalg.inv(stains)
    change = largest * (2 * draws - 1)
    amounts = (1 + change[:3]) * amounts + change[3:]
    mixed = 256 * np.exp(-(amounts @ stains)) - 1
    return np.clip(mixed, 0, 255).T.reshape(image.shape)


@pytest.mark.parametrize("largest", [0.05, 0.2, 0.5])
def test_stains_change_as_by_hand(largest):
    """Within 0.02 of 255 of float64."""
    images, views = pictures(30), Views(2, 3, Augment(**OFF, stain=largest))
    found = views.apply(images, SAMPLES[:30], 1).numpy()
    for image, view, draws in zip(images.numpy(), found, draws_of(views, "stain"), strict=False):
        np.testing.assert_allclose(view, stained_by_hand(image, largest, draws), rtol=0, atol=0.02)


def test_a_pixel_of_one_stain_stays_of_that_stain_but_for_what_is_added():
    """Pure eosin of density 0.5 at white's b = 0: a alone scales its density, in each colour alike."""
    eosin = np.array([0.07, 0.99, 0.11])
    image = torch.from_numpy(256 * 10 ** -(0.5 * eosin) - 1).float()[None, :, None, None]
    draws = torch.tensor([[0.5, 1.0, 0.5, 0.5, 0.5, 0.5]])
    seen = augment_colour.stain(image, draws, 0.2)[0, :, 0, 0].double().numpy()
    np.testing.assert_allclose(-np.log10((seen + 1) / 256), 1.2 * 0.5 * eosin, atol=1e-5)


def test_draws_of_a_half_leave_colours_as_they_were():
    images = pictures(5).float()
    half = torch.full((5, 6), 0.5)
    torch.testing.assert_close(augment_colour.stain(images, half, 0.5), images, rtol=0, atol=0.01)
    jittered = augment_colour.jitter(
        images, half[:, :4], Augment(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
    )
    torch.testing.assert_close(jittered, images, rtol=0, atol=0.01)
