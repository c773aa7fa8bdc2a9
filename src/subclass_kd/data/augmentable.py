"""Whether a study's augmentations mean something on its images."""

from __future__ import annotations

from subclass_kd.config import Augment
from subclass_kd.errors import UserError

OF_COLOUR = ("saturation", "hue", "stain")


def check_augment(augment: Augment, shape: tuple[int, ...]) -> None:
    """Refuse operations on colour for grey images, and right angles for images that are not square.

    Args:
        augment: what is on.
        shape: of an image, (C, H, W).

    Raises:
        UserError: an operation does not fit the images.

    >>> check_augment(Augment(hue=0.1), (3, 28, 28))
    >>> check_augment(Augment(hue=0.1), (1, 28, 28))
    Traceback (most recent call last):
    subclass_kd.errors.UserError: key "augment.hue": found 0.1, and grey images; expected images in colour. Remove it.
    """
    channels, height, width = shape
    given = [name for name in OF_COLOUR if getattr(augment, name)]
    if channels == 1 and given:
        remedy = " and ".join(["Remove it", *given[1:]])
        found = f"{getattr(augment, given[0]):g}, and grey images"
        raise UserError(f'key "augment.{given[0]}"', found, "images in colour", f"{remedy}.")
    if augment.rotate90 and height != width:
        found = f"true, and images of {width} x {height} pixels"
        raise UserError('key "augment.rotate90"', found, "square images", "Set data.size, or remove it.")
