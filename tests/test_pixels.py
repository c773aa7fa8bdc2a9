"""The pixel store: embedded images fitted, files decoded once, and a cache that is whole or not there."""

import errno
import hashlib
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subclass_kd import files
from subclass_kd.config import Data
from subclass_kd.cores import count_cores
from subclass_kd.data import decoding, fashion_mnist, index, pixels
from subclass_kd.data.findings import Findings
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.pixels import load_pixels
from subclass_kd.data.samples import load_samples
from subclass_kd.data.scan import look_at, scan
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

SHARED = Path(__file__).parents[2] / "shared/data/chest_xray"
NAMES = [f"{number:02}.png" for number in range(20)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give the cache folder of this test, which does not exist yet."""
    monkeypatch.setenv("SUBCLASS_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def images(tmp_path):
    """Give 20 grey images of (20, 1, 16, 12) as a table's folder has them, and that table."""
    array = np.random.default_rng(0).integers(0, 256, (20, 1, 16, 12), np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in zip(NAMES, array, strict=True):
        Image.fromarray(image[0]).save(folder / name)
    return array, SampleTable("study", list(NAMES), root=folder)


def load(*arguments, **options):
    """Give the images alone."""
    return load_pixels(*arguments, **options)[0]


def refused(table, **data):
    with pytest.raises(UserError) as caught:
        load(table, Data(**data))
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.fixture
def decodings(monkeypatch):
    """Give the list that grows by each image that is decoded."""
    found = []

    def read_image(path, *rest):
        found.append(path.name)
        return original(path, *rest)

    original = decoding.read_image
    monkeypatch.setattr(decoding, "read_image", read_image)
    return found


# Images that come decoded


def fashion():
    return SampleTable("embedded", [f"image {row}" for row in range(40)], images=fashion_images())


def fashion_images():
    with np.load(fashion_mnist.EMBEDDED) as stored:
        return stored["train_images"][:40, None]


@pytest.mark.parametrize("data", [{}, {"size": 28}, {"channels": 1}, {"size": 28, "channels": 1}])
def test_decoded_images_that_fit_are_not_copied(cache, data):
    table = fashion()
    assert load(table, Data(**data)) is table.images
    assert not cache.exists()


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_decoded_images_are_resized_by_pillow_s_bilinear_and_grey_is_repeated(channels):
    table = fashion()
    resized = [Image.fromarray(image[0]).resize((16, 16), Image.Resampling.BILINEAR) for image in table.images]
    expected = np.repeat(np.stack([np.asarray(image) for image in resized])[:, None], channels or 1, axis=1)
    found = load(table, Data(size=16, channels=channels))
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_decoded_colour_becomes_grey_by_its_luma():
    images = np.zeros((2, 3, 8, 9), np.uint8)
    images[:, 0], images[1, 1] = 255, 255
    table = SampleTable("embedded", ["image 0", "image 1"], images=images)
    found = load(table, Data(channels=1))
    assert found.shape == (2, 1, 8, 9)
    assert [set(image.ravel().tolist()) for image in found] == [{76}, {226}]
    assert np.array_equal(load(table, Data(channels=3)), images)


def test_a_table_of_no_rows_is_refused():
    assert refused(SampleTable("study", [], root=Path())).found == "no images"


# Files


def test_files_come_row_for_row_as_they_are_stored(images):
    array, table = images
    found = load(table, Data())
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)
    order = np.random.default_rng(1).permutation(20)
    assert np.array_equal(load(table.take(order), Data()), array[order])


def test_size_and_channels_are_brought_about(images):
    array, table = images
    resized = np.stack([Image.fromarray(image[0]).resize((8, 8), Image.Resampling.BILINEAR) for image in array])
    assert np.array_equal(load(table, Data(size=8)), resized[:, None])
    assert np.array_equal(load(table, Data(size=8, channels=3)), np.repeat(resized[:, None], 3, axis=1))
    assert np.array_equal(load(table, Data(channels=3)), np.repeat(array, 3, axis=1))


def test_one_colour_image_makes_all_of_them_colour_unless_the_study_says_otherwise(images):
    array, table = images
    colour = np.random.default_rng(2).integers(0, 256, (16, 12, 3), np.uint8)
    Image.fromarray(colour).save(table.root / NAMES[7])
    found = load(table, Data())
    assert found.shape == (20, 3, 16, 12)
    assert np.array_equal(found[6], np.repeat(array[6], 3, axis=0))
    assert np.array_equal(found[7], colour.transpose(2, 0, 1))
    assert load(table, Data(size=8)).shape == (20, 3, 8, 8)
    assert load(table, Data(channels=1)).shape == (20, 1, 16, 12)


def test_white_is_the_study_s(images):
    _, table = images
    Image.fromarray(np.full((16, 12), 1000, np.uint16)).save(table.root / NAMES[0])
    assert (load(table, Data(white=2000))[0] == 128).all()  # 127.5
    assert (load(table, Data(white=1000))[0] == 255).all()


def test_images_of_several_sizes_ask_for_one(images):
    _, table = images
    for name, sides in zip(NAMES, [(9, 9)] * 3 + [(8, 30)], strict=False):
        Image.new("L", sides).save(table.root / name)
    error = refused(table)
    assert error.found == "images of 3 sizes: 16 of 12 x 16, 3 of 9 x 9, others"
    assert (error.where, error.expected, error.remedy) == ("study", "one size", "Set data.size.")
    assert load(table, Data(size=8)).shape == (20, 1, 8, 8)
    for name in NAMES[3:]:
        Image.new("L", (12, 16)).save(table.root / name)
    assert refused(table).found == "images of 2 sizes: 17 of 12 x 16, 3 of 9 x 9"


def test_a_turned_jpeg_has_the_size_that_is_shown(images):
    array, table = images
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(array[3, 0])  # orientation 6 turns it back, to the right
    Image.fromarray(turned).save(table.root / NAMES[3], exif=exif)
    assert np.array_equal(load(table, Data()), array)


def test_stored_pixels_cannot_be_changed(images):
    found = load(images[1], Data())
    with pytest.raises(ValueError, match="read-only"):
        found[:] = 0


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads /proc")
def test_a_store_may_be_larger_than_memory(images, cache, monkeypatch):
    """A file of three times the memory, nearly all of it a hole; only its header and two images are read."""
    _, table = images
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    load(table, Data())
    (path,), (beside,) = cache.glob("*.npy"), cache.glob("*.index.npz")
    shape = (20, 1, 16, 3 * memory // 320)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        try:
            file.truncate(start + int(np.prod(shape)))
        except OSError as error:
            pytest.skip(f"no such file here ({error.strerror})")
    known = index.read(beside, 20)
    index.write(beside, replace(known, shape=shape[1:]))
    found = load(table, Data(store_limit=1e6), verify=False)
    assert found.shape == shape
    assert found[19, 0, 15, -1] == 0
    path.unlink()


def test_progress_is_heard_in_the_calling_thread(images):
    heard = []

    def hear(done, total):
        assert threading.current_thread() is threading.main_thread()
        heard.append((done, total))

    load(images[1], Data(), hear)
    assert heard == [(number, 20) for number in range(1, 21)]


def test_only_a_few_images_wait_to_be_written(images, monkeypatch):
    _, table = images
    started, most = [], []
    table = table.take(np.tile(np.arange(20), 50))
    monkeypatch.setattr(
        decoding, "read_image", lambda path, *rest: (started.append(path), np.zeros((1, 8, 8), np.uint8))[1]
    )
    load(table, Data(size=8, channels=1), lambda done, _: most.append(len(started) - done))
    assert max(most) <= 16 * (2 * count_cores() + 1)


# The cache


def test_the_second_call_reads_no_image(images, decodings, monkeypatch, cache):
    array, table = images
    load(table, Data(size=8))
    assert sorted(decodings) == NAMES
    assert len(list(cache.glob("*.npy"))) == len(list(cache.glob("*.index.npz"))) == 1
    first = load(table, Data(size=8))
    monkeypatch.setattr(decoding, "read_header", None)
    assert np.array_equal(load(table, Data(size=8)), first)
    assert len(decodings) == 20
    assert array.shape[2] == 16


@pytest.mark.parametrize("data", [{"size": 9}, {"channels": 3}, {"white": 4095}])
def test_another_size_channels_or_white_is_another_file(images, decodings, cache, data):
    load(images[1], Data(size=8))
    load(images[1], Data(**{"size": 8, **data}))
    assert len(decodings) == 40
    assert len(list(cache.glob("*.npy"))) == 2


def test_a_changed_file_is_decoded_again(images, decodings):
    array, table = images
    load(table, Data())
    path = table.root / NAMES[4]
    status = path.stat()
    Image.fromarray(255 - array[4, 0]).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found = load(table, Data())
    assert np.array_equal(found[4], 255 - array[4])
    assert len(decodings) == 40


def test_rows_in_another_order_and_another_folder_are_other_pixels(images, decodings, tmp_path):
    array, table = images
    load(table, Data())
    assert np.array_equal(load(table.take(np.arange(20)[::-1]), Data()), array[::-1])
    shutil.copytree(table.root, tmp_path / "copy")
    load(SampleTable("study", table.names, root=tmp_path / "copy"), Data())
    assert len(decodings) == 60


def test_the_same_folder_by_another_path_is_the_same(images, decodings, tmp_path, monkeypatch):
    _, table = images
    load(table, Data())
    monkeypatch.chdir(tmp_path)
    load(SampleTable("study", table.names, root=Path("images")), Data())
    assert len(decodings) == 20


def test_a_newer_decoder_decodes_again(images, decodings, monkeypatch):
    load(images[1], Data())
    monkeypatch.setattr(pixels, "_DECODER", pixels._DECODER + 1)
    load(images[1], Data())
    assert len(decodings) == 40


def stored_as(array):
    def damage(path):
        with path.open("wb") as file:
            np.save(file, array)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array at all"),
        stored_as(np.zeros((19, 1, 8, 8), np.uint8)),
        stored_as(np.zeros((20, 2, 8, 8), np.uint8)),
        stored_as(np.zeros((20, 1, 8, 9), np.uint8)),
        stored_as(np.zeros((20, 1, 8, 8), np.int64)),
        stored_as(np.zeros((20, 64), np.uint8)),
    ],
)
def test_a_damaged_cache_file_is_made_again(images, decodings, cache, damage):
    first = np.array(load(images[1], Data(size=8)))
    (path,) = cache.glob("*.npy")
    damage(path)
    assert np.array_equal(load(images[1], Data(size=8)), first)
    assert len(decodings) == 40
    load(images[1], Data(size=8))
    assert len(decodings) == 40


