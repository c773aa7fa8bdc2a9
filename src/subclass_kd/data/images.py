"""Image files to 8-bit pixels: what is read, how it becomes grey or colour, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data.members import AnyPath, Member
from subclass_kd.errors import MORE_FILES, UserError

if TYPE_CHECKING:
    from PIL import Image

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
_DICOM_ENDS = tuple(DICOM_EXTENSIONS)
EXTENSIONS = DICOM_EXTENSIONS | {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".j2k",
    ".pbm", ".pgm", ".ppm", ".pnm",
}  # fmt: skip
MOST_PIXELS = 100_000_000  # of one image: a small file may ask for more memory than there is
FEWEST_PIXELS = 8  # of one side
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # as the system knows them
_BUFFER = 1 << 16  # bytes of a file that are read at once: a small image in one go

_lock, _filters, _inside = threading.Lock(), ExitStack(), 0


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded.

    Args:
        width, height: in pixels, as the image is shown: after its EXIF orientation.
        channels: 1 for grey, 3 for colour.
        bits: 16 for 16-bit grey, whose white is the study's to say, and for DICOM of more than 8; else 8.
        orientation: of EXIF, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    channels: int
    bits: int
    orientation: int = field(default=1, compare=False)


def read_header(path: AnyPath) -> Header:
    """Read size and kind of an image from its file's header, without decoding it.

    Raises:
        UserError: as in :func:`read_image`, as far as the header shows it.
    """
    from subclass_kd.data import dicom, pillow

    try:
        with quiet(), _open(path) as file:
            if _is_dicom(file, path):
                return _checked(dicom.describe(dicom.load(file, path, pixels=False), path), path)
            return _checked(pillow.describe(pillow.load(file, path), path), path)
    except Exception as error:
        raise _blamed(error, path) from None


def read_patient(path: AnyPath) -> str | None:
    """Read whom a DICOM file's header says the image is of, as it stands there, without reading what follows.

    Returns:
        The PatientID, "" where there is none; None where this is no DICOM file.

    Raises:
        UserError: there is no such file, it cannot be read, or it is a DICOM file and damaged, or there is no pydicom.
    """
    from subclass_kd.data import dicom

    try:
        with quiet(), _open(path) as file:
            return dicom.patient(file, path) if _is_dicom(file, path) else None
    except Exception as error:
        raise _blamed(error, path) from None


def read_image(path: AnyPath, channels: int, size: int | None, white: int) -> NDArray[np.uint8]:
    """Read an image as grey or colour of 8 bits, upright, and resize it.

    EXIF orientation is applied. Transparent pixels are laid over black. 16-bit grey ``v`` becomes
    ``min(v, white) * 255 / white``, rounded; of 16-bit colour Pillow keeps the high byte. DICOM is shown as
    :mod:`subclass_kd.data.dicom` says. Then colour becomes grey as Pillow's "L" (ITU-R 601-2 luma) or grey is repeated,
    and Pillow's antialiased bilinear filter resizes, which squashes an image that is not square. Of a JPEG
    with previews behind it (MPO), the first picture is the image. Any thread may call this, and no warning escapes.

    Args:
        path: the file, or the member of a shard.
        channels: 1 for grey, 3 for colour.
        size: height and width to resize to; None leaves them.
        white: the value of 16-bit grey that becomes 255.

    Returns:
        (channels, height, width) uint8, writeable.

    Raises:
        UserError: there is no such file; it is no image, or damaged; it has more than 100 million pixels, or fewer than
            8 to a side; several frames or pages; pixels of no known scale (32 bits, floating point). Memory is taken
            for pixels once this has been found by the file's header, and by that of a compressed image within it; a
            TIFF's tile may have no more of them than the image may.
    """
    try:
        with quiet(), _open(path) as file:
            return _decode(file, path, channels, size, white, MOST_PIXELS)
    except Exception as error:
        raise _blamed(error, path) from None


def decode_image(
    content: bytes, name: str, channels: int, size: int | None, white: int, most_pixels: int
) -> NDArray[np.uint8]:
    """Read an image from a file's content as :func:`read_image` does from the file; nothing touches the disk.

    Args:
        content: of the whole file.
        name: that the file had: its suffix may tell DICOM, and messages name it.
        channels: 1 for grey, 3 for colour.
        size: height and width to resize to; None leaves them.
        white: the value of 16-bit grey that becomes 255.
        most_pixels: that the image may have; at most :data:`MOST_PIXELS`.

    Raises:
        UserError: as there.
    """
    try:
        with quiet():
            if not content:
                raise _empty(name)
            return _decode(io.BytesIO(content), name, channels, size, white, most_pixels)
    except Exception as error:
        raise _blamed(error, name) from None


def _decode(
    file: BinaryIO, path: AnyPath, channels: int, size: int | None, white: int, most_pixels: int
) -> NDArray[np.uint8]:
    from subclass_kd.data import dicom, pillow

    if _is_dicom(file, path):
        header = dicom.describe(dicom.load(file, path, most_pixels, pixels=False), path)
        _checked(header, path, most_pixels)  # before pixels take room
        file.seek(0)
        return finish(dicom.decode(dicom.load(file, path, most_pixels), path, most_pixels), channels, size)
    opened = pillow.load(file, path, most_pixels)
    header = _checked(pillow.describe(opened, path), path, most_pixels)
    return finish(pillow.decode(opened, path, white, header.orientation), channels, size)


def finish(image: Image.Image, channels: int, size: int | None) -> NDArray[np.uint8]:
    """Bring a Pillow image of mode L or RGB to channels and size, as :func:`read_image` says.

    Returns:
        (channels, height, width) uint8, writeable.
    """
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def refit(pixels: NDArray[np.uint8], channels: int, size: int | None) -> NDArray[np.uint8]:
    """Bring an image that :func:`read_image` gave at its own size (C, H, W) to other channels and size, as it would."""
    from PIL import Image

    image = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return finish(Image.fromarray(image), channels, size)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings until the last thread inside is out.

    Pillow and pydicom warn of what is either refused here or of no matter. ``warnings.catch_warnings`` alone is not
    safe in threads: who leaves first would restore the filters of who is still inside.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _filters.enter_context(warnings.catch_warnings(action="ignore"))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.close()


def _blamed(error: Exception, path: AnyPath) -> UserError:
    """Blame a file for whatever went wrong in it: decoders raise all kinds of errors on damaged files."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UserError(str(path), "no file", "an image")
    if isinstance(error, OSError) and error.strerror:
        remedy = MORE_FILES if error.errno == errno.EMFILE else ""
        return UserError(str(path), f"a file that cannot be read ({error.strerror})", "an image", remedy)
    # The first line: pydicom adds a traceback to some.
    reason = (str(error) or type(error).__name__).splitlines()[0]
    found = f"an image that cannot be decoded ({reason})"
    return UserError(str(path), found, "a whole image", "Fetch or save the file again.")


