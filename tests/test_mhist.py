"""MHIST's folder: what is read from it, here from a synthetic one of the same form, and what is refused."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subclass_kd.data.findings import Findings
from subclass_kd.data.mhist import CLASSES, read
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

SPEC = importlib.util.spec_from_file_location("synthetic_mhist", Path(__file__).with_name("synthetic_mhist.py"))
synthetic_mhist = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(synthetic_mhist)

COLUMNS = list(synthetic_mhist.COLUMNS)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Give a synthetic folder of 157 images."""
    return synthetic_mhist.write_synthetic_mhist(tmp_path_factory.mktemp("mhist"), scale=0.05, size=64)


@pytest.fixture
def folder(tmp_path):
    """Give a folder of four images with one line of annotations each."""
    (tmp_path / "images").mkdir()
    for name in "abcd":
        (tmp_path / f"images/{name}.png").write_bytes(b"x")
    annotate(tmp_path, ["a.png", "HP", 0, "train"], ["b.png", "HP", 3, "test"], ["c.png", "SSA", 4, "train"])
    return tmp_path


def annotate(folder, *rows, header=COLUMNS):
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def load(root, **content):
    findings = Findings()
    study = {"data": {"kind": "mhist", "root": str(root), **content.pop("data", {})}, **content}
    return read(make_study(study), findings), findings


def refused(root, **content):
    with pytest.raises(UserError) as caught:
        load(root, **content)
    return caught.value


def test_votes_split_and_names_are_read(folder):
    table, findings = load(folder)
    assert not findings.kept
    assert CLASSES == ("HP", "SSA")
    assert (table.where, table.root) == (f"{folder}/annotations.csv", folder)
    assert table.names == ["images/a.png", "images/b.png", "images/c.png"]
    assert table.splits == ["train", "test", "train"]
    assert table.votes.positive.tolist() == [0, 3, 4]
    assert table.votes.annotators.tolist() == [7, 7, 7]
    assert table.classes is table.subclasses is table.groups is table.weights is None
    assert table.rows.tolist() == [2, 3, 4]


def test_a_folder_of_images_that_is_a_link_inside_the_root_will_do(folder):
    (folder / "images").rename(folder / "pictures")
    (folder / "images").symlink_to("pictures")
    assert len(load(folder)[0]) == 3


@pytest.mark.parametrize(
    ("row", "column", "kind", "found"),
    [
        (["d.png", "HP", 4, "train"], 1, "class against votes", '"HP" with 4 of 7 votes for "SSA"'),
        (["d.png", "SSA", 0, "train"], 1, "class against votes", '"SSA" with 0 of 7 votes for "SSA"'),
        (["d.png", "TA", 0, "train"], 1, "class without votes", '"TA"'),
        (["d.png", "", 0, "train"], 1, "empty label", "an empty cell"),
        (["d.png", "SSA", 8, "train"], 2, "more votes than annotators", "8 votes"),
        (["d.png", "SSA", "all", "train"], 2, "vote count", '"all"'),
        (["d.png", "HP", 1, "training set"], 3, "split", '"training set"'),
        (["d.png", "HP", 1, "val"], 3, "split", "a validation split"),
        (["", "HP", 1, "train"], 0, "empty path", "an empty cell"),
        (["e.png", "HP", 1, "train"], 0, "missing file", 'no file "images/e.png"'),
        (["D.PNG", "HP", 1, "train"], 0, "missing file", 'no file "images/D.PNG"'),
        (["../../x.png", "HP", 1, "train"], 0, "path outside the root", '"../x.png"'),
        (["a.png", "HP", 0, "train"], 0, "listed twice", '"images/a.png", which row 2 lists too'),
        (["a.png", "HP", 1, "train"], 0, "listed with other labels", '"images/a.png", which row 2 lists'),
    ],
)
def test_a_wrong_cell_is_named_by_row_and_column(folder, row, column, kind, found):
    annotate(folder, ["a.png", "HP", 0, "train"], ["b.png", "SSA", 7, "test"], row)
    table, findings = load(folder)
    assert findings.counts == {("error", kind): 1}
    assert findings.kept[0].where == f'{folder}/annotations.csv, row 4, column "{COLUMNS[column]}"'
    assert findings.kept[0].found.startswith(found)
    assert table.names == ["images/a.png", "images/b.png"]