# Refusals


def left_in(cache):
    return list(cache.iterdir()) if cache.exists() else []


@pytest.mark.parametrize("data", [{}, {"size": 8, "channels": 1}])
def test_bad_images_are_counted_and_the_first_row_s_is_named(images, cache, decodings, data):
    _, table = images
    (table.root / NAMES[15]).write_bytes(b"no image")  # the header shows it
    (table.root / NAMES[17]).unlink()
    content = (table.root / NAMES[4]).read_bytes()
    (table.root / NAMES[4]).write_bytes(content[:-40])  # only decoding shows it
    for _ in range(3):
        error = refused(table, **data)
        assert error.where == str(table.root / NAMES[4])
        assert error.found.startswith("an image that cannot be decoded (")
        assert error.remedy.endswith("2 more errors: `skd check` lists them.")
        assert left_in(cache) == []
    Image.new("L", (12, 16)).save(table.root / NAMES[4])
    error = refused(table, **data)
    assert error.where == str(table.root / NAMES[15])
    assert error.found.startswith("a file that Pillow does not know")
    assert error.remedy == "1 more error: `skd check` lists them."


def test_no_image_at_all_that_can_be_read(images, cache):
    _, table = images
    shutil.rmtree(table.root)
    error = refused(table)
    assert (error.where, error.found) == (str(table.root / NAMES[0]), "no file")
    assert "19 more errors" in error.remedy
    assert left_in(cache) == []