def _open(path: AnyPath) -> BinaryIO:
    """Open a file that may hold an image; without waiting for anybody where it is a pipe."""
    if isinstance(path, Member):
        if path.size == 0:
            raise _empty(path)
        return io.BytesIO(path.read())
    number = os.open(path, _READ)
    try:
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(str(path), "a folder", "an image")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(str(path), "no regular file", "an image")
        if status.st_size == 0:
            raise _empty(path)
    except BaseException:
        os.close(number)
        raise
    return open(number, "rb", buffering=_BUFFER)


def _empty(path: AnyPath) -> UserError:
    return UserError(str(path), "an empty file (0 bytes)", "an image", "Fetch or save the file again.")


def _is_dicom(file: BinaryIO, path: AnyPath) -> bool:
    marked = file.read(132)[128:] == b"DICM"
    file.seek(0)
    return marked or str(path).lower().endswith(_DICOM_ENDS)


def _checked(header: Header, path: AnyPath, most_pixels: int = MOST_PIXELS) -> Header:
    if header.width * header.height > most_pixels:
        raise too_large(f"{header.width} x {header.height}", path, most_pixels)
    if min(header.width, header.height) < FEWEST_PIXELS:
        raise UserError(
            str(path), f"{header.width} x {header.height} pixels", f"at least {FEWEST_PIXELS} x {FEWEST_PIXELS}"
        )
    return header


def too_large(found: str, path: AnyPath, most_pixels: int) -> UserError:
    """Give the refusal of an image that may fill the memory, by its sides or its number of pixels."""
    return UserError(str(path), f"{found} pixels", f"at most {most_pixels:,}", "Save the image smaller.")


def several(frames: int, path: AnyPath) -> UserError:
    """Give the refusal of an animated GIF, a TIFF of several pages, or a DICOM series in one file."""
    return UserError(str(path), f"{frames} frames or pages", "one image a file", "Save each as a file of its own.")


def no_scale(pixels: str, path: AnyPath) -> UserError:
    """Give the refusal of pixels of which nobody has said which value is white."""
    return UserError(str(path), pixels, "whole numbers of 8 or 16 bits", "Scale its values and save it as such.")
