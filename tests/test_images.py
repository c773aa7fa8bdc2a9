"""From image files to 8-bit pixels: exact values by hand, and a refusal for whatever cannot be read."""

import errno
import io
import os
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from bombs import JPEG_2000S, TILED_TIFFS, tiled_tiff
from subclass_kd.data.images import EXTENSIONS, Header, quiet, read_header, read_image
from subclass_kd.errors import UserError

RANDOM = np.random.default_rng(0)
RAMP = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)


def save(path, image, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def plain(mode, value, size=(9, 8)):
    return Image.new(mode, size, value)


def read(path, channels=1, size=None, white=65535):
    return read_image(path, channels, size, white)


def colours(path):
    """Read a plain image and give its one colour."""
    pixels = read(path, 3)
    assert (pixels == pixels[:, :1, :1]).all()
    return tuple(pixels[:, 0, 0].tolist())


def refused(path, call=read):
    with pytest.raises(UserError) as caught:
        call(path)
    assert caught.value.where == str(path)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def stored(path, name):
    """Give what Pillow says of a file, such as its mode."""
    with Image.open(path) as image:
        return getattr(image, name)


def png_header(path, width, height):
    """Write a PNG that claims a size and has no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


# Pixels


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.gif", "a.pgm", "a.jp2", "A.PNG"])
def test_grey_is_read_as_it_was_written(tmp_path, name):
    path = save(tmp_path / name, RAMP)
    assert np.array_equal(read(path), RAMP[None])
    assert np.array_equal(read(path, 3), np.stack([RAMP] * 3))
    assert read_header(path) == Header(width=12, height=8, channels=1, bits=8)
    assert read(path).flags.writeable
    assert read(path, 3).flags.c_contiguous


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp", "a.ppm", "a.jp2"])
def test_colour_is_read_as_it_was_written(tmp_path, name):
    array = RANDOM.integers(0, 256, (8, 12, 3), np.uint8)
    path = save(tmp_path / name, array, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read(path, 3), array.transpose(2, 0, 1))
    assert read_header(path) == Header(12, 8, channels=3, bits=8)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = save(tmp_path / "a.jpeg", RANDOM.integers(0, 256, (8, 12), np.uint8))
    with Image.open(path) as image:
        assert np.array_equal(read(path)[0], np.asarray(image))


@pytest.mark.parametrize(("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colour_becomes_grey_by_its_luma(tmp_path, colour, grey):
    pixels = read(save(tmp_path / "a.png", plain("RGB", colour)))
    assert pixels.shape == (1, 8, 9)
    assert (pixels == grey).all()


@pytest.mark.parametrize(
    ("name", "image", "colour", "channels"),
    [
        ("black and white", plain("1", 1), (255, 255, 255), 1),
        ("grey with alpha", plain("LA", (200, 128)), (100, 100, 100), 1),
        ("colour with alpha", plain("RGBA", (200, 100, 50, 128)), (100, 50, 25), 3),
        ("transparent", plain("RGBA", (200, 100, 50, 0)), (0, 0, 0), 3),
        ("opaque", plain("RGBA", (200, 100, 50, 255)), (200, 100, 50), 3),
        ("no ink", plain("CMYK", (0, 0, 0, 0)), (255, 255, 255), 3),
        ("cyan ink", plain("CMYK", (255, 0, 0, 0)), (0, 255, 255), 3),
        ("black ink", plain("CMYK", (0, 0, 0, 255)), (0, 0, 0), 3),
        ("luma and chroma", plain("YCbCr", (90, 128, 128)), (90, 90, 90), 3),
    ],
)
def test_every_mode_becomes_8_bit_colour(tmp_path, name, image, colour, channels):
    path = save(tmp_path / ("a.tif" if image.mode in ("CMYK", "YCbCr") else "a.png"), image)
    if stored(path, "mode") != image.mode:
        pytest.skip(f"this version of Pillow does not keep {image.mode}")
    assert colours(path) == colour
    assert read_header(path).channels == channels
    assert (read(path) == np.asarray(plain("RGB", colour).convert("L"))).all()


def test_cmyk_jpeg_has_its_inverted_ink_turned_round(tmp_path):
    assert colours(save(tmp_path / "a.jpg", plain("CMYK", (0, 0, 0, 0)))) == (255, 255, 255)


@pytest.mark.skipif(not ImageCms.core, reason="Pillow was built without colour management")
def test_lab_becomes_rgb(tmp_path):
    path = save(tmp_path / "a.tif", plain("LAB", (255, 128, 128)))  # all light, no colour: a and b are centred on 128
    assert np.allclose(colours(path), 255, atol=3)
    assert np.allclose(read(path), 255, atol=3)


def palette(array, values):
    image = Image.fromarray(array)
    image.putpalette([value for colour in values for value in colour])
    return image


HALVES = np.repeat([[0, 1]], 8, axis=0).repeat(4, axis=1).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif"])
@pytest.mark.parametrize(
    ("values", "channels"), [([(10, 20, 30), (200, 0, 0)], 3), ([(10, 10, 10), (200, 200, 200)], 1)]
)
def test_a_palette_gives_its_colours_and_is_grey_if_they_are(tmp_path, name, values, channels):
    path = save(tmp_path / name, palette(HALVES, values))
    assert stored(path, "mode") == "P"
    pixels = read(path, 3)
    assert tuple(pixels[:, 0, 0]) == values[0]
    assert tuple(pixels[:, 7, 7]) == values[1]
    header = read_header(path)
    # TIFF fills its palette up to 256 colours, with black.
    assert (header.width, header.height, header.channels) == (8, 8, channels)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_s_transparent_colour_is_black(tmp_path, transparency):
    path = save(tmp_path / "a.png", palette(HALVES, [(10, 20, 30), (200, 0, 0)]), transparency=transparency)
    pixels = read(path, 3)
    assert tuple(pixels[:, 0, 0]) == (10, 20, 30)
    assert tuple(pixels[:, 0, 7]) == (0, 0, 0)


def test_a_half_transparent_palette_colour_is_half_as_bright(tmp_path):
    path = save(tmp_path / "a.png", palette(HALVES, [(10, 20, 30), (200, 100, 50)]), transparency=bytes([255, 128]))
    assert tuple(read(path, 3)[:, 0, 7]) == (100, 50, 25)


@pytest.mark.parametrize(
    ("array", "transparency"),
    [(HALVES * 77, 77), (np.stack([HALVES * 77] * 3, -1), (77, 77, 77)), (HALVES.astype(np.uint16) * 30000, 30000)],
)
def test_a_transparent_value_is_black(tmp_path, array, transparency):
    assert (read(save(tmp_path / "a.png", array, transparency=transparency), 3) == 0).all()


# 16 bits

VALUES = np.array([0, 1, 8, 9, 2047, 2056, 4094, 4095] * 8, np.uint16).reshape(8, 8)
AT_4095 = [0, 0, 0, 1, 127, 128, 255, 255]  # 9 * 255 / 4095 = 0.56, 2047 gives 127.47, 2056 gives 128.03


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2"])
def test_16_bit_grey_is_scaled_by_white(tmp_path, name):
    path = save(tmp_path / name, VALUES)
    assert read_header(path) == Header(8, 8, channels=1, bits=16)
    assert (read(path, white=4095) == AT_4095).all()
    assert (read(path, white=65535) == [0, 0, 0, 0, 8, 8, 16, 16]).all()
    assert (read(path, white=2047) == [0, 0, 1, 1, 255, 255, 255, 255]).all()
    assert (read(path, 3, white=4095) == AT_4095).all()


@pytest.mark.parametrize("kind", [">u2", "<u2"])
def test_either_byte_order_of_tiff_is_read(tmp_path, kind):
    mode = "I;16B" if kind == ">u2" else "I;16"
    image = Image.frombytes(mode, (8, 8), VALUES.astype(kind).tobytes())
    path = save(tmp_path / "a.tif", image)
    assert stored(path, "mode") == mode
    assert (read(path, white=4095) == AT_4095).all()


def test_white_is_65535_by_value_not_by_byte(tmp_path):
    path = save(tmp_path / "a.png", np.array([[128, 129, 32767, 65535]] * 8, np.uint16).repeat(2, axis=1))
    assert (read(path)[0, :, ::2] == [0, 1, 127, 255]).all()  # 128 gives 0.498, 129 gives 0.502


def test_whole_numbers_of_32_bits_are_read_as_long_as_they_fit_16(tmp_path):
    path = save(tmp_path / "a.tif", VALUES.astype(np.int32))
    assert (read(path, white=4095) == AT_4095).all()
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + VALUES.astype(">u2").tobytes())
    assert (read(tmp_path / "a.pgm", white=4095) == AT_4095).all()
    for low, high in ((-1, 100), (0, 65536)):
        path = save(tmp_path / "b.tif", np.array([[low, high] * 4] * 8, np.int32))
        assert refused(path).found == f"grey values from {low} to {high}"


def test_16_bit_grey_is_resized_after_white(tmp_path):
    path = save(tmp_path / "a.png", VALUES.repeat(4, axis=0).repeat(4, axis=1))
    bright = read(path, size=8, white=4095)
    scaled = Image.fromarray(read(path, white=4095)[0])
    assert np.array_equal(bright[0], np.asarray(scaled.resize((8, 8), Image.Resampling.BILINEAR)))


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + struct.pack(">HHH", 0x1234, 0xFF00, 0x00FF) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert colours(tmp_path / "a.png") == (0x12, 0xFF, 0)


# Orientation and size

# The first row of the file is shown at the top, the right, ...: EXIF 2.32, tag 274.
TURNED = {
    1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1],
    5: RAMP.T, 6: np.rot90(RAMP, -1), 7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.webp", {})]
)
def test_images_are_turned_as_exif_says(tmp_path, name, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(RAMP).convert("RGB" if name == "a.webp" else "L")
    path = save(tmp_path / name, image, exif=exif, **options, **({"lossless": True} if name == "a.webp" else {}))
    shown = TURNED[orientation]
    assert np.array_equal(read(path)[0], shown)
    header = read_header(path)
    assert (header.height, header.width) == shown.shape


def test_orientation_6_of_a_jpeg_puts_its_first_row_on_the_right(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    array = np.zeros((16, 32), np.uint8)
    array[:8] = 255
    path = save(tmp_path / "a.jpg", array, exif=exif)
    assert read_header(path) == Header(width=16, height=32, channels=1, bits=8)
    pixels = read(path)[0]
    assert pixels.shape == (32, 16)
    assert (pixels[:, 8:] == 255).all()
    assert (pixels[:, :8] == 0).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_images_are_turned_too(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / name, VALUES, exif=exif)
    assert (read(path, white=4095)[0, :, 0] == AT_4095).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_exif_that_cannot_be_read_turns_nothing(tmp_path, exif):
    path = save(tmp_path / "a.png", RAMP, exif=exif)
    assert np.array_equal(read(path)[0], RAMP)
    assert read_header(path).width == 12


def test_orientations_that_do_not_exist_turn_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(read(save(tmp_path / "a.png", RAMP, exif=exif))[0], RAMP)


@pytest.mark.parametrize("channels", [1, 3])
def test_size_is_squashed_by_pillow_s_antialiased_bilinear(tmp_path, channels):
    array = RANDOM.integers(0, 256, (30, 50, 3), np.uint8)
    path = save(tmp_path / "a.png", array)
    image = Image.fromarray(array).convert("L" if channels == 1 else "RGB")
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).reshape(16, 16, channels)
    pixels = read(path, channels, size=16)
    assert pixels.shape == (channels, 16, 16)
    assert np.array_equal(pixels, expected.transpose(2, 0, 1))


def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path):
    array = RANDOM.integers(0, 256, (8, 8), np.uint8)
    assert np.array_equal(read(save(tmp_path / "a.png", array), size=8)[0], array)


# Files


def test_a_wrong_ending_does_not_matter(tmp_path):
    save(tmp_path / "a.png", RAMP)
    path = (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read(path)[0], RAMP)


def test_the_header_is_read_without_the_pixels(tmp_path):
    content = save(tmp_path / "a.png", RANDOM.integers(0, 256, (64, 64), np.uint8)).read_bytes()
    (tmp_path / "a.png").write_bytes(content[:200])
    assert read_header(tmp_path / "a.png") == Header(64, 64, channels=1, bits=8)
    assert refused(tmp_path / "a.png").found.startswith("an image that cannot be decoded (")


def test_the_first_picture_of_an_mpo_is_the_image(tmp_path):
    path = tmp_path / "a.jpg"
    plain("L", 200).save(path, format="MPO", save_all=True, append_images=[plain("L", 10)])
    assert stored(path, "n_frames") == 2
    assert (read(path) == 200).all()


def test_endings_are_lower_case_and_cover_what_is_promised():
    promised = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".dcm"}
    assert promised < EXTENSIONS
    assert all(ending == ending.lower() and ending.startswith(".") for ending in EXTENSIONS)


# Refusals


def test_what_is_no_file_is_refused(tmp_path):
    assert refused(tmp_path / "missing.png").found == "no file"
    assert refused(save(tmp_path / "a.png", RAMP) / "b.png").found == "no file"
    assert refused(tmp_path).found == "a folder"
    (tmp_path / "empty.png").touch()
    assert refused(tmp_path / "empty.png").found == "an empty file (0 bytes)"
    assert refused(tmp_path / f"{'x' * 300}.png").found == "a file that cannot be read (File name too long)"
    assert "null" in refused(tmp_path / "a\0.png").found


def test_too_many_open_files_are_no_fault_of_the_image(tmp_path, monkeypatch):
    def no_more(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    path = save(tmp_path / "a.png", RAMP)
    monkeypatch.setattr(os, "open", no_more)
    error = refused(path)
    assert error.found == "a file that cannot be read (Too many open files)"
    assert error.remedy == "Let a process have more files open: ulimit -n 4096. Then run again."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").found == "no regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    save(tmp_path / "a.png", RAMP).chmod(0)
    assert refused(tmp_path / "a.png").found == "a file that cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"hello, world", "first bytes 68 65 6c 6c 6f 2c 20 77"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "first bytes 25 21 50 53"),
        (b"\x89PNG\r\n\x1a\n", "first bytes 89 50 4e 47"),
        (b"\xff\xd8\xff", "first bytes ff d8 ff"),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_its_first_bytes(tmp_path, content, found):
    (tmp_path / "a.png").write_bytes(content)
    error = refused(tmp_path / "a.png")
    assert found in error.found
    assert error.expected.startswith("a PNG, JPEG, TIFF")
    assert refused(tmp_path / "a.png", read_header).found == error.found


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp", "a.gif", "a.jp2", "a.ppm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(tmp_path, name, share):
    path = save(tmp_path / name, RANDOM.integers(0, 256, (64, 64, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "b.tif", "a.webp", "a.bmp", "a.gif", "a.jp2", "a.ppm"])
def test_damage_of_any_kind_gives_pixels_or_a_refusal(tmp_path, name):
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"compression": "tiff_lzw"} if name == "b.tif" else {"exif": exif}
    path = save(tmp_path / name, random.integers(0, 256, (16, 16, 3), np.uint8), **options)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    refusals = 0
    for _ in range(150):
        damaged = content.copy()
        places = random.integers(0, len(content) if random.random() < 0.5 else 60, random.integers(1, 5))
        damaged[places] = random.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            assert read(path, size=8).shape == (1, 8, 8)
        except UserError:
            refusals += 1
    assert refusals


@pytest.mark.parametrize("side", [11_000, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    path = png_header(tmp_path / "a.png", side, side)
    for call in (read, read_header):
        error = refused(path, call)
        # Above its own limit Pillow names only the product.
        assert error.found == (f"{side} x {side} pixels" if side == 11_000 else f"{side**2} pixels")
        assert error.expected == "at most 100,000,000"


BOMBS = {f"TIFF: {kind}": content for kind, content in TILED_TIFFS.items()}
BOMBS |= {f"JPEG 2000: {kind}": content for kind, content in JPEG_2000S.items()}
FOUND = {
    "TIFF: sides of a type that Pillow passes over": "a tile's side of type 17",
    # Five levels and the image itself: in each at least 2 x 2 precincts, and as many code blocks, of 3 bands but once.
    "JPEG 2000: tiles": "65,025 x 128 parts in 1 layers",
    "JPEG 2000: boxes that state less": "30000 x 30000 pixels",
    "JPEG 2000: channels": "500 channels",
}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the most memory, in kB")
@pytest.mark.parametrize("kind", BOMBS)
def test_a_decoder_that_would_make_more_room_than_an_image_takes_is_not_asked(tmp_path, python, kind):
    """Of 25 million pixels: tiles of 12,000 x 12,000 would take 144 MB, the others 0.6 GB and more."""
    path = tmp_path / "a"
    path.write_bytes(BOMBS[kind])
    assert path.stat().st_size < 150_000
    code = """if True:
        import resource, sys
        from pathlib import Path
        from PIL import Image
        from subclass_kd.data import dicom, images, pillow
        from subclass_kd.errors import UserError
        Image.init()
        content = Path(sys.argv[1]).read_bytes()
        most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = most()
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            print(images.decode_image(content, "a", 1, 64, 65535, 25_000_000).shape)
        except UserError as error:
            print(error.found)
        print(most() - before)"""
    done = python("-c", code, path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, taken = done.stdout.splitlines()
    default = "a tile of 12000 x 12000 pixels" if kind.startswith("TIFF") else " parts in "
    assert FOUND.get(kind, default) in found
    assert int(taken) < 20_000


def test_a_tile_of_a_tiff_has_the_limit_of_an_image(tmp_path):
    """Whichever call, order of bytes and size of numbers; Pillow reads no BigTIFF of the other order."""
    for mark, big in ((m, b) for m in "<>" for b in (False, True) if (m, b) != (">", True)):
        path = tmp_path / f"a{mark == '<'}{big}.tif"
        path.write_bytes(tiled_tiff(64, 10_001, mark=mark, big=big))
        for call in (read, read_header):
            error = refused(path, call)
            assert (error.found, error.expected) == ("a tile of 10001 x 10001 pixels", "at most 100,000,000")
            assert error.remedy == "Save the image with smaller tiles, or without."
        path.write_bytes(tiled_tiff(64, 80, mark=mark, big=big))
        assert read_header(path) == Header(64, 64, channels=1, bits=8)
        assert (read(path) == 0).all()


def test_jpeg_2000_as_it_is_written_is_read(tmp_path):
    """Tiles, small blocks and precincts, layers, all orders of packets: what encoders do is no bomb."""
    noise = RANDOM.integers(0, 256, (700, 500, 3), dtype=np.uint8)
    for number, options in enumerate(
        [
            {},
            {"tile_size": (128, 128), "num_resolutions": 4},
            {"codeblock_size": (16, 16), "precinct_size": (64, 64)},
            {"quality_layers": list(range(40, 0, -2)), "progression": "RPCL", "tile_size": (256, 256)},
            {"no_jp2": True, "codeblock_size": (32, 32), "irreversible": True, "plt": True},
        ]
    ):
        path = save(tmp_path / f"{number}.jp2", noise, **options)
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(read(path, 3), expected.transpose(2, 0, 1))
        assert read_header(path) == Header(500, 700, channels=3, bits=8)


def test_a_large_image_below_the_limit_is_no_bomb(tmp_path):
    path = png_header(tmp_path / "a.png", 9_999, 10_000)
    assert read_header(path) == Header(9_999, 10_000, channels=1, bits=8)


@pytest.mark.parametrize("sides", [(1, 1), (7, 8), (8, 7), (1, 5000)])
def test_an_image_of_few_pixels_is_refused(tmp_path, sides):
    path = save(tmp_path / "a.png", plain("L", 0, sides))
    for call in (read, read_header):
        error = refused(path, call)
        assert (error.found, error.expected) == (f"{sides[0]} x {sides[1]} pixels", "at least 8 x 8")


def test_pixels_of_no_known_scale_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.zeros((8, 8), np.float32))
    for call in (read, read_header):
        error = refused(path, call)
        assert (error.found, error.expected) == ("floating-point pixels", "whole numbers of 8 or 16 bits")


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_several_frames_or_pages_are_refused(tmp_path, name):
    frames = [Image.fromarray(RANDOM.integers(0, 256, (8, 8), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for call in (read, read_header):
        error = refused(tmp_path / name, call)
        assert (error.found, error.expected) == ("3 frames or pages", "one image a file")


def test_a_mode_that_is_not_known_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "mode", "BGR;24")
    path = tmp_path / "a.png"
    png_header(path, 8, 8)
    assert refused(path, read_header).found == 'pixels of mode "BGR;24"'


# Warnings


def with_corrupt_exif():
    """Give a PNG whose EXIF makes Pillow warn: a tag's data would lie behind the file's end."""
    entry = struct.pack("<HHII", 0x010E, 2, 5000, 26)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_warnings_of_pillow_reach_nobody_from_any_thread(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(64)]
    for path in paths:
        path.write_bytes(with_corrupt_exif())
    with Image.open(paths[0]) as image, pytest.warns(UserWarning, match="EXIF|Tag data|Truncated"):
        image.getexif().get(0x0112)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(read, paths))
        large = png_header(tmp_path / "large.png", 9_999, 10_000)
        assert read_header(large).width == 9_999
        warnings.warn("heard again", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["heard again"]
    assert warnings.filters == before
    assert all(np.array_equal(image[0], RAMP) for image in images)


def test_silence_lasts_until_the_last_one_is_out():
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("not heard", UserWarning, stacklevel=1)
    second.__exit__(None, None, None)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)
