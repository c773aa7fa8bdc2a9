"""From DICOM files to 8-bit pixels: windows, tables and colours by hand, and a refusal for whatever cannot be shown."""

import io
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from bombs import codestream
from subclass_kd.bundle import Bundle
from subclass_kd.data.dicom import sides
from subclass_kd.data.images import Header, decode_image, read_header, read_image
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study
from synthetic_bundle import write_bundle

pydicom = pytest.importorskip("pydicom")
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

BYTES = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def dataset(pixels, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, **others):
    """Give a dataset of (H, W) or (H, W, 3) pixels; signed types are stored as such."""
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = CTImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = UID("1.2.3")
    bits = pixels.dtype.itemsize * 8
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = photometric
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes()
    for name, value in others.items():
        setattr(found, name, value)
    return found


def write(path, content):
    content.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def show(tmp_path):
    """Give the function that writes pixels as a file and reads it again, (H, W) or (3, H, W)."""

    def call(pixels, channels=1, **others):
        found = read_image(write(tmp_path / "a.dcm", dataset(pixels, **others)), channels, None, 65535)
        return found[0] if channels == 1 else found

    return call


def row(values, dtype):
    """Give 8 equal rows of 8 values."""
    return np.tile(np.array(values, dtype), (8, 1))


def refused(path, *calls):
    errors = []
    for call in calls or (read_header, lambda path: read_image(path, 1, None, 65535)):
        with pytest.raises(UserError) as caught:
            call(path)
        assert caught.value.where == str(path)
        assert len(str(caught.value).splitlines()) == 1
        errors.append(caught.value)
    assert len({str(error) for error in errors}) == 1
    return errors[0]


def decoded(path):
    read_image(path, 1, None, 65535)


# Grey


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_8_bit_values_are_themselves(show, tmp_path, syntax):
    assert np.array_equal(show(BYTES, syntax=syntax), BYTES)
    assert np.array_equal(show(BYTES, 3, syntax=syntax), [BYTES] * 3)
    assert read_header(tmp_path / "a.dcm") == Header(width=8, height=8, channels=1, bits=8)


def test_monochrome1_is_inverted(show):
    assert np.array_equal(show(BYTES, photometric="MONOCHROME1"), 255 - BYTES)


def test_without_a_window_the_stored_bits_are_the_range(show, tmp_path):
    values = row([0, 1, 8, 9, 2047, 2048, 4094, 4095], np.uint16)  # 2047 gives 127.47, 2048 gives 127.53
    assert (show(values, BitsStored=12, HighBit=11) == [0, 0, 0, 1, 127, 128, 255, 255]).all()
    assert read_header(tmp_path / "a.dcm") == Header(8, 8, channels=1, bits=16)
    values = row([-2048, -2047, -9, 0, 1, 9, 2046, 2047], np.int16)
    assert (show(values, BitsStored=12, HighBit=11) == [0, 0, 127, 128, 128, 128, 255, 255]).all()