def test_a_missing_column_or_part_of_the_folder_is_refused(folder):
    annotate(folder, ["a.png", "HP", 0], header=[*COLUMNS[:2], "Votes"])
    error = refused(folder)
    assert error.where == f"{folder}/annotations.csv, row 1"
    assert error.found == f'no column "{COLUMNS[2]}" or "Partition"'
    (folder / "annotations.csv").unlink()
    assert refused(folder).found == "no annotations.csv"
    (folder / "images").rename(folder / "pictures")
    assert refused(folder).found == "no images"
    assert refused(folder / "nowhere").where == 'key "data.root"'


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"data": {"table": "a.csv"}}, "data.table"),
        ({"data": {"columns": {"class": "x"}}}, "data.columns"),
        ({"data": {"pattern": "(?P<group>x)"}}, "data.pattern"),
        ({"votes": {"column": "x"}}, "votes.column"),
        ({"votes": {"annotators": 7}}, "votes.annotators"),
        ({"votes": {"columns": ["x"]}}, "votes.columns"),
        ({"votes": {"positive": ["x"]}}, "votes.positive"),
        ({"votes": {"classes": ["x", "y"]}}, "votes.classes"),
    ],
)
def test_what_the_folder_says_is_refused_in_the_study(folder, content, key):
    assert refused(folder, **content).where == f'key "{key}"'


def test_ties_and_subclasses_may_be_set_also_in_a_study_that_names_every_default(folder):
    votes = {"tie": "negative", "subclasses": "pairs"}
    assert len(load(folder, votes=votes)[0]) == 3
    written = make_study({"data": {"kind": "mhist", "root": str(folder)}, "votes": votes}).model_dump(mode="json")
    assert len(read(make_study(written), Findings())) == 3


# The synthetic folder


def test_the_synthetic_folder_is_read_without_a_finding_and_has_its_vote_counts(drawn):
    table, findings = load(drawn)
    assert not findings.kept
    wanted = synthetic_mhist.scaled_counts(0.05)
    assert wanted["train"].tolist() == [27, 25, 15, 10, 8, 5, 8, 11]
    for split, counts in wanted.items():
        rows = np.array([name == split for name in table.splits])
        assert np.bincount(table.votes.positive[rows], minlength=8).tolist() == counts.tolist()


def test_the_full_counts_are_those_of_mhist():
    counts = synthetic_mhist.scaled_counts(1)
    assert {split: int(values.sum()) for split, values in counts.items()} == {"train": 2175, "test": 977}
    assert [int(counts["train"][:4].sum()), int(counts["train"][4:].sum())] == [1545, 630]
    assert [int(counts["test"][:4].sum()), int(counts["test"][4:].sum())] == [617, 360]
    assert min(values.min() for values in synthetic_mhist.scaled_counts(0.001).values()) == 2


def test_synthetic_images_are_rgb_png_that_differ_and_their_names_say_what_they_are(drawn):
    files = sorted((drawn / "images").iterdir())
    assert len(files) == len({path.read_bytes() for path in files}) == 157
    assert all(path.name.startswith("synthetic_") for path in files)
    with Image.open(files[0]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


def test_the_same_seed_draws_the_same_folder(tmp_path):
    folders = [
        synthetic_mhist.write_synthetic_mhist(tmp_path / str(i), scale=0, size=16, seed=seed)
        for i, seed in enumerate((3, 3, 4))
    ]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert contents[0] == contents[1] != contents[2]
    assert len(contents[0]) == 33


def test_synthetic_classes_can_be_told_apart_by_the_teeth_of_an_edge(drawn):
    """More votes for SSA mean more and deeper teeth: the edge between glass and tissue is longer."""
    table, _ = load(drawn)
    lengths = []
    for name in table.names:
        with Image.open(drawn / name) as image:
            glass = np.asarray(image.convert("L")) > 200
        lengths.append((glass[:, 1:] != glass[:, :-1]).sum())
    lengths, votes = np.array(lengths), table.votes.positive
    ranks = [np.mean(length > lengths[votes == 0]) for length in lengths[votes == 7]]
    assert np.mean(ranks) > 0.95  # area under the ROC curve, unanimous images
    assert np.corrcoef(lengths, votes)[0, 1] > 0.7


def test_the_script_asks_for_a_folder(python):
    done = python(synthetic_mhist.__file__)
    assert done.returncode == 1
    assert "FOLDER" in done.stderr
