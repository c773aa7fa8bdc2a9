"""A bundle's student asked about files: numbers by hand, the pixels of training, no stop at a bad image, no torch."""

import contextlib
import csv
import io
import json
import os
import re
import resource
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from subclass_kd import extras
from subclass_kd.bundle import Bundle
from subclass_kd.bundle_files import describe_files, seal
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.predict import BATCH, check_sources, columns, find_images, predict_files
from subclass_kd.prediction_files import check_out, writing
from subclass_kd.spreadsheet import csv_line, inert, plain
from subclass_kd.study_file import make_study
from synthetic_bundle import change_bundle, write_bundle


def save(path, grey, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, grey, np.uint8)).save(path)
    return str(path)


def predicted(bundle, paths):
    rows = []
    done = predict_files(bundle, paths, rows.extend)
    return rows, done


def skd(python, *arguments, cwd):
    return python("-m", "subclass_kd.cli", *map(str, arguments), cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "mean")


@pytest.fixture(scope="module")
def bundle(folder):
    return Bundle(folder, threads=1)


def test_probabilities_and_decisions_are_those_by_hand(bundle, tmp_path):
    greys = [0, 51, 63, 64, 204, 255]  # the threshold of 0.25 lies at 63.75
    rows, done = predicted(bundle, [save(tmp_path / f"{grey}.png", grey) for grey in greys])
    assert done == (6, 0)
    for grey, row in zip(greys, rows, strict=True):
        mean = grey / 255
        assert row["class: dark"] == pytest.approx(1 - mean, abs=1e-6)
        assert row["class: bright"] == pytest.approx(mean, abs=1e-6)
        given = [row[f"subclass: {name}"] for name in ("night", "dusk", "day")]
        assert given == pytest.approx([1 - mean, mean / 4, 3 * mean / 4], abs=1e-6)
        assert row["decision"] == ("bright" if mean >= 0.25 else "dark")
        assert row["error"] is None


def test_more_than_two_classes_are_decided_by_the_most_probable(tmp_path):
    bundle = Bundle(write_bundle(tmp_path / "b", classes=("dark", "bright", "none")), threads=1)
    rows, _ = predicted(bundle, [save(tmp_path / "a.png", 100), save(tmp_path / "b.png", 150)])
    assert [row["decision"] for row in rows] == ["dark", "bright"]
    assert columns(bundle)[1] == ["class: dark", "class: bright", "class: none"]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_training(channels, tmp_path):
    """Images of every kind through the study's own reader and through a bundle's: the same to the byte."""
    random = np.random.default_rng(0)
    root = tmp_path / "data"
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number, mode in enumerate(("L", "RGB", "RGBA", "I;16", "P", "LA")):
                shape = (20 + number, 31 - number, len("RGBA") if mode == "RGBA" else 3)
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                if mode == "I;16":
                    image = Image.fromarray(random.integers(0, 5000, shape[:2], dtype=np.uint16))
                else:
                    image = Image.fromarray(pixels, "RGBA" if mode == "RGBA" else "RGB").convert(mode)
                exif = Image.Exif()
                exif[0x0112] = 6  # turned by a quarter
                image.save(root / split / name / f"{number}.png", exif=exif)
    study = make_study({"data": {"kind": "folder", "root": str(root), "size": 12, "channels": channels, "white": 4095}})
    samples = load_samples(study)
    folder = write_bundle(tmp_path / "b", channels=channels, size=12)
    change_bundle(folder, preprocessing={"white": 4095})
    bundle = Bundle(folder, threads=1)
    assert len(samples.table.names) == 36
    for row, name in enumerate(samples.table.names):
        assert np.array_equal(bundle.read(root / name), samples.images[np.array([row])][0]), name


def test_bad_images_are_rows_with_an_error_and_nothing_stops(bundle, tmp_path):
    good = save(tmp_path / "good.png", 255)
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    bad = ["cut.png", "text.jpg", "empty.png", "gone.png", "zero\0byte.png", "."]
    paths = [good, *(str(tmp_path / name) for name in bad), good]
    rows, done = predicted(bundle, paths)
    assert done == (8, 6)
    assert [row["path"] for row in rows] == paths
    assert [row["error"] is None for row in rows] == [True, *[False] * 6, True]
    for row in rows[1:-1]:
        assert row["error"].startswith("found ")
        assert "; expected " in row["error"]
        assert len(row["error"].splitlines()) == 1
        assert {value for key, value in row.items() if key not in ("path", "error")} == {None}
    assert rows[-1]["class: bright"] == pytest.approx(1)
    again = "Fetch or save the file again."
    assert rows[3]["error"] == f"found an empty file (0 bytes); expected an image. {again}"
    assert rows[4]["error"] == "found no file; expected an image."


