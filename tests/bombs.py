"""Small files whose decoder makes room for far more than the image that they state."""

import struct
import zlib

SHORT, LONG, SLONG8 = 3, 4, 17  # types of TIFF's numbers


def tiled_tiff(side, tile, kind=LONG, big=False, mark="<"):
    """Give a grey TIFF of side x side pixels in one deflated tile of tile x tile; ``big``: as BigTIFF."""
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(bytes(tile)) for _ in range(tile)) + packer.flush()
    numbers = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: None, 325: len(content)}
    kinds = dict.fromkeys(numbers, LONG) | {322: kind, 323: kind}
    entry, count = ("HHQ", "Q") if big else ("HHI", "H")
    head = (b"II" if mark == "<" else b"MM") + struct.pack(
        mark + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    start = len(head) + struct.calcsize(mark + count) + len(numbers) * (20 if big else 12) + (8 if big else 4)
    directory = struct.pack(mark + count, len(numbers))
    for tag, number in numbers.items():
        value = struct.pack(
            mark + {SHORT: "H", LONG: "I", SLONG8: "q"}[kinds[tag]], start if number is None else number
        )
        directory += struct.pack(mark + entry, tag, kinds[tag], 1) + value.ljust(8 if big else 4, b"\0")
    return head + directory + bytes(8 if big else 4) + content


def codestream(side, tile, channels=1, levels=5, block=64, precinct=None, layers=1, tile_block=None):
    """Give a JPEG 2000 codestream without packets.

    Args:
        side: of the image.
        tile: its side.
        channels: of 8 bits.
        levels: of the wavelet.
        block: side of a code block.
        precinct: side of the precincts of every level; 2^15 if not given.
        layers: of quality.
        tile_block: side of the first tile's code blocks, where its own header states it.
    """

    def segment(marker, content):
        return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content

    def style(block):
        power = block.bit_length() - 3
        sizes = b"" if precinct is None else bytes([17 * (precinct.bit_length() - 1)]) * (levels + 1)
        return segment(
            0x52, struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, power, power, 0, 1) + sizes
        )

    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, channels) + bytes([7, 1, 1]) * channels
    steps = segment(0x5C, b"\x40" + b"\x40" * (3 * levels + 1))
    own = b"" if tile_block is None else style(tile_block)
    part = segment(0x90, struct.pack(">HIBB", 0, 0, 0, 1)) + own + b"\xff\x93" + bytes(2000)
    return b"\xff\x4f" + segment(0x51, size) + style(block) + steps + part + b"\xff\xd9"


def boxed(side, channels, stream):
    """Give a JP2 file that states a side and channels of its own before a codestream."""

    def box(kind, content):
        return struct.pack(">I", len(content) + 8) + kind + content

    header = box(b"ihdr", struct.pack(">IIHBBBB", side, side, channels, 7, 7, 0, 0)) + box(b"colr", b"\1\0\0\0\0\0\x11")
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"free", b"\xff\x4f\xff\x51") + box(b"jp2c", stream)


TILED_TIFFS = {
    "one tile": tiled_tiff(64, 12_000),
    "sides of two bytes": tiled_tiff(64, 12_000, SHORT, mark=">"),
    "BigTIFF": tiled_tiff(64, 12_000, big=True),
    "sides of a type that Pillow passes over": tiled_tiff(64, 12_000, SLONG8, big=True),
}
JPEG_2000S = {
    "tiles": codestream(255, 1),
    "code blocks": codestream(4_900, 4_900, block=4),
    "precincts": codestream(4_900, 4_900, levels=0, block=4, precinct=2),
    "layers": codestream(3_300, 3_300, levels=0, precinct=16, layers=65_535),
    "code blocks of a tile's own": codestream(4_900, 4_900, tile_block=4),
    "boxes": boxed(4_900, 1, codestream(4_900, 4_900, block=4)),
    "boxes that state less": boxed(64, 1, codestream(30_000, 30_000)),
    "channels": boxed(64, 1, codestream(64, 1, channels=500)),
}
