"""What a JPEG 2000 makes its decoder take beside pixels, by its headers: ISO/IEC 15444-1, annexes A, B and I.

OpenJPEG takes about 10 kB for each tile of the image, and 0.5 kB for each precinct and code block of a tile, before it
has read one; and it goes through all packets, whether they are there or not. A file of 2 kB can ask for 7 GB so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from subclass_kd.data.images import too_large
from subclass_kd.data.members import AnyPath
from subclass_kd.errors import UserError

_BOXES = b"\0\0\0\x0cjP  "  # how a file of boxes begins; else it is a bare codestream
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
# With a length, and known to OpenJPEG: beyond others it looks for the next one elsewhere than the standard says.
_OTHERS = {0xFF50, *range(0xFF55, 0xFF5A), *range(0xFF5C, 0xFF62), 0xFF63, 0xFF64, 0xFF74, 0xFF75, 0xFF77, 0xFF78}
_PIXELS_OF_A_TILE, _PIXELS_OF_A_PART = 4096, 64  # that they may stand for: the room of so many, or half of it
_MOST_CHANNELS = 4


def check(file: BinaryIO, path: AnyPath, most_pixels: int) -> None:
    """Refuse a JPEG 2000 in so many parts that they would take more room or time than the most pixels.

    Args:
        file: its content; read anywhere.
        path: what messages name.
        most_pixels: that an image may have.

    Raises:
        UserError: there are too many parts, pixels or channels.
        ValueError, struct.error, IndexError: headers that are damaged.
    """
    segments = _segments(file)
    _, size = next(segments)
    right, bottom, left, top, wide, high, first_x, first_y, channels = struct.unpack_from(">8IH", size, 2)
    if not (first_x <= left < right and first_y <= top < bottom and wide and high):
        raise ValueError("sides that make no sense")
    if (right - left) * (bottom - top) > most_pixels:  # a box before it may have said otherwise
        raise too_large(f"{right - left} x {bottom - top}", path, most_pixels)
    if channels > _MOST_CHANNELS:
        raise UserError(str(path), f"{channels} channels", f"1 to {_MOST_CHANNELS}")
    tiles = -((first_x - right) // wide) * -((first_y - bottom) // high)
    sides = min(wide, right - left), min(high, bottom - top)
    layers = precincts = parts = 0
    for marker, content in segments:
        if marker == _COD:
            layers = max(layers, struct.unpack_from(">H", content, 2)[0])
        if marker in (_COD, _COC):
            own, coding = (content[0], content[5:]) if marker == _COD else (content[1], content[2:])
            found = _count(sides, coding, own_precincts=bool(own & 1))
            precincts, parts = max(precincts, found[0]), max(parts, found[1])
    stand_for = (
        tiles * _PIXELS_OF_A_TILE,
        channels * parts * _PIXELS_OF_A_PART,
        tiles * channels * precincts * layers,  # packets
    )
    if max(stand_for) > most_pixels:
        found_parts = f"{tiles:,} x {channels * parts:,} parts in {layers:,} layers"  # tiles of precincts and blocks
        expected = f"parts that take no more room than {most_pixels:,} pixels"
        raise UserError(str(path), found_parts, expected, "Save the image with larger tiles and blocks, or as PNG.")


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Give marker and content of every segment, SIZ first: of the main header, then of each tile-part's."""
    file.seek(_start(file))
    if file.read(4) != b"\xff\x4f\xff\x51":
        raise ValueError("no JPEG 2000 codestream")
    marker, end = _SIZ, 0
    while marker in {_SIZ, _COD, _COC, _SOT, *_OTHERS}:
        content = file.read(max(0, int.from_bytes(file.read(2)) - 2))
        yield marker, content
        if marker == _SOT:
            length = struct.unpack_from(">I", content, 2)[0]
            end = file.tell() - 12 + length if length else 0  # 0: all that is left
        marker = int.from_bytes(file.read(2))
        if marker == _SOD:
            file.seek(max(end, file.tell()))
            marker = int.from_bytes(file.read(2)) if end else 0
            if marker != _SOT:
                return
    raise ValueError(f"marker {marker:04x} in a header")


def _start(file: BinaryIO) -> int:
    """Give where the codestream begins: at once, or in the first box "jp2c"."""
    file.seek(0)
    if file.read(len(_BOXES)) != _BOXES:
        return 0
    place, kind = 0, b""
    while kind != b"jp2c":
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        start = file.tell()
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            start = file.tell()
        if size < start - place and kind != b"jp2c":
            raise ValueError("a box without an end, and no codestream")
        place += size
    return start


def _count(sides: tuple[int, int], coding: bytes, *, own_precincts: bool) -> tuple[int, int]:
    """Count precincts, and with code blocks those of all bands, in a channel of a tile; rather too many than too few.

    Args:
        sides: of the tile.
        coding: SPcod or SPcoc: levels, code block, style, transform, then precincts where they are stated.
        own_precincts: whether they are; else they are of 2^15.
    """
    levels, block = coding[0], [2 + (size & 15) for size in coding[1:3]]  # sides as powers of 2
    sizes = coding[5 : 6 + levels] if own_precincts else b"\xff" * (levels + 1)
    precincts = parts = 0
    for level in range(levels + 1):
        bands, half = (3, 1) if level else (1, 0)
        precinct = sizes[level] & 15, sizes[level] >> 4
        shown = [(side >> (levels - level)) + 1 for side in sides]
        here = _grid(shown, precinct)
        inside = [max(0, min(b, p - half)) for b, p in zip(block, precinct, strict=True)]
        precincts += here
        parts += bands * (here + _grid([(side >> half) + 1 for side in shown], inside))
    return precincts, parts


def _grid(sides: list[int], powers: tuple[int, int] | list[int]) -> int:
    """Count the rectangles of 2^powers that may lie in one of these sides, wherever it begins."""
    wide, high = ((side >> power) + 2 for side, power in zip(sides, powers, strict=True))
    return wide * high