def test_rescaling_moves_the_range_along(show):
    values = row([0, 1024, 2048, 4095] * 2, np.uint16)
    rescaled = {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": -1024, "RescaleSlope": 2}
    assert (show(values, **rescaled) == [0, 64, 128, 255] * 2).all()
    falling = rescaled | {"RescaleSlope": -1}
    assert (show(values, **falling) == [255, 191, 127, 0] * 2).all()


HOUNSFIELD = {"RescaleIntercept": -1024, "RescaleSlope": 1, "WindowCenter": 40, "WindowWidth": 400}


def test_a_ct_image_is_shown_through_its_window(show):
    units = np.array([-1000, -160, -159, 40, 140, 239, 240, 1000])
    # PS3.3 C.11.2.1.2.1: (units - 39.5) / 399 + 0.5, of 255; -160 is the lower edge, 239 the upper one.
    expected = [0, 0, 1, 128, 192, 255, 255, 255]
    assert (show(row(units + 1024, np.int16), **HOUNSFIELD) == expected).all()
    assert (show(row(units + 1024, np.uint16), BitsStored=12, HighBit=11, **HOUNSFIELD) == expected).all()
    inverted = show(row(units + 1024, np.int16), photometric="MONOCHROME1", **HOUNSFIELD)
    assert (inverted == 255 - np.array(expected)).all()


def test_signed_values_may_be_negative_themselves(show):
    window = {"WindowCenter": 0, "WindowWidth": 101}  # linear from -50.5 to 49.5
    assert (
        show(row([-1000, -50, -25, 0, 25, 49, 50, 1000], np.int16), **window) == [0, 1, 65, 129, 193, 254, 255, 255]
    ).all()


def test_a_window_is_for_rescaled_values_whatever_the_slope(show):
    window = HOUNSFIELD | {"RescaleSlope": -1, "RescaleIntercept": 1024}
    units = np.array([-1000, -160, -159, 40, 140, 239, 240, 1000])
    assert (show(row(1024 - units, np.int16), **window) == [0, 0, 1, 128, 192, 255, 255, 255]).all()


def test_the_first_of_several_windows_counts(show):
    several = HOUNSFIELD | {"WindowCenter": [40, 300], "WindowWidth": [400, 2000]}
    values = row(np.arange(8) * 50 + 800, np.int16)
    assert np.array_equal(show(values, **several), show(values, **HOUNSFIELD))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", [0, 0, 64, 96, 128, 191, 255, 255]),  # 255 * (value / 100 + 1 / 2)
        ("SIGMOID", [0, 5, 69, 96, 128, 186, 250, 255]),  # 255 / (1 + exp(-4 * value / 100))
    ],
)
def test_other_window_functions(show, function, expected):
    values = row([-1000, -100, -25, -12.5, 0, 25, 100, 1000], np.float64) * 2
    window = {"WindowCenter": 0, "WindowWidth": 100, "VOILUTFunction": function, "RescaleSlope": 0.5}
    assert (show(values.astype(np.int16), **window, RescaleIntercept=0) == expected).all()


def table(first, entries, bits):
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.array(entries, "<u2").tobytes()
    return pydicom.Sequence([item])


def test_a_value_of_interest_table_is_applied_to_rescaled_values(show):
    others = {"VOILUTSequence": table(10, [0, 100, 4095, 2048], 12), "RescaleSlope": 0.5, "RescaleIntercept": 0}
    # Half the value, then entry by entry from 10 on; the first and last one go on.
    assert (
        show(row([0, 20, 22, 24, 26, 28, 200, 255], np.uint8), **others) == [0, 0, 6, 255, 128, 128, 128, 128]
    ).all()


def test_a_modality_table_s_bits_are_the_range(show):
    item = table(0, [0, 20000, 40000, 65535], 16)
    item[0].ModalityLUTType = "US"
    found = show(row([0, 1, 2, 3, 4, 100, 200, 255], np.uint8), ModalityLUTSequence=item)
    assert (found == [0, 78, 156, 255, 255, 255, 255, 255]).all()


def test_empty_windows_are_none(show):
    assert np.array_equal(show(BYTES, WindowCenter=None, WindowWidth=None), BYTES)


# Colour

COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_itself(show, tmp_path, planar):
    stored = COLOURS.transpose(2, 0, 1) if planar else COLOURS
    content = {"photometric": "RGB", "PlanarConfiguration": planar, "PixelData": stored.tobytes()}
    assert np.array_equal(show(COLOURS, 3, **content), COLOURS.transpose(2, 0, 1))
    assert read_header(tmp_path / "a.dcm") == Header(8, 8, channels=3, bits=8)
    assert np.array_equal(show(COLOURS, **content), np.asarray(Image.fromarray(COLOURS).convert("L")))


def test_16_bit_rgb_is_scaled_by_its_stored_bits(show):
    values = (COLOURS.astype(np.uint16) * 257) >> 4
    found = show(values, 3, photometric="RGB", BitsStored=12, HighBit=11)
    assert np.array_equal(found, np.rint(values * (255 / 4095)).transpose(2, 0, 1))


