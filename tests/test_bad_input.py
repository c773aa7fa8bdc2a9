"""Every kind of bad data and configuration in docs/bad-input.md: one message, exit 2, nothing left behind.

The page's messages are these tests' own: ``python tests/test_bad_input.py`` prints its table.
"""

import csv
import gzip
import io
import os
import re
import shutil
import struct
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subclass_kd import cli

PAGE = Path(__file__).parent.parent / "docs/bad-input.md"
STUDY = "data: {kind: folder, root: images, size: 8}\nseeds: 1\narms: [scratch]\n"
TABLE = "data: {kind: table, table: cases.csv, size: 8, columns: {weight: weight}}\nseeds: 1\narms: [scratch]\n"
VOTES = TABLE.replace(", columns: {weight: weight}", "") + "votes: {column: votes, annotators: 7}\n"
HEADER = ["path", "class", "subclass", "group", "weight"]


def image(path, size=(8, 8), shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, shade, np.uint8)).save(path)
    return path


def folder(here, study=STUDY):
    """Write a good folder: 2 splits, 2 classes of 2 subclasses, 8 images each."""
    (here / "study.yaml").write_text(study)
    for number in range(64):
        split, name = ("train", "test")[number % 2], ("a/w", "a/x", "b/y", "b/z")[number // 2 % 4]
        image(here / "images" / split / name / f"{number}.png", shade=number)
    return ["run", "study.yaml"]


def first(here):
    return here / "images/train/a/w/0.png"


def table(here, change=None, header=HEADER, study=TABLE, name="cases.csv"):
    """Write a good table of 64 rows, changed; ``change`` gets the list of rows without the header."""
    (here / "study.yaml").write_text(study)
    rows = [[f"{k}.png", "ab"[k % 4 // 2], "wxyz"[k % 4], f"p{k}", "1"] for k in range(64)]
    for k in range(64):
        image(here / f"{k}.png", shade=k)
    rows = [row[: len(header)] for row in rows]
    if change:
        change(rows)
    with (here / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return ["run", "study.yaml"]


def cell(row, column, value, **others):
    """Give the case of a table with one wrong cell; rows count as in a spreadsheet."""

    def write(here):
        def change(rows):
            rows[row - 2][HEADER.index(column)] = value

        return table(here, change, **others)

    return write


def split_of_row_5(here):
    def change(rows):
        for number, cells in enumerate(rows):
            cells[3] = "trian" if number == 3 else ("train", "test")[number // 4 % 2]

    return table(here, change, study=TABLE.replace("weight: weight", "split: group"))


def folds_for_a_split(here):
    def change(rows):
        for number, cells in enumerate(rows):
            cells[3] = str(number % 5)

    return table(here, change, header=["path", "class", "subclass", "split", "weight"])


def patients_for_subclasses(here):
    for number, path in enumerate(sorted((here / "images/train/a").rglob("*.png"))):
        (path.parents[1] / f"patient{number:02}").mkdir()
        path.rename(path.parents[1] / f"patient{number:02}" / path.name)


def voted(row, value, study=VOTES):
    def write(here):
        def change(rows):
            for number, cells in enumerate(rows):
                cells[1:] = [str(number % 8)]
            rows[row - 2][1] = value

        return table(here, change, header=["path", "votes"], study=study)

    return write


def override(*settings):
    """Give the case of a good folder and wrong settings."""
    return lambda here: [*folder(here), *(part for setting in settings for part in ("--set", setting))]


def study_text(text):
    def write(here):
        folder(here)
        (here / "study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["run", "study.yaml"]

    return write


def broken(content):
    """Give the case of a folder whose first image file has other bytes."""

    def write(here):
        command = folder(here)
        first(here).write_bytes(content(first(here).read_bytes()) if callable(content) else content)
        return command

    return write


def picture(save):
    """Give the case of a folder with one image that ``save`` writes."""

    def write(here):
        command = folder(here)
        save(first(here))
        return command

    return write


def png_header_of(width, height):
    """Give a PNG whose header claims a size; its pixels are not there."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def after(change, command=folder):
    """Give the case of good data that ``change`` then spoils."""

    def write(here):
        arguments = command(here)
        change(here)
        return arguments

    return write


def outside_link(here):
    target = image(here / "elsewhere.png")
    first(here).unlink()
    first(here).symlink_to(target)


def bytes_of_table(content):
    def write(here):
        command = table(here)
        path = here / "cases.csv"
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
        return command

    return write


def a_million_rows(here):
    table(here)
    with (here / "cases.csv").open("w") as file:
        file.write("path,class,subclass,weight\n")
        for start in range(0, 1_000_000, 1000):
            file.write("".join(f"{k}.png,{'ab'[k % 2]},{'wy'[k % 2]},1\n" for k in range(start, start + 1000)))
    # Row 765432 of a spreadsheet is item 765430 below the header.
    text = (here / "cases.csv").read_text().replace("765430.png,a,w,1", "765430.png,a,w,nan")
    (here / "cases.csv").write_text(text)
    return ["run", "study.yaml"]


def mhist(here, change):
    (here / "study.yaml").write_text("data: {kind: mhist, root: mhist, size: 8}\nseeds: 1\narms: [scratch]\n")
    columns = ["Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition"]
    rows = [[f"{k}.png", ("HP", "SSA")[k % 8 > 3], k % 8, ("train", "test")[k // 8 % 2]] for k in range(128)]
    for row in rows:
        image(here / "mhist/images" / row[0])
    lines = [columns, *rows]
    change(lines)
    with (here / "mhist/annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return ["run", "study.yaml"]


def shards(change=None, spoil=None):
    """Give the case of a shard of 32 images, with members that ``change`` gets in a list, or bytes that are changed."""

    def write(here):
        study = "data: {kind: webdataset, root: shards, size: 8}\nseeds: 1\narms: [scratch]\n"
        (here / "study.yaml").write_text(study)
        members = []
        for k in range(32):
            content = image(here / "one.png", shade=k).read_bytes()
            members += [(f"{k}.png", content), (f"{k}.json", b'{"class": "%c"}' % b"ab"[k % 2])]
        if change:
            change(members)
        (here / "shards").mkdir()
        with tarfile.open(here / "shards/0.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                if not content:
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
                archive.addfile(member, io.BytesIO(content))
        if spoil:
            (here / "shards/0.tar").write_bytes(spoil((here / "shards/0.tar").read_bytes()))
        return ["run", "study.yaml"]

    return write


def dicom_without_pixels(path):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    path.unlink()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID = "p"
    dataset.save_as(path.with_suffix(".dcm"), enforce_file_format=True)


def animated(path):
    frames = [Image.fromarray(np.full((8, 8), shade, np.uint8)) for shade in (0, 200)]
    path.unlink()
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def float_tiff(path):
    path.unlink()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path.with_suffix(".tiff"))


def shared_patient(here):
    for split in ("train", "test"):
        image(here / "images" / split / "a/w" / "person7_1.png")


CASES = {
    # The study file
    "no such study": lambda here: ["run", "nowhere.yaml"],
    "a folder for a study": lambda here: ["run", "."],
    "no YAML": study_text("seeds: 1\n  arms: [skd"),
    "a study that is not UTF-8": study_text(b"positive: \xff\n"),
    "a study that is no mapping": study_text("- seeds\n- 3\n"),
    "a key twice": study_text("seeds: 1\nseeds: 2\n"),
    "an alias (billion laughs)": study_text("a: &a [1]\nb: *a\n"),
    "an unknown key": study_text("sedes: 3\n"),
    "a value of the wrong type": override("student.epochs=true"),
    "a value out of range": override("distillation.temperature=-1"),
    "a learning rate that is no number": override("student.learning_rate=.nan"),
    "an unknown arm": override("arms=[scratch, skt]"),
    "an unknown kind of data": override("data.kind=foldr"),
    "an unknown network": override("student.model=timm:resnet81"),
    "a regular expression that does not compile": override("data.pattern='(?P<group>'"),
    "a regular expression without named groups": override("data.pattern=person"),
    "a fold that is not there": override("data.folds=5", "data.fold=5"),
    "a setting that is none": override("seeds"),
    "soft-votes without votes": override("arms=[scratch, soft-votes]"),
    "a curriculum without votes": override("curriculum.student=true"),
    "a key that this kind of data does not have": override("data.table=cases.csv"),
    # The hierarchy
    "an unknown subclass": override("hierarchy={a: [w, xx], b: [y, z]}"),
    "a subclass left out": override("hierarchy={a: [w], b: [y, z]}"),
    "a subclass in two classes of the study": override("hierarchy={a: [w, x, y], b: [y, z]}"),
    "a class without subclasses": override("hierarchy={a: [w, x, y, z], b: []}"),
    "a class of the data with another one's subclass": override("hierarchy={a: [y, z], b: [w, x]}"),
    "an unknown positive class": override("positive=c"),
    # Folders
    "no root": study_text("data: {kind: folder}\n"),
    "a root that is not there": override("data.root=gone"),
    "a file for a root": override("data.root=study.yaml"),
    "a folder without images": after(lambda here: (here / "empty").mkdir(), override("data.root=empty")),
    "one class": after(lambda here: [shutil.rmtree(here / "images" / split / "b") for split in ("train", "test")]),
    "an image at another depth": after(lambda here: image(here / "images/train/a/stray.png")),
    "two classes that differ by case": after(lambda here: image(here / "images/train/A/w/1.png")),
    "a subclass under two classes": after(lambda here: image(here / "images/train/b/w/1.png")),
    "folders of patients for subclasses": after(patients_for_subclasses),
    "a pattern that matches nothing": override("data.pattern='(?P<group>patient.+)_'"),
    "a patient on two sides": after(shared_patient, override("data.pattern='(?P<group>person.+)_'")),
    "a class missing from the test": after(
        lambda here: [path.unlink() for path in (here / "images/test/b").rglob("*.png")]
    ),
    "a subclass of one image": after(
        lambda here: [path.unlink() for path in sorted((here / "images/train/b/z").glob("*.png"))[1:]]
    ),
    "more training images asked for than there are": override("data.train_images=33"),
    # Images
    "an empty image file": broken(b""),
    "a truncated image": picture(truncated),
    "text for an image": broken(b"not an image at all"),
    "a decompression bomb": broken(png_header_of(60_000, 60_000)),
    "an image of one pixel": picture(lambda path: image(path, size=(1, 1))),
    "an animation": picture(animated),
    "a floating-point image": picture(float_tiff),
    "a DICOM file without pixels": picture(dicom_without_pixels),
    "images of two sizes and no data.size": after(
        lambda here: (image(first(here), size=(9, 8)), (here / "study.yaml").write_text(STUDY.replace(", size: 8", "")))
    ),
    "a link to a file outside the root": after(outside_link),
    "jitter of colour for grey images": override("augment.hue=0.1", "augment.stain=0.05"),
    "right angles for images that are not square": after(
        lambda here: (
            [image(path, size=(8, 9)) for path in (here / "images").rglob("*.png")],
            (here / "study.yaml").write_text(STUDY.replace(", size: 8", "")),
        ),
        override("augment.rotate90=true"),
    ),
    # Tables
    "no table": study_text("data: {kind: table}\n"),
    "a table that is not there": study_text("data: {kind: table, table: gone.csv}\n"),
    "a table of an unknown kind": after(
        lambda here: (here / "cases.docx").write_text("x"), study_text("data: {kind: table, table: cases.docx}\n")
    ),
    "an empty table": bytes_of_table(b""),
    "a table with a header alone": bytes_of_table(b"path,class\n"),
    "a column that is not there": lambda here: table(
        here, study=TABLE.replace("weight: weight", "class: clas")
    ),
    "two columns of one name": lambda here: table(here, header=["path", "class", "class", "group", "weight"]),
    "a row with too many cells": lambda here: table(here, lambda rows: rows[3].append("more")),
    "a row with too few cells": lambda here: table(here, lambda rows: rows[3].pop()),
    "a table that is not UTF-8": bytes_of_table(lambda content: content.replace(b"p7,", b"p\xff,")),
    "a null byte": bytes_of_table(lambda content: content.replace(b"p7,", b"p\0,")),
    "a quote that never closes": bytes_of_table(lambda content: content.replace(b"p7,", b'"p7,')),
    "a path out of the root (..)": cell(5, "path", "../5.png"),
    "an absolute path outside": cell(5, "path", "/etc/hostname"),
    "a missing image": cell(5, "path", "gone.png"),
    "an image listed twice": cell(6, "path", "0.png"),
    "an image listed twice, with two labels": cell(5, "path", "0.png"),
    "no path": cell(5, "path", ""),
    "no label": cell(5, "class", ""),
    "a label that is missing": cell(5, "class", "NA"),
    "two labels that differ by case": cell(5, "class", "B"),
    "a label with a line break": cell(5, "class", "a\nb"),
    "a label that a spreadsheet would run": cell(5, "class", "=cmd()"),
    "a label with a blank at its end": cell(5, "class", "b "),
    "a weight that is no number": cell(5, "weight", "nan"),
    "a negative weight": cell(5, "weight", "-1"),
    "an unknown split": split_of_row_5,
    "a column split that holds folds": folds_for_a_split,
    "one bad row of a million": a_million_rows,
    # Shards
    "no shard": after(lambda here: (here / "shards/0.tar").rename(here / "shards/0"), shards()),
    "a compressed shard": shards(spoil=gzip.compress),
    "a shard cut short": shards(spoil=lambda content: content[:20_000]),
    "a shard with a damaged header": shards(spoil=lambda content: content.replace(b"17.png", b"18.png", 1)),
    "no tar file": shards(spoil=lambda content: b"not a tar file at all" * 100),
    "a key without an image": shards(lambda members: members.pop(10)),
    "a key with two images": shards(lambda members: members.insert(10, ("5.jpg", b"?"))),
    "a key twice in one shard": shards(lambda members: members.append(("5.png", b"?"))),
    "JSON that cannot be read": shards(lambda members: members.__setitem__(11, ("5.json", b"{'class': 1}"))),
    "a sample without a class": shards(lambda members: members.__setitem__(11, ("5.json", b"{}"))),
    "a link in a shard": shards(lambda members: members.__setitem__(10, ("5.png", b""))),
    "a member with a path out of the shard": shards(lambda members: members.append(("../../x\x1b[2J.png", b"?"))),
    # Votes
    "votes that are no number": voted(5, "many"),
    "more votes than annotators": voted(5, "9"),
    "negative votes": voted(5, "-1"),
    "a column of votes that is not there": lambda here: table(here, study=VOTES),
    "no number of annotators": voted(5, "3", study=VOTES.replace(", annotators: 7", "")),
    "a hierarchy beside votes": voted(5, "3", study=VOTES + "hierarchy: {a: [w], b: [y]}\n"),
    "cut points that do not ascend": voted(5, "3", study=VOTES.replace("7}", "7, subclasses: [0.9, 0.8]}")),
    "MHIST without annotations": after(
        lambda here: (here / "mhist/annotations.csv").unlink(), lambda here: mhist(here, lambda lines: None)
    ),
    "MHIST with a column renamed": lambda here: mhist(here, lambda lines: lines[0].__setitem__(3, "Split")),
    "a label against its votes": lambda here: mhist(here, lambda lines: lines[4].__setitem__(1, "SSA")),
    # The run folder
    "other files in the run folder": after(
        lambda here: image(here / "out/holiday.png"), lambda here: [*folder(here), "--out", "out"]
    ),
    "a file for a run folder": lambda here: [*folder(here), "--out", "study.yaml"],
}  # fmt: skip


def documented():
    """Read the page's table: kind -> message."""
    rows = re.findall(r"^\| (.+?) \| `` (.+) `` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {kind: message.replace("\\|", "|") for kind, message in rows}


def everything_in(here):
    return sorted(str(path) for path in here.rglob("*"))


@pytest.mark.parametrize("kind", CASES)
def test_bad_input_gets_its_documented_message_exit_2_and_leaves_nothing(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = CASES[kind](tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    lines = [line for line in shown.err.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0] == f"skd: {documented()[kind]}"
    assert everything_in(tmp_path) == before


def test_the_page_lists_these_kinds_and_no_other():
    assert list(documented()) == list(CASES)
    assert len(CASES) >= 40


def print_table():
    """Print the page's table."""
    for kind, write in CASES.items():
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            sys.stderr = stream = open("stderr.txt", "w+")  # noqa: SIM115
            try:
                cli.main(write(Path(name)))
            except SystemExit as ended:
                code = ended.code
            except BaseException as error:
                code = f"{type(error).__name__}: {error}"
            else:
                code = "none"
            sys.stderr = sys.__stderr__
            stream.seek(0)
            lines = [line for line in stream.read().splitlines() if line]
            problem = "" if code == 2 and len(lines) == 1 else f"  <-- {code}"
            print(f"| {kind} | `` {' // '.join(lines).removeprefix('skd: ').replace('|', chr(92) + '|')} `` |{problem}")
            os.chdir("/")


if __name__ == "__main__":
    print_table()