def test_without_a_study_size_another_size_is_an_error(tmp_path):
    bundle = Bundle(write_bundle(tmp_path / "b", resize=False), threads=1)
    wide = save(tmp_path / "wide.png", 9, size=(8, 9))
    rows, done = predicted(bundle, [wide, save(tmp_path / "right.png", 9)])
    assert done == (2, 1)
    assert rows[0]["error"] == "found 9 x 8 pixels; expected 8 x 8, as in training."


def test_many_images_come_in_order_and_few_are_held(bundle, tmp_path):
    path = save(tmp_path / "a.png", 1)
    taken, written, ahead = 0, 0, []

    def endless():
        nonlocal taken
        for _ in range(40 * BATCH):
            taken += 1
            yield path

    def write(rows):
        nonlocal written
        ahead.append(taken - written)
        written += len(rows)

    assert predict_files(bundle, endless(), write).images == 40 * BATCH == written
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert max(ahead) <= (2 * cores + 1) * BATCH


def test_every_format_holds_the_same(bundle, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "bad.png").write_text("no image")
    paths = [save(tmp_path / '=1+"<b>.png', 51), str(tmp_path / "bad.png"), save(tmp_path / "ü.png", 3)]
    for suffix in ("csv", "json", "jsonl", "parquet"):
        with writing(tmp_path / f"out.{suffix}", *columns(bundle)) as write:
            predict_files(bundle, paths, write)
    rows = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [row["path"] for row in rows] == paths
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()] == rows
    stored = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    numbers = columns(bundle)[1]
    for row, of_parquet, of_csv in zip(rows, stored, listed, strict=True):
        assert list(row) == list(of_parquet) == list(of_csv) == ["path", "decision", *numbers, "error"]
        for text in ("path", "decision", "error"):
            assert row[text] == of_parquet[text]
            assert (row[text] or "") == of_csv[text]
        for name in numbers:
            if row["error"]:
                assert row[name] is None
                assert of_parquet[name] is None
                assert of_csv[name] == ""
            else:
                assert float(of_csv[name]) == row[name] == pytest.approx(of_parquet[name], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_no_row_makes_a_file_that_can_be_read(bundle, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    with writing(path, *columns(bundle)):
        pass
    if suffix == "json":
        assert json.loads(path.read_text()) == []
    elif suffix == "csv":
        assert len(path.read_text().splitlines()) == 1
    elif suffix == "parquet":
        assert pytest.importorskip("pyarrow.parquet").read_table(path).num_rows == 0


def test_what_looks_like_a_formula_is_text_in_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = Bundle(write_bundle(tmp_path / "b", classes=("-1+cmd()", "=cmd()")), threads=1)
    save(tmp_path / '=HYPERLINK("x").png', 255)
    save(tmp_path / "@SUM.png", 255)
    (tmp_path / "=gone.txt").write_text("")
    with writing(tmp_path / "out.csv", *columns(bundle)) as write:
        predict_files(bundle, ['=HYPERLINK("x").png', "@SUM.png", "=gone.txt"], write)
    header, *rows = csv.reader(io.StringIO((tmp_path / "out.csv").read_text("utf-8")))
    assert rows[0][:2] == ['\'=HYPERLINK("x").png', "'=cmd()"]
    assert [row[0] for row in rows[1:]] == ["'@SUM.png", "'=gone.txt"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in [header, *rows] for cell in row)


def cells_parted(text, separator):
    """Give cells as a spreadsheet takes them that parts lines at a separator, without the quotes that begin them."""
    return [re.sub('^[" ]*', "", cell) for cell in re.split(f"[{separator}\r\n]", text)]


NASTY = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '"=1+1"', "  =1", "'=1", "''=1", "\uff1d1+1"]
NASTY += ["a;=HYPERLINK(1)", "a;b;+1", 'a;"=1', "a\n=cmd()", "a\r\n-1-1", "a\t@x", "a;;=1;", "a;'=1"]


@pytest.mark.parametrize("text", NASTY)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_parts_them(text, tmp_path):
    with writing(tmp_path / "out.csv", ["path", "decision", "error"], ["class: =1;=2"]) as write:
        write([{"path": text, "decision": text, "class: =1;=2": -0.5, "error": text}])
    written = (tmp_path / "out.csv").read_bytes().decode()
    for separator in (";", "\t"):
        for cell in cells_parted(written, separator):
            assert not cell.startswith(("=", "+", "-", "@", "\uff1d")), written
    header, row = csv.reader(io.StringIO(written, newline=""))
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r", "\n")) for cell in [*header, *row])
    assert [plain(cell) for cell in row] == [text, text, "-0.5", text]
    assert [plain(cell) for cell in header] == ["path", "decision", "class: =1;=2", "error"]


def test_what_is_no_formula_stays_as_it_is():
    for text in ("-1.5", "a=1", "", "a-b;c", "'tis", "a;b=c", "x@y", "scan, -1.png", "1e-3"):
        assert inert(text) == plain(text) == text


@settings(max_examples=500)
@given(st.text(st.sampled_from("=+-@;'\" \t\r\na1.,")))
def test_every_text_comes_back_from_its_cell(text):
    assert plain(inert(text)) == text
    [row] = csv.reader(io.StringIO(csv_line([text, "end"]), newline=""), strict=True)
    assert [plain(cell) for cell in row] == [text, "end"]


def test_folders_patterns_and_lists_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("f/b.png", "f/a.JPG", "f/deep/c.png", "f/.hidden.png", "f/.git/d.png", "f/Thumbs.db", "f/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "f/list.csv").write_text('\ufeffid,path\n1,b.png\n2,"deep/c.png"\n\n3,/abs.png\n', "utf-8")
    (tmp_path / "one.tsv").write_text("path\nf/b.png\n")
    found = ["f/a.JPG", "f/b.png", "f/deep/c.png"]
    assert [path.replace(os.sep, "/") for path in find_images(["f"])] == found
    assert list(find_images(["f/**/*.png"])) == ["f/b.png", "f/deep/c.png"]
    assert list(find_images(["f/list.csv"])) == ["f/b.png", "f/deep/c.png", "/abs.png"]
    assert list(find_images(["f/list.csv"], "id")) == ["f/1", "f/2", "f/3"]
    assert list(find_images(["one.tsv", "f/notes.txt"])) == ["f/b.png", "f/notes.txt"]


def test_a_large_folder_is_looked_at_only_until_its_first_image_is_found(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number:03}.png").touch()
    seen = []
    scandir = os.scandir

    @contextlib.contextmanager
    def counted(folder):
        with scandir(folder) as entries:
            yield (seen.append(entry.name) or entry for entry in entries)

    monkeypatch.setattr(os, "scandir", counted)
    check_sources([str(tmp_path)])
    assert len(seen) == 1
    assert [os.path.basename(path) for path in find_images([str(tmp_path)])] == [f"{n:03}.png" for n in range(300)]


@pytest.mark.parametrize(
    ("sources", "column", "message"),
    [
        (["gone"], None, "gone: found no such file"),
        (["*.gif"], None, "*.gif: found no image"),
        (["empty"], None, "empty: found no image"),
        (["list.csv"], "pth", 'found the columns id, path; expected a column "pth" of paths. Did you mean "path"?'),
        (["none.csv"], None, "found an empty file"),
        (["latin.csv"], None, "found a byte that is not UTF-8 at 5"),
        (["list.csv", "gone"], None, "gone: found no such file"),
    ],
)
def test_sources_without_images_are_refused_before_anything_is_predicted(
    sources, column, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    (tmp_path / "list.csv").write_text("id,path\n1,a.png\n")
    (tmp_path / "none.csv").touch()
    (tmp_path / "latin.csv").write_bytes(b"path\n\xfc.png\n")
    with pytest.raises(UserError) as caught:
        check_sources(sources, column)
    assert message in str(caught.value)


def restate(folder):
    change_bundle(folder, files=describe_files(folder))


def drop(folder, key):
    stated = json.loads((folder / "bundle.json").read_text())
    del stated[key]
    (folder / "bundle.json").write_text(json.dumps(stated))
    seal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "bundle.json").unlink(), "b: found no bundle.json; expected a bundle"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "found another content than SHA256SUMS states"),
        (lambda folder: change_bundle(folder, schema=2), "bundle.json: found schema 2; expected schema 1"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx: found No such file or directory"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "found another content than SHA256SUMS states"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "b: found no SHA256SUMS; expected a bundle with its"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "SHA256SUMS: found no checksum of bundle.json"),
        (lambda folder: (folder / "SHA256SUMS").write_text("x"), "SHA256SUMS, line 1: found no checksum; expected 64"),
        (lambda folder: (folder / "SHA256SUMS").write_text("0" * 64 + "  ../a\n"), "line 1: found no checksum"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(change, message, tmp_path):
    folder = write_bundle(tmp_path / "b")
    change(folder)
    with pytest.raises(UserError) as caught:
        Bundle(folder)
    assert message in str(caught.value)


OF_NO_CLASS = [{"name": name, "class": "dark"} for name in ("night", "dusk", "day")]
TWICE = [{"name": "night", "class": name} for name in ("dark", "bright", "bright")]


@pytest.mark.parametrize(
    ("keys", "key", "found"),
    [
        ({"positive": "none"}, "positive", "'none'; expected one of the classes"),
        ({"decision": {"threshold": 0}}, "decision.threshold", "0; expected a number between 0 and 1, or null"),
        ({"decision": {"threshold": 1.0}}, "decision.threshold", "1.0"),
        ({"decision": {"threshold": float("nan")}}, "decision.threshold", "nan"),
        ({"decision": {"threshold": "0.5"}}, "decision.threshold", "'0.5'"),
        ({"temperature": {"value": 0}}, "temperature.value", "0; expected a finite number above 0"),
        ({"temperature": {"value": float("inf")}}, "temperature.value", "inf"),
        ({"temperature": {"value": True}}, "temperature.value", "True"),
        ({"hierarchy": {"classes": ["dark"]}}, "hierarchy.classes", "['dark']; expected two names or more"),
        ({"hierarchy": {"classes": ["dark", "dark"]}}, "hierarchy.classes", "['dark', 'dark']"),
        ({"hierarchy": {"classes": ["dark", "bright", "x"]}}, "hierarchy.subclasses", "[{"),
        ({"hierarchy": {"subclasses": ["night"]}}, "hierarchy.subclasses", "['night']; expected a list of names with"),
        ({"hierarchy": {"subclasses": OF_NO_CLASS}}, "hierarchy.subclasses", "[{"),
        ({"hierarchy": {"subclasses": TWICE}}, "hierarchy.subclasses", "[{"),
        ({"outputs": ["class_probabilities", "others"]}, "outputs", "['class_probabilities', 'others']"),
        ({"preprocessing": {"channels": 2}}, "preprocessing.channels", "2; expected 1 or 3"),
        ({"preprocessing": {"white": 0}}, "preprocessing.white", "0; expected a whole number up to 65535"),
        ({"preprocessing": {"width": 9}}, "preprocessing.resize", "True; expected false, or true with as many rows"),
    ],
)
def test_a_bundle_without_sense_is_refused_by_its_key(keys, key, found, tmp_path):
    folder = write_bundle(tmp_path / "b")
    change_bundle(folder, **keys)
    with pytest.raises(UserError) as caught:
        Bundle(folder)
    assert str(caught.value).startswith(f'{folder / "bundle.json"}, key "{key}": found {found}')
    assert str(caught.value).endswith("Export it again, or copy the whole folder.")


@pytest.mark.parametrize(
    "key", ["hierarchy", "positive", "preprocessing", "outputs", "decision", "temperature", "files"]
)
def test_a_bundle_without_a_key_is_refused(key, tmp_path):
    folder = write_bundle(tmp_path / "b")
    drop(folder, key)
    with pytest.raises(UserError, match=f'bundle.json: found no key "{key}'):
        Bundle(folder)


def test_a_graph_of_other_widths_than_names_is_refused(tmp_path):
    two, three = write_bundle(tmp_path / "b"), write_bundle(tmp_path / "c", classes=("dark", "bright", "none"))
    (two / "model.onnx").write_bytes((three / "model.onnx").read_bytes())
    seal(two)
    with pytest.raises(
        UserError, match=r'bundle.json, key "files": found .* the SHA-256 of each file, as in SHA256SUMS'
    ):
        Bundle(two)
    restate(two)
    with pytest.raises(UserError, match=r"found a graph of \[\('class_probabilities', 3\)\]; expected \[\('class_"):
        Bundle(two)
    change_bundle(three, preprocessing={"height": 9, "width": 9})
    with pytest.raises(
        UserError, match=r"expected \[\('pixels', 'tensor\(uint8\)', 1, 9, 9\)\], as bundle.json states"
    ):
        Bundle(three)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A bundle with all files that one may have, and their contents."""
    folder = write_bundle(tmp_path_factory.mktemp("sealed") / "b")
    for name in ("MODEL_CARD.md", "model.safetensors", "model-int8.onnx"):
        (folder / name).write_bytes(b"# Model card\n" * 3)
    restate(folder)
    return folder, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


NAMES = ["MODEL_CARD.md", "SHA256SUMS", "bundle.json", "model-int8.onnx", "model.onnx", "model.safetensors"]


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(NAMES), place=st.integers(0), change=st.integers(1, 255))
def test_any_changed_byte_of_any_file_is_refused_and_the_file_named(sealed, name, place, change):
    folder, contents = sealed
    assert list(contents) == NAMES
    damaged = bytearray(contents[name])
    damaged[place % len(damaged)] ^= change
    (folder / name).write_bytes(damaged)
    try:
        with pytest.raises(UserError) as caught:
            Bundle(folder)
    finally:
        (folder / name).write_bytes(contents[name])
    assert len(str(caught.value).splitlines()) == 1
    if name != "SHA256SUMS":
        assert caught.value.where == str(folder / name)
        assert caught.value.found == "another content than SHA256SUMS states"


def test_the_checksums_are_those_of_coreutils(sealed):
    folder, _ = sealed
    Bundle(folder, threads=1)
    if shutil.which("sha256sum"):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [f"{name}: OK" for name in NAMES if name != "SHA256SUMS"]


def test_what_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    (tmp_path / "there.csv").touch()
    with pytest.raises(UserError, match="a file that is there"):
        check_out(tmp_path / "there.csv")
    with pytest.raises(UserError, match=r"one of \.csv, \.json, \.jsonl, \.parquet"):
        check_out(tmp_path / "out.xlsx")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"found no pyarrow .* pip install 'subclass-kd\[tables\]'"):
        check_out(tmp_path / "out.parquet")
    with pytest.raises(UserError, match=r"found no torch, .* pip install 'subclass-kd\[train\]'"):
        extras.demand("skd run", "train")


def test_the_first_prediction_takes_two_seconds_of_computing_at_most_and_no_torch(folder, tmp_path, python):
    save(tmp_path / "a.png", 51)
    code = (
        "import sys; from subclass_kd.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print({'torch', 'scipy', 'sklearn', 'pandas', 'safetensors', 'timm'} & set(sys.modules), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-c", code, "predict", str(folder), "a.png", "-o", "out.csv", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["skd: 1 image.", "set()"]
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 2
    with (tmp_path / "out.csv").open() as file:
        [row] = csv.DictReader(file)
    assert (row["path"], row["decision"]) == ("a.png", "dark")
    assert float(row["class: bright"]) == pytest.approx(0.2, abs=1e-6)


def test_the_command_line_says_what_is_wrong_in_one_line_and_writes_nothing(folder, tmp_path, python):
    save(tmp_path / "a.png", 1)
    for arguments, message in (
        (["predict", folder, "a.png", "-o", "a.txt"], 'found the suffix ".txt"'),
        (["predict", tmp_path, "a.png"], "found no bundle.json"),
        (["predict", folder, "gone.png", "-o", "out.csv"], "gone.png: found no such file"),
    ):
        done = skd(python, *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]
    shown = skd(python, "predict", folder, "a.png", "a.png", cwd=tmp_path)
    assert len(shown.stdout.splitlines()) == 3
    assert shown.stderr == "skd: 2 images.\n"