def test_ybr_becomes_rgb(show):
    grey = np.full((8, 8, 3), 128, np.uint8)
    grey[..., 0] = BYTES
    assert np.array_equal(show(grey, 3, photometric="YBR_FULL"), [BYTES] * 3)
    red = np.tile(np.array([76, 85, 255], np.uint8), (8, 8, 1))
    assert np.allclose(show(red, 3, photometric="YBR_FULL")[:, 0, 0], [254, 0, 0], atol=1)


@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (16, 257)])
def test_palette_colours_are_looked_up(show, tmp_path, bits, factor):
    others = {}
    for name, values in {"Red": [10, 200], "Green": [20, 100], "Blue": [30, 0]}.items():
        others[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, bits]
        entries = (np.array(values) * factor).astype(f"<u{bits // 8}")
        others[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    found = show(
        np.repeat([[0, 1]], 8, axis=0).repeat(4, axis=1).astype(np.uint8), 3, photometric="PALETTE COLOR", **others
    )
    assert found[:, 0, 0].tolist() == [10, 20, 30]
    assert found[:, 7, 7].tolist() == [200, 100, 0]
    assert read_header(tmp_path / "a.dcm").channels == 3


# Files


def test_the_mark_makes_a_dicom_file_whatever_its_name(tmp_path):
    for name in ("IM0001", "a.png", "a.DCM", "a.dicom"):
        path = write(tmp_path / name, dataset(BYTES))
        assert np.array_equal(read_image(path, 1, None, 65535)[0], BYTES)


def test_size_is_pillow_s_bilinear(tmp_path):
    path = write(tmp_path / "a.dcm", dataset(np.tile(BYTES, (4, 3))))
    expected = Image.fromarray(np.tile(BYTES, (4, 3))).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(read_image(path, 1, 16, 65535)[0], np.asarray(expected))


def test_compressed_pixels_are_decoded(tmp_path):
    content = dataset(BYTES)
    content.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(read_image(write(tmp_path / "a.dcm", content), 1, None, 65535)[0], BYTES)
    image = Image.fromarray(np.full((16, 16, 3), (200, 60, 20), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0)
    content = dataset(np.asarray(image), "YBR_FULL", JPEGBaseline8Bit, PixelData=encapsulate([buffer.getvalue()]))
    encoded = io.BytesIO()
    Image.fromarray(BYTES).save(encoded, "JPEG2000", no_jp2=True, num_resolutions=1)
    whole = dataset(BYTES, syntax=JPEG2000Lossless, PixelData=encapsulate([encoded.getvalue()]))
    assert np.array_equal(read_image(write(tmp_path / "c.dcm", whole), 1, None, 65535)[0], BYTES)
    assert np.allclose(read_image(write(tmp_path / "b.dcm", content), 3, None, 65535)[:, 0, 0], [200, 60, 20], atol=2)


# Refusals


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"NumberOfFrames": 3, "PixelData": BYTES.tobytes() * 3}, "3 frames or pages"),
        ({"BitsAllocated": 32, "PixelData": BYTES.tobytes() * 4}, "32-bit pixels"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, 'photometric interpretation "YBR_PARTIAL_420"'),
        ({"Rows": 20_000, "Columns": 20_000}, "20000 x 20000 pixels"),
        ({"Rows": 65_535, "Columns": 65_535, "NumberOfFrames": 2_000_000_000}, "2000000000 frames or pages"),
        ({"SamplesPerPixel": 65_535}, "65535 samples per pixel of MONOCHROME2"),
        ({"Rows": 1, "Columns": 64}, "64 x 1 pixels"),
        ({"Rows": None}, 'a DICOM file without pixels ("CT Image Storage")'),
    ],
)
def test_what_cannot_be_shown_is_refused_by_its_header(tmp_path, change, found):
    assert refused(write(tmp_path / "a.dcm", dataset(BYTES, **change))).found == found


