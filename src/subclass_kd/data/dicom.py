"""DICOM files to 8-bit pixels, as a viewer shows them at first.

Stored values pass the modality table or rescaling, then the first window or value-of-interest table; the least and the
most that these give out become black and white. Where there is neither window nor table, the least and the most that
the stored bits can hold do. MONOCHROME1 is inverted. See DICOM PS3.3 2024, C.7.6.3.1.2, C.11.1 and C.11.2,
https://dicom.nema.org/medical/dicom/current/output/html/part03.html.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data import jpeg2000
from subclass_kd.data.images import MOST_PIXELS, Header, no_scale, several, too_large
from subclass_kd.data.members import AnyPath
from subclass_kd.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from pydicom import Dataset

_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
_GREY = {"MONOCHROME1", "MONOCHROME2"}
LARGEST_PIXEL = 6  # bytes: three samples of 16 bits
_CHUNK = 1 << 20
_PATIENT_ID = 0x0010_0020
_COLOUR = {"RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


def load(
    file: BinaryIO, path: AnyPath, most_pixels: int = MOST_PIXELS, *, pixels: bool = True, only: int | None = None
) -> Dataset:
    """Read a DICOM file, or all of it before its pixels, or one of its elements and nothing behind it.

    Raises:
        UserError: pydicom is missing, or this is no DICOM file.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
        from pydicom.filereader import read_partial
    except ImportError:
        remedy = "Run pip install 'subclass-kd[dicom]'."
        raise UserError(str(path), "a DICOM file and no pydicom", "pydicom, which reads it", remedy) from None
    try:
        _check_inflated(file, path, most_pixels)
        if only is not None:
            return read_partial(file, lambda tag, vr, length: tag > only, specific_tags=[only])
        return dcmread(file, stop_before_pixels=not pixels)
    except InvalidDicomError:
        file.seek(0)
        found = f'no "DICM" at byte 128 (first bytes {file.read(8).hex(" ")})'
        raise UserError(str(path), found, "a DICOM file", "Fetch or save the file again.") from None


def patient(file: BinaryIO, path: AnyPath) -> str:
    """Read the PatientID without outer blanks; "" where there is none.

    Raises:
        UserError: as :func:`load`.
    """
    value = load(file, path, only=_PATIENT_ID).get("PatientID")
    return str(value or "").strip(" \0")


