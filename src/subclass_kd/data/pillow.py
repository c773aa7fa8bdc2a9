"""What Pillow reads, to 8-bit pixels: PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PBM, PGM, PPM."""

from __future__ import annotations

import logging
import re
import struct
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from subclass_kd.data import jpeg2000
from subclass_kd.data.images import MOST_PIXELS, Header, no_scale, several, too_large
from subclass_kd.data.members import AnyPath
from subclass_kd.errors import UserError

# Named, so that no file of another kind starts the program that Pillow has for it, as PostScript does.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
_EXPECTED = "a PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PBM, PGM, PPM or DICOM file of 1 to 4 channels"
_GREY = {"1", "L", "LA", "La"}
_GREY_16 = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"}
_ORIENTATION = 0x0112  # EXIF tag
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # of TIFF
_NO_TILES = "Save the image with smaller tiles, or without."
_WHOLE = {3: "H", 4: "I"}  # TIFF's types SHORT and LONG, which are those of a tile's sides
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip

# What Pillow logs of a damaged file, it also raises; without a handler, logging would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load(file: BinaryIO, path: AnyPath, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open an image without decoding it.

    Args:
        file: its content.
        path: what messages name.
        most_pixels: that it may have, here of what its decoder makes room for beside the image itself: a TIFF's tile,
            or the many parts of a JPEG 2000.

    Raises:
        UserError: this is no image of a kind that is read, or one beyond Pillow's limit of pixels; its decoder would
            make too much room. What damaged headers raise passes through.
    """
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        found = f"a file that Pillow does not know (first bytes {file.read(8).hex(' ')})"
        raise UserError(str(path), found, _EXPECTED) from None
    except Image.DecompressionBombError as error:  # above the limit here, and it names no sides
        raise too_large(re.findall(r"\d+", str(error))[0], path, most_pixels) from None
    if image.format == "TIFF":
        _check_tile(file, image.tag_v2.offset, path, most_pixels)  # type: ignore[attr-defined]
    elif image.format == "JPEG2000":
        jpeg2000.check(file, path, most_pixels)
    return image


def describe(image: Image.Image, path: AnyPath) -> Header:
    """Give size and kind of an opened image, upright.

    Raises:
        UserError: it has several frames, or pixels that :func:`decode` does not read.
    """
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise several(getattr(image, "n_frames", 2), path)
    if image.mode == "F":
        raise no_scale("floating-point pixels", path)
    if image.mode not in _GREY | _GREY_16 | _COLOUR:
        raise UserError(str(path), f'pixels of mode "{image.mode}"', _EXPECTED)
    tags = getattr(image, "tag_v2", None)  # of TIFF: its size as stored, where Pillow's may be turned already
    width, height = image.size if tags is None else (tags[256], tags[257])
    orientation = _orientation(image)
    if orientation >= 5:
        width, height = height, width
    channels = 1 if image.mode in _GREY | _GREY_16 or _has_grey_palette(image) else 3
    return Header(width, height, channels, bits=16 if image.mode in _GREY_16 else 8, orientation=orientation)


def decode(image: Image.Image, path: AnyPath, white: int, orientation: int) -> Image.Image:
    """Decode an image that :func:`describe` passed to mode L or RGB, upright.

    Args:
        image: opened and not yet decoded.
        path: what messages name.
        white: the value of 16-bit grey that becomes 255.
        orientation: as :func:`describe` found it; some formats may bring another behind their pixels.

    Raises:
        UserError: grey values do not fit 16 bits. What Pillow raises on damaged data passes through.
    """
    decoded = _to_8_bits(image, path, white)
    # Pillow itself turns TIFF upright.
    return decoded if orientation == 1 or image.format == "TIFF" else decoded.transpose(_TURNS[orientation])


def _check_tile(file: BinaryIO, directory: int, path: AnyPath, most_pixels: int) -> None:
    """Refuse a TIFF of too large a tile: libtiff makes room for a whole one, however small the image is.

    The directory is read here: libtiff takes numbers of types that Pillow passes over, and for such a tile's sides.
    """
    file.seek(0)
    head = file.read(4)
    order, is_big = "<" if head[:2] == b"II" else ">", 43 in head[2:]  # BigTIFF
    number, entry = (struct.Struct(order + each) for each in (("Q", "HHQ8s") if is_big else ("H", "HHI4s")))
    sides = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    file.seek(directory)
    (entries,) = number.unpack(file.read(number.size))
    for _ in range(entries):
        content = file.read(entry.size)
        if len(content) < entry.size:
            break  # libtiff reads no directory that is cut short
        tag, kind, count, held = entry.unpack(content)
        if tag in sides:
            if kind not in _WHOLE or count != 1:
                raise UserError(str(path), f"a tile's side of type {kind}", "SHORT or LONG, as TIFF has it", _NO_TILES)
            sides[tag] = max(sides[tag], *struct.unpack_from(order + _WHOLE[kind], held))
    wide, high = sides.values()
    if wide * high > most_pixels:
        found = f"a tile of {wide} x {high} pixels"
        raise UserError(str(path), found, f"at most {most_pixels:,}", _NO_TILES)


def _orientation(image: Image.Image) -> int:
    """Give the EXIF orientation, 1 to 8; 1 where there is none, or none that can be read, as viewers take it."""
    tags = getattr(image, "tag_v2", None)
    try:
        # Not PNG's own getexif, which decodes the image to look behind it.
        found = Image.Image.getexif(image).get(_ORIENTATION) if tags is None else tags.get(_ORIENTATION)
    except Exception:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _has_grey_palette(image: Image.Image) -> bool:
    if image.mode != "P" or image.palette is None:
        return False
    colours = np.frombuffer(bytes(image.palette.palette), np.uint8)
    kind = image.palette.rawmode or image.palette.mode
    # TIFF (";L") has all of red, then all of green and blue.
    colours = colours.reshape(3, -1).T if kind.endswith(";L") else colours.reshape(-1, len(kind))[:, :3]
    return bool((colours == colours[:, :1]).all())


def _to_8_bits(image: Image.Image, path: AnyPath, white: int) -> Image.Image:
    if image.mode in _GREY_16:
        return Image.fromarray(_scale_grey(np.asarray(image), image.info.get("transparency"), path, white))
    mode = "L" if image.mode in _GREY else "RGB"
    if not image.has_transparency_data:
        image.load()
        return image if image.mode == mode else image.convert(mode)
    layer = image.convert("LA" if mode == "L" else "RGBA")
    black = Image.new(mode, layer.size)
    black.paste(layer, mask=layer.getchannel("A"))
    return black


def _scale_grey(values: NDArray[Any], transparent: int | None, path: AnyPath, white: int) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise no_scale(f"grey values from {low} to {high}", path)
    grey: NDArray[np.uint8] = _grey_table(white)[values]
    if transparent is not None:
        grey[values == transparent] = 0
    return grey


@lru_cache(maxsize=4)
def _grey_table(white: int) -> NDArray[np.uint8]:
    values = np.minimum(np.arange(65536), white)
    return ((values * 255 + white // 2) // white).astype(np.uint8)