def bomb(kind):
    """Give a small dataset that asks for gigabytes."""
    if kind == "rows":
        return dataset(BYTES, Rows=60_000, Columns=60_000)
    if kind == "frames":
        return dataset(BYTES, Rows=10_000, Columns=10_000, NumberOfFrames=1000)
    if kind == "deflated":
        return dataset(BYTES, syntax=DeflatedExplicitVRLittleEndian, PixelData=bytes(700_000_000))
    if kind == "parts":
        content = encapsulate([codestream(9000, 9000, levels=0, block=4, precinct=2)])
        return dataset(BYTES, syntax=JPEG2000Lossless, Rows=9000, Columns=9000, PixelData=content)
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "JPEG")
    content = encapsulate([buffer.getvalue()])
    return dataset(BYTES, syntax=JPEGBaseline8Bit, PixelData=content)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("rows", "60000 x 60000 pixels"),
        ("frames", "1000 frames or pages"),
        ("deflated", "more than 100,000,000 pixels"),
        ("compressed", "a compressed image of 9000 x 9000 pixels"),
        ("parts", "1 x 40,545,013 parts in 1 layers"),  # 4,502^2 precincts and 4,503^2 code blocks
    ],
)
def test_a_small_file_that_asks_for_gigabytes_is_refused_before_it_gets_any(kind, found, tmp_path):
    path = write(tmp_path / "a.dcm", bomb(kind))
    assert path.stat().st_size < 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_image(path, 1, 64, 65535)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.found == found
    assert most < 16_000_000


@pytest.mark.parametrize(
    ("runs", "refused"),
    [
        (b"\x81\0" * 46_876, True),  # 128 bytes each: 6,000,128, more than a million pixels of 6 bytes
        (b"\x81\0" * 46_875 + b"\x80" * 4, False),  # 6,000,000 and what stands for nothing
        (b"\x80\x81\0" * 46_876, True),
        (b"\x7f" + bytes(128), False),
    ],
)
def test_run_lengths_have_the_bytes_of_the_largest_image_at_most(runs, refused):
    content = io.BytesIO()
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + runs
    image = dataset(BYTES, syntax=RLELossless, PixelData=encapsulate([frame]))
    image.save_as(content, enforce_file_format=True)
    if not refused:
        assert decode_image(content.getvalue(), "a.dcm", 1, None, 65535, 1_000_000).shape == (1, 8, 8)
        return
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="found more than 1,000,000 pixels; expected at most 1,000,000"):
            decode_image(content.getvalue(), "a.dcm", 1, None, 65535, 1_000_000)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


