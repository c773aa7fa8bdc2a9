"""Whatever a file has become, what reads it gives its content, or says that there is none; and nothing is pickled."""

import ast
import contextlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import subclass_kd
from subclass_kd import store
from subclass_kd.data import index, shard_index, shards
from subclass_kd.data.fashion_mnist import read_idx
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import read_header, read_image
from subclass_kd.errors import UserError
from subclass_kd.files import require_json
from subclass_kd.measuring import choice_from
from subclass_kd.report.folder import _both, _listed, open_run
from subclass_kd.run_files import read_run
from subclass_kd.run_folder import PLAIN, damaged_files, read_json, write_sums
from subclass_kd.study_file import load_study, make_study

SOURCE = Path(subclass_kd.__file__).parent
SUBCLASSES = ["bacterial", "viral"]


@st.composite
def spoiled(draw, whole):
    """Change a file's content: other bytes at a place, cut off, added, or something else altogether."""
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    kind = draw(st.sampled_from(["replaced", "cut", "left out", "other"]))
    if kind == "cut":
        return whole[:start]
    if kind == "left out":
        return whole[:start] + whole[end:]
    inserted = draw(st.binary(max_size=40))
    return inserted if kind == "other" else whole[:start] + inserted + whole[start + len(inserted) :]


def save_png():
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "PNG")
    return file.getvalue()


def save_jpeg():
    file = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(
        file, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08"
    )
    return file.getvalue()


def save_tiff():
    file = io.BytesIO()
    Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)).save(file, "TIFF")
    return file.getvalue()


def save_dicom():
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = pydicom.Dataset()
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256))
    dataset.preamble = b"\0" * 128
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=False)
    return file.getvalue()


IMAGES = {".png": save_png, ".jpg": save_jpeg, ".tif": save_tiff, ".dcm": save_dicom}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


@pytest.fixture(scope="module")
def images():
    return {suffix: save() for suffix, save in IMAGES.items()}


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_an_image_is_pixels_or_refused(folder, images, data):
    suffix = data.draw(st.sampled_from(sorted(IMAGES)))
    path = folder / f"any{suffix}"
    path.write_bytes(data.draw(spoiled(images[suffix])))
    try:
        read_header(path)
        found = read_image(path, 1, 8, 65535)
    except UserError:
        return
    assert (found.shape, found.dtype) == ((1, 8, 8), np.uint8)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_idx_file_is_an_array_or_refused(folder, data):
    whole = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(range(32))
    path = folder / "any-idx3-ubyte"
    path.write_bytes(data.draw(spoiled(whole)))
    with contextlib.suppress(UserError):
        assert read_idx(path, 3).ndim == 3


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_stored_file_is_whole_or_invalid(folder, data):
    path = folder / "any.safetensors"
    store.save(path, {"a": torch.arange(6.0).view(2, 3)}, "recipe", {"best": {"epoch": 3}})
    whole = path.read_bytes()
    path.write_bytes(content := data.draw(spoiled(whole)))
    assert store.is_valid(path, "recipe") == (content == whole)
    assert store.is_damaged(path) == (content != whole)
    for read in (store.load, store.notes, lambda path: _both(path, hash(content))):
        try:
            read(path)
        except UserError:
            assert content != whole


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_study_file_is_a_study_or_refused(folder, data):
    whole = b"data:\n  kind: fashion-mnist\n  root: .\narms: [scratch, skd]\nstudent: {epochs: 3}\nseeds: 2\n"
    path = folder / "any.yaml"
    path.write_bytes(data.draw(spoiled(whole)))
    try:
        load_study(path)
    except UserError as error:
        str(error).encode()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_runs_plain_files_are_read_or_named(folder, data):
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for name in PLAIN:
        (run / name).write_text(json.dumps({"schema": 1, "name": name, "values": [1.5, None]}))
    write_sums(run)
    name = data.draw(st.sampled_from([*PLAIN, "SHA256SUMS"]))
    whole = (run / name).read_bytes()
    (run / name).write_bytes(content := data.draw(spoiled(whole)))
    found = damaged_files(run)
    if name == "SHA256SUMS" and content != whole:
        # A list cut short between two lines speaks truly of fewer files.
        assert found or whole.startswith(content.rstrip(b"\n"))
    else:
        assert found == ([name] if content != whole else [])
    assert isinstance(read_json(run / name), dict | None)
    for read in (lambda: require_json(run / name, "", "", ""), lambda: read_run(run, "skd"), lambda: open_run(run)):
        with contextlib.suppress(UserError):
            read()
    with contextlib.suppress(ValueError, TypeError, KeyError):  # then it is measured again
        choice_from(read_json(run / name) or {})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_listing_of_samples_is_read_or_refused(folder, data):
    whole = b'sample,class,subclass,split,group\na.png,sick,viral,test,p1\n"b, c.png",sick,bacterial,validation,\n'
    path = folder / "samples.csv"
    path.write_bytes(data.draw(spoiled(whole)))
    with contextlib.suppress(UserError):
        _listed(path, SUBCLASSES)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_index_of_pixels_is_whole_or_none(folder, data):
    path = folder / "any.npz"
    known = index.Index((1, 8, 8), np.zeros((3, index.DIGEST), np.uint8), np.zeros((3, 1, 2), np.int64))
    index.write(path, known)
    path.write_bytes(data.draw(spoiled(path.read_bytes())))
    found = index.read(path, 3)
    assert found is None or found.shape == known.shape


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_shard_is_images_and_labels_or_refused(folder, images, data):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, part in {"a.png": images[".png"], "a.json": b'{"class": "x"}', "b.tif": images[".tif"]}.items():
            member = tarfile.TarInfo(name)
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))
    path = folder / "shards/0.tar"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(spoiled(content.getvalue())))
    study = make_study({"data": {"kind": "webdataset", "root": str(path.parent)}})
    found = Findings()
    with contextlib.suppress(UserError):
        table = shards.read(study, found)
        assert len(table) <= 2
        for row in range(len(table)):
            with contextlib.suppress(UserError):
                assert read_image(table.path(row), 1, 8, 65535).shape == (1, 8, 8)
    for one in found.kept:
        str(one).encode()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_index_of_a_shard_is_whole_or_none(folder, data):
    path, mark = folder / "shard.npz", (1, 2, 3)
    known = [shard_index.Entry("a.png", "", 512, 9, None), shard_index.Entry("\udcff.cls", "", 1536, 1, "x")]
    shard_index.write(path, mark, known)
    assert shard_index.read(path, mark) == known
    assert shard_index.read(path, (1, 2, 4)) is None
    path.write_bytes(data.draw(spoiled(path.read_bytes())))
    assert shard_index.read(path, mark) in (known, None)


def test_nothing_is_pickled_on_disk():
    """Neither by pickle itself nor by what pickles without a word, as torch.save and NumPy's arrays of objects do."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert forbidden.isdisjoint(name.split(".")[0] for name in names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in ("torch.save", "torch.load", "torch.hub.load"), path
                allowed = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
                assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed), path