def describe(dataset: Dataset, path: AnyPath) -> Header:
    """Give the image's size and kind.

    Raises:
        UserError: there is no image, or none that :func:`decode` reads.
    """
    if any(dataset.get(name) is None for name in _NEEDED):
        raise _no_pixels(dataset, path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise several(frames, path)
    if dataset.BitsAllocated > 16:
        raise no_scale(f"{dataset.BitsAllocated}-bit pixels", path)
    kind = dataset.PhotometricInterpretation
    if kind not in _GREY | _COLOUR:
        expected = f"one of {', '.join(sorted(_GREY | _COLOUR))}"
        raise UserError(str(path), f'photometric interpretation "{kind}"', expected)
    samples = 3 if kind in _COLOUR - {"PALETTE COLOR"} else 1
    if dataset.SamplesPerPixel != samples:
        raise UserError(str(path), f"{dataset.SamplesPerPixel} samples per pixel of {kind}", f"{samples}")
    _check_decoder(dataset, path)
    return Header(
        dataset.Columns, dataset.Rows, channels=1 if kind in _GREY else 3, bits=16 if dataset.BitsAllocated > 8 else 8
    )


def decode(dataset: Dataset, path: AnyPath, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode a dataset that :func:`describe` passed to a Pillow image of mode L or RGB.

    Raises:
        UserError: the dataset has no pixels, or compressed ones whose decoder would make too much room. What pydicom
            raises on damaged data passes through.
    """
    from PIL import Image
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in dataset:
        raise _no_pixels(dataset, path)
    _check_frame(dataset, path, most_pixels)
    values = pixel_array(dataset)  # YBR comes as RGB
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)
        return Image.fromarray(_scale(colours, 0, np.iinfo(colours.dtype).max))
    if kind in _COLOUR:
        return Image.fromarray(_scale(values, 0, 2**dataset.BitsStored - 1))
    grey = _show(values, dataset)
    return Image.fromarray(255 - grey if kind == "MONOCHROME1" else grey)


def _show(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Apply the modality and value-of-interest transformations, and scale what they give out to 0 to 255."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_modality_lut(values, dataset)
    black, white = _range(dataset)
    if dataset.get("VOILUTSequence"):
        black, white = 0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        values = np.rint(values).astype(np.int64)  # numbers the table's entries
    elif dataset.get("WindowWidth") is None or dataset.get("WindowCenter") is None:
        black, white = sorted((black, white))  # a negative slope turns them round, as it does the window's output
    return _scale(apply_voi_lut(values, dataset), black, white)


def _range(dataset: Dataset) -> tuple[float, float]:
    """Give what the least and the largest storable value become by the modality transformation."""
    if dataset.get("ModalityLUTSequence"):
        return 0, 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits, signed = dataset.BitsStored, dataset.get("PixelRepresentation", 0) == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return low, high
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)


def _scale(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    if black == white:
        raise ValueError("all values are shown alike")
    return np.rint(np.clip((values - float(black)) * (255 / (white - black)), 0, 255)).astype(np.uint8)


def _check_decoder(dataset: Dataset, path: AnyPath) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UserError(str(path), "no transfer syntax", "a DICOM file that says how its pixels are stored")
    found, expected = f'pixels compressed as "{syntax.name}"', "a compression that can be decoded here"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(str(path), found, expected, "Save the file uncompressed.") from None
    if not decoder.is_available:
        choices = "; ".join(decoder.missing_dependencies)
        raise UserError(str(path), found, expected, f"Install one of pydicom's plugins for it: {choices}.")


def _check_inflated(file: BinaryIO, path: AnyPath, most_pixels: int) -> None:
    """Refuse a deflated file of more bytes than the largest image has; what was read is forgotten piece by piece."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        read_preamble(file, force=False)
        about = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        deflated = about.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while deflated and (chunk := inflater.unconsumed_tail or file.read(_CHUNK)):
            size += len(inflater.decompress(chunk, _CHUNK))
            if size > most_pixels * LARGEST_PIXEL:
                raise too_large(f"more than {most_pixels:,}", path, most_pixels)
    finally:
        file.seek(0)


def _check_frame(dataset: Dataset, path: AnyPath, most_pixels: int) -> None:
    """Refuse a compressed image of other sides than the file states: decoders make room for what it says itself."""
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:  # it states no sides
        _check_runs(frame, path, most_pixels)
        return
    width, height = sides(frame)
    if (width, height) != (dataset.Columns, dataset.Rows):
        found = f"a compressed image of {width} x {height} pixels"
        raise UserError(str(path), found, f"{dataset.Columns} x {dataset.Rows}, as the file states")
    if not frame.startswith(b"\xff\xd8"):  # as JPEG and JPEG-LS begin
        jpeg2000.check(io.BytesIO(frame), path, most_pixels)


def _check_runs(frame: bytes, path: AnyPath, most_pixels: int) -> None:
    """Refuse run lengths of more bytes than the largest image has; two may stand for 128. See DICOM PS3.5, annex G."""
    most = most_pixels * LARGEST_PIXEL
    if 64 * len(frame) <= most:
        return  # so nearly all files need not be gone through
    segments, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1:segments], len(frame)]
    size = 0
    for place, end in zip(starts[:segments], ends, strict=False):
        while place < min(end, len(frame)):
            code = frame[place]
            if code < 128:  # so many bytes and one as they are
                size, place = size + code + 1, place + code + 2
            elif code > 128:  # one byte, 257 less so many times
                size, place = size + 257 - code, place + 2
            else:
                place += 1
            if size > most:
                raise too_large(f"more than {most_pixels:,}", path, most_pixels)


def sides(frame: bytes) -> tuple[int, int]:
    """Give width and height that a JPEG, JPEG-LS or JPEG 2000 stream states, without decoding it.

    Raises:
        ValueError: it is none of these, or cut short.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            return image.size
    except UnidentifiedImageError:  # JPEG-LS, which Pillow does not know, begins as JPEG does
        place = 2
        while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame):
            if frame[place : place + 2] == b"\xff\xf7":
                height, width = struct.unpack(">HH", frame[place + 5 : place + 9])
                return width, height
            place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        raise ValueError("compressed pixels that state no size") from None


def _no_pixels(dataset: Dataset, path: AnyPath) -> UserError:
    kind = dataset.get("SOPClassUID")
    name = f' ("{kind.name}")' if kind is not None else ""
    return UserError(str(path), f"a DICOM file without pixels{name}", "an image")