def test_run_lengths_of_noise_are_read(tmp_path):
    """Of three segments, gone through since they might stand for more."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = dataset(noise, "RGB")
    image.compress(RLELossless, generate_instance_uid=False)
    content = write(tmp_path / "a.dcm", image).read_bytes()
    assert np.array_equal(decode_image(content, "a.dcm", 3, None, 65535, 120_000), noise.transpose(2, 0, 1))


def test_deflated_files_are_read(tmp_path):
    path = write(tmp_path / "a.dcm", dataset(BYTES, syntax=DeflatedExplicitVRLittleEndian))
    assert np.array_equal(read_image(path, 1, None, 65535)[0], BYTES)
    assert read_header(path) == Header(8, 8, channels=1, bits=8)


def test_sides_are_those_that_the_stream_states():
    for kind in ("JPEG", "JPEG2000"):
        buffer = io.BytesIO()
        Image.new("L", (70, 30)).save(buffer, kind)
        assert sides(buffer.getvalue()) == (70, 30)
    # SOI, an application's segment of 6 bytes, then JPEG-LS's frame: length 11, 8 bits, 30 rows, 70 columns.
    assert sides(bytes.fromhex("ffd8 ffe8 0006 00000000 fff7 000b 08 001e 0046 01 01 11 00")) == (70, 30)
    for content in (b"", b"\xff\xd8", b"\xff\xd8\xff\xf7", b"RIFF" * 9):
        with pytest.raises(ValueError, match="state no size"):
            sides(content)


def test_a_student_s_pixels_are_those_of_training(tmp_path):
    """A study of DICOM files and a bundle asked about them: the same to the byte."""
    random = np.random.default_rng(0)
    root = tmp_path / "data"
    others = [HOUNSFIELD, {"photometric": "MONOCHROME1"}, {"BitsStored": 12, "HighBit": 11}]
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number, more in enumerate(others):
                pixels = random.integers(0, 2000, (20 + number, 31), dtype=np.uint16)
                write(root / split / name / f"{number}.dcm", dataset(pixels, **more))
    study = make_study({"data": {"kind": "folder", "root": str(root), "size": 12}})
    samples = load_samples(study)
    bundle = Bundle(write_bundle(tmp_path / "b", size=12), threads=1)
    assert len(samples.table.names) == 18
    for row, name in enumerate(samples.table.names):
        pixels = bundle.read(root / name)
        assert np.array_equal(pixels, samples.images[np.array([row])][0]), name
        assert pixels.std() > 0.5


@pytest.mark.parametrize(("syntax", "remedy"), [(JPEGLosslessSV1, "Install one of"), (MPEG2MPML, "Save the file")])
def test_compression_that_nothing_here_decodes_is_refused(tmp_path, syntax, remedy):
    from pydicom.pixels import get_decoder

    if syntax == JPEGLosslessSV1 and get_decoder(syntax).is_available:
        pytest.skip("a decoder of lossless JPEG is installed")
    content = dataset(BYTES, syntax=syntax, PixelData=encapsulate([BYTES.tobytes()]))
    error = refused(write(tmp_path / "a.dcm", content))
    assert error.found == f'pixels compressed as "{syntax.name}"'
    assert error.remedy.startswith(remedy)


def test_a_report_or_a_file_without_pixels_is_refused(tmp_path):
    content = dataset(BYTES)
    del content.PixelData
    assert "without pixels" in refused(write(tmp_path / "a.dcm", content), decoded).found
    for name in ("Rows", "Columns", "BitsAllocated"):
        delattr(content, name)
    assert "without pixels" in refused(write(tmp_path / "a.dcm", content)).found


def test_a_truncated_file_is_refused(tmp_path):
    whole = write(tmp_path / "a.dcm", dataset(BYTES)).read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole[:-10])
    assert "cannot be decoded" in refused(tmp_path / "a.dcm", decoded).found


def test_damage_of_any_kind_gives_pixels_or_a_refusal(tmp_path):
    random = np.random.default_rng(0)
    path = write(tmp_path / "a.dcm", dataset(BYTES.astype(np.int16), **HOUNSFIELD))
    content = np.frombuffer(path.read_bytes(), np.uint8)
    refusals = 0
    for _ in range(200):
        damaged = content.copy()
        places = random.integers(132, len(content), random.integers(1, 8))
        damaged[places] = random.integers(0, 256, len(places))
        path.write_bytes(damaged[: random.integers(140, len(content) + 200)].tobytes())
        try:
            assert read_image(path, 1, 8, 65535).shape == (1, 8, 8)
        except UserError:
            refusals += 1
    assert refusals


def test_what_only_ends_in_dcm_is_refused(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "a.dcm", "PNG")
    error = refused(tmp_path / "a.dcm")
    assert error.found == 'no "DICM" at byte 128 (first bytes 89 50 4e 47 0d 0a 1a 0a)'
    assert error.expected == "a DICOM file"


def test_windows_and_rescaling_without_sense_are_refused(tmp_path):
    for others in ({"WindowCenter": 0, "WindowWidth": 0}, {"RescaleSlope": 0, "RescaleIntercept": 5}):
        path = write(tmp_path / "a.dcm", dataset(BYTES, **others))
        assert "cannot be decoded" in refused(path, decoded).found


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", dataset(BYTES))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    error = refused(path)
    assert error.remedy == "Run pip install 'subclass-kd[dicom]'."