def test_a_bad_image_of_a_table_is_named_by_its_row_and_its_path(images):
    _, table = images
    (table.root / NAMES[2]).unlink()
    rows = SampleTable("cases.csv", table.names, root=table.root, rows=np.arange(20) + 2)
    assert refused(rows).where == f"cases.csv, row 4, {table.root / NAMES[2]}"


def test_an_image_that_is_not_what_its_header_said_is_refused(images, cache, monkeypatch):
    _, table = images
    monkeypatch.setattr(decoding, "read_image", lambda *_: np.zeros((1, 9, 12), np.uint8))
    error = refused(table)
    assert (error.found, error.expected) == ("12 x 9 pixels", "12 x 16, as its header says")
    assert left_in(cache) == []


def test_a_fault_of_ours_stays_one_and_leaves_nothing(images, cache, monkeypatch):
    _, table = images
    monkeypatch.setattr(decoding, "read_image", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(table, Data())
    assert left_in(cache) == []


def test_an_interrupt_leaves_nothing(images, cache):
    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(images[1], Data(), interrupt)
    assert left_in(cache) == []


REMEDY = "Give --cache (or set SUBCLASS_KD_CACHE to) a folder that can be written."


def test_a_cache_folder_that_cannot_be_made_is_refused(images, cache):
    cache.parent.write_text("a file")
    error = refused(images[1])
    assert (error.where, error.remedy) == (str(cache), REMEDY)
    assert error.found.startswith("a folder that cannot be written (")


def test_too_little_space_is_noticed_before_decoding(images, cache, decodings, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = refused(images[1], size=160)
    assert (error.where, error.found) == (str(cache), "0.1 MB free")
    assert error.remedy == "Give --cache a folder with more, or decode at each epoch: data.store_limit: 0."
    assert error.expected == "0.5 MB for decoded images"
    assert decodings == []
    assert left_in(cache) == []


def test_a_disk_that_fills_up_is_one_message_and_leaves_nothing(images, cache, monkeypatch):
    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", no_space)
    error = refused(images[1])
    assert (error.where, error.remedy) == (str(cache), REMEDY)
    assert error.found == "a folder that cannot be written (No space left on device)"
    assert left_in(cache) == []


KILLED_AT_THE_THIRD = """if True:
    import os, signal, sys
    from pathlib import Path
    from subclass_kd.config import Data
    from subclass_kd.data.pixels import load_pixels
    from subclass_kd.data.table import SampleTable

    def strike(done, _):
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    root = Path(sys.argv[1])
    load_pixels(SampleTable("study", sorted(os.listdir(root)), root=root), Data(size=8), strike)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_what_a_killed_process_left_goes_before_there_is_asked_for_space(images, cache, python, monkeypatch):
    assert python("-c", KILLED_AT_THE_THIRD, str(images[1].root)).returncode == -signal.SIGKILL
    left, lock = sorted(left_in(cache), key=lambda path: ".lock" in path.suffixes)
    assert (left.suffix, lock.suffixes[-2:]) == (".part", [".lock", ".part"])
    there, ask = [], shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: there.append(left.exists()) or ask(folder))
    assert load(images[1], Data()).shape == (20, 1, 16, 12)  # under another name
    assert there == [False]
    assert sorted(path.suffix for path in left_in(cache)) == [".npy", ".npz"]


# What is known of the images without reading them


def mean_and_std_by_histogram(images):
    """From counts of the 256 grey values, in float64: how it was done when all images were read each time."""
    counts = np.stack([np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])])
    share, grey = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ grey
    return mean.astype(np.float32), np.sqrt(np.maximum(share @ grey**2 - mean**2, 1e-6)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (40, 1, 16, 12), (30, 3, 9, 8), (7, 3, 200, 300)])
def test_mean_and_spread_come_from_exact_sums(shape):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, shape, np.uint8)
    rows = np.flatnonzero(random.random(len(images)) < 0.7) if len(images) > 1 else np.array([0])
    mean, std = index.make(images).mean_and_std(rows)
    expected_mean, expected_std = mean_and_std_by_histogram(images[rows])
    assert mean.dtype == std.dtype == np.float32
    assert np.array_equal(mean, expected_mean)
    assert np.array_equal(std, expected_std)
    assert np.allclose(mean, images[rows].mean((0, 2, 3)) / 255)
    assert np.allclose(std, images[rows].std((0, 2, 3)) / 255)


def test_the_spread_of_images_of_one_value_is_not_zero():
    mean, std = index.make(np.full((3, 1, 8, 8), 51, np.uint8)).mean_and_std(np.arange(3))
    assert mean.tolist() == pytest.approx([0.2])
    assert std.tolist() == pytest.approx([1e-3])


def test_digests_are_the_first_half_of_sha_256(images):
    array, _ = images
    found = index.make(array)
    expected = [hashlib.sha256(image.tobytes()).digest()[:16] for image in array]
    assert [row.tobytes() for row in found.digests] == expected
    assert found.sums[3].tolist() == [[int(array[3].sum()), int((array[3].astype(np.int64) ** 2).sum())]]
    assert found.sums.shape == (20, 1, 2)
    assert len(found) == 20


def test_the_index_is_the_same_for_memory_for_a_store_and_for_files_that_are_decoded_again(images):
    array, table = images
    memory = index.make(array)
    _, stored = load_pixels(table, Data())
    on_demand, alone = load_pixels(table, Data(store_limit=0, channels=1))
    assert isinstance(on_demand, OnDemand)
    for known in (stored, load_pixels(table, Data())[1], alone):
        assert known.fingerprint == memory.fingerprint
        assert known.shape == (1, 16, 12)
        assert np.array_equal(known.sums, memory.sums)
    changed = array.copy()
    changed[19, 0, 15, 11] ^= 1
    assert index.make(changed).fingerprint != memory.fingerprint
    assert index.make(array[::-1]).fingerprint != memory.fingerprint
    assert index.make(array.reshape(20, 1, 12, 16)).fingerprint != memory.fingerprint


def test_a_changed_byte_is_found_mended_and_told(images, cache, decodings):
    array, table = images
    load(table, Data())
    (path,) = cache.glob("*.npy")
    content = bytearray(path.read_bytes())
    content[-77] ^= 4
    path.write_bytes(content)
    findings = Findings()
    found, known = load_pixels(table, Data(), findings=findings)
    assert np.array_equal(found, array)
    assert known.fingerprint == index.make(array).fingerprint
    assert len(decodings) == 40
    (warning,) = findings.kept
    assert (warning.severity, warning.kind, warning.where) == ("warning", "damaged cache", str(path))
    load_pixels(table, Data(), findings=findings)
    assert len(findings.kept) == 1
    assert len(decodings) == 40


def test_pixels_that_were_just_verified_are_not_read_again(images, cache, monkeypatch):
    array, table = images
    load(table, Data())
    monkeypatch.setattr(index, "agrees", None)
    assert np.array_equal(load(table, Data(), verify=False), array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content[:-30] + bytes(30),
        lambda content: b"",
        lambda content: b"no index",
        None,
    ],
)
def test_a_damaged_or_missing_index_is_made_again(images, cache, decodings, damage):
    array, table = images
    load(table, Data())
    (path,) = cache.glob("*.index.npz")
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(load(table, Data()), array)
    assert len(decodings) == 40
    load(table, Data())
    assert len(decodings) == 40


def test_an_index_of_other_arrays_is_none(tmp_path, images):
    array, _ = images
    known = index.make(array)
    index.write(tmp_path / "index.npz", known)
    assert index.read(tmp_path / "index.npz", 20).fingerprint == known.fingerprint
    assert index.read(tmp_path / "index.npz", 19) is None
    assert index.read(tmp_path / "none.npz", 20) is None
    np.savez(tmp_path / "other.npz", shape=np.array([1, 8, 8]))
    assert index.read(tmp_path / "other.npz", 20) is None
    assert not index.agrees(known, array[:19])
    assert not index.agrees(known, array.reshape(20, 1, 12, 16))


def test_every_image_is_verified_in_chunks(images, monkeypatch):
    array, _ = images
    monkeypatch.setattr(index, "CHUNK", 3 * array[0].size)
    known = index.make(array)
    assert known.fingerprint == index.Index((1, 16, 12), index.digests(array), index.sums(array)).fingerprint
    for row in range(20):
        changed = array.copy()
        changed[row, 0, row % 16, row % 12] ^= 128
        assert not index.agrees(known, changed)
    assert index.agrees(known, array)


# Above the limit


def test_above_the_limit_nothing_but_the_index_is_stored(images, cache, decodings):
    array, table = images
    size = 20 * 16 * 12 / 1e9  # in GB
    found = load(table, Data(store_limit=0.99 * size))
    assert isinstance(found, OnDemand)
    assert found.shape == array.shape
    assert len(found) == 20
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    rows = np.array([3, 3, 0, 19])
    assert np.array_equal(found[rows], array[rows])
    assert found[np.array([], np.int64)].shape == (0, 1, 16, 12)
    load(table, Data(store_limit=0))
    assert len(decodings) == 20  # the index says what is to be known
    assert np.array_equal(load(table, Data(store_limit=1.01 * size)), array)
    assert len(decodings) == 40
    assert isinstance(load(table, Data(store_limit=0)), OnDemand)


def test_what_is_decoded_again_is_resized_and_scaled_as_in_the_store(images):
    _, table = images
    Image.fromarray(np.arange(192, dtype=np.uint16).reshape(16, 12) * 5).save(table.root / NAMES[0])
    options = {"size": 8, "channels": 3, "white": 1000}
    stored, again = load(table, Data(**options)), load(table, Data(**options, store_limit=0))
    assert np.array_equal(again[np.arange(20)], stored)


def test_a_file_that_changed_since_the_index_was_made_is_refused(images):
    array, table = images
    found = load(table, Data(store_limit=0))
    Image.fromarray(255 - array[4, 0]).save(table.root / NAMES[4])
    assert np.array_equal(found[np.array([3, 5])], array[[3, 5]])
    with pytest.raises(UserError) as caught:
        found[np.array([3, 4])]
    assert (caught.value.where, caught.value.expected) == (str(table.root / NAMES[4]), "files that stay")
    Image.new("L", (12, 12)).save(table.root / NAMES[4])
    with pytest.raises(UserError, match="changed while the run went on"):
        found[np.array([4])]


def test_bad_images_are_refused_above_the_limit_too(images, cache):
    _, table = images
    (table.root / NAMES[15]).write_bytes(b"no image")
    assert refused(table, store_limit=0.0).where == str(table.root / NAMES[15])
    assert left_in(cache) == []


def test_data_that_come_decoded_stay_in_memory_whatever_the_limit(cache):
    table = fashion()
    assert load(table, Data(store_limit=0)) is table.images
    assert not cache.exists()


def test_the_limit_is_a_number_from_zero():
    for limit in (-1.0, float("inf"), float("nan"), "1"):
        with pytest.raises(ValueError, match="store_limit"):
            Data(store_limit=limit)
    assert Data(store_limit=2).store_limit == 2


def test_samples_have_one_fingerprint_with_and_without_a_store(images):
    _, table = images
    names = [f"{split}/{name}/{number}.png" for split in ("train", "val", "test") for name in "ab" for number in (0, 1)]
    for source, name in zip(NAMES, names, strict=False):
        (table.root / name).parent.mkdir(parents=True, exist_ok=True)
        (table.root / source).rename(table.root / name)
    for name in NAMES[len(names) :]:
        (table.root / name).unlink()
    data = {"kind": "folder", "root": str(table.root), "size": 8}
    stored = load_samples(make_study({"data": data}))
    again = load_samples(make_study({"data": {**data, "store_limit": 0}}))
    assert stored.fingerprint == again.fingerprint
    assert stored.describe() == again.describe()
    assert [a.tolist() for a in stored.mean_and_std] == [a.tolist() for a in again.mean_and_std]


# One pass for the store and for the check


@pytest.fixture
def odd_images(tmp_path):
    """Give a table of files whose modes, depths, sizes and orientations differ."""
    random, folder = np.random.default_rng(0), tmp_path / "odd"
    folder.mkdir()
    colour = random.integers(0, 256, (30, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(colour).save(folder / "turned.jpeg", exif=exif)
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.jpeg")
    Image.fromarray(colour).convert("P").save(folder / "palette.gif")
    Image.fromarray(colour).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(colour[..., 0]).save(folder / "grey.tiff")
    Image.fromarray(colour[..., 0]).convert("1").save(folder / "bits.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    grey_palette = Image.fromarray(colour[..., 0]).convert("P")
    grey_palette.putpalette([value for value in range(256) for _ in range(3)])
    grey_palette.save(folder / "grey-palette.png")
    return SampleTable("study", sorted(path.name for path in folder.iterdir()), root=folder)


@pytest.mark.parametrize("data", [{}, {"channels": 1}, {"channels": 3}, {"channels": 3, "white": 4095}, {"size": 40}])
def test_one_pass_gives_the_pixels_and_the_looks_of_two(odd_images, cache, data):
    data = Data(**{"size": 12, **data})
    alone = np.array(load(odd_images, data))
    shutil.rmtree(cache)
    looks = []
    together = load(odd_images, data, looks=looks)
    assert np.array_equal(together, alone)
    expected = scan(odd_images, data).looks
    assert len(looks) == len(expected) == 9
    for one, two in zip(looks, expected, strict=True):
        assert np.array_equal(one.signature, two.signature)
        assert replace(one, signature=None) == replace(two, signature=None)
    again = []
    load(odd_images, data, looks=again)
    assert again == []  # nothing was decoded


def test_a_run_decodes_each_file_once(odd_images, decodings, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, "look_at", lambda path, white: (seen.append(path.name), look_at(path, white))[1])
    load(odd_images, Data(size=8), looks=[])
    assert sorted(seen) == odd_images.names
    assert decodings == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="the chest X-rays of ../shared are not here")
def test_chest_x_rays_are_decoded_and_found_again(decodings):
    names = sorted(path.relative_to(SHARED).as_posix() for path in SHARED.rglob("*.jpeg"))[::40]
    table = SampleTable(str(SHARED), names, root=SHARED)
    first = load(table, Data(size=64, channels=1))
    assert first.shape == (len(names), 1, 64, 64)
    assert 90 < first.mean() < 160
    with Image.open(SHARED / names[5]) as image:
        expected = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(first[5, 0], expected)
    assert np.array_equal(load(table, Data(size=64, channels=1)), first)
    assert len(decodings) == len(names)
