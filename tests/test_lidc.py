"""The embedded votes of radiologists: what is kept, and which keys do not fit them."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from subclass_kd.config import Votes
from subclass_kd.data.findings import Findings
from subclass_kd.data.lidc import CLASSES, EMBEDDED, read
from subclass_kd.data.splits import make_splits
from subclass_kd.data.table import number
from subclass_kd.data.votes import agreement, resolve
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared/data/lidc_nodule_votes.npz"


def study(**content):
    return make_study({"data": {"kind": "lidc-votes", **content.pop("data", {})}, **content})


@pytest.fixture(scope="module")
def table():
    findings = Findings()
    read_table = read(study(), findings)
    assert findings.counts == {}
    return read_table


def test_nodules_of_three_readers_and_more_are_kept(table):
    assert len(table) == 1377
    assert table.images.shape == (1377, 1, 48, 48)
    assert table.images.dtype == np.uint8
    assert len(set(table.names)) == 1377
    assert len(set(table.groups)) == 689
    assert max(Counter(table.groups).values()) == 12
    assert (table.splits, table.classes, table.subclasses, table.difficulty) == (None, None, None, None)
    assert table.place(0) == f"the embedded LIDC votes, {table.names[0]}"


def test_votes_are_those_of_the_collection_s_description(table):
    votes = table.votes
    counts = {n: np.bincount(votes.positive[votes.annotators == n]).tolist() for n in (3, 4)}
    assert counts == {4: [329, 208, 173, 135, 51], 3: [292, 108, 53, 28]}
    assert set(votes.annotators.tolist()) == {3, 4}
    assert votes.positive.dtype == votes.annotators.dtype == np.int64


def test_pixels_are_shares_of_the_readers(table):
    for annotators in (3, 4):
        values = set(np.unique(table.images[table.votes.annotators == annotators]).tolist())
        assert values == {round(255 * k / annotators) for k in range(annotators + 1)}
    assert table.images.max(axis=(1, 2, 3)).min() > 0  # no nodule without an outline


def test_classes_and_subclasses_by_majority_and_agreement(table):
    found = resolve(table.votes, Votes(), CLASSES)
    assert found.hierarchy == {
        "benign": ["benign 0", "benign 1/4", "benign 1/3"],
        "malignant": ["malignant 2/3", "malignant 3/4", "malignant 1"],
    }
    assert found.kept.sum() == 1377 - 173
    kept = Counter(name for name in found.subclasses if name)
    assert kept == {
        "benign 0": 329 + 292, "benign 1/4": 208, "benign 1/3": 108,
        "malignant 2/3": 53, "malignant 3/4": 135, "malignant 1": 51 + 28,
    }  # fmt: skip
    assert len({group for group, is_kept in zip(table.groups, found.kept, strict=True) if is_kept}) == 634
    assert np.unique(agreement(table.votes)).tolist() == [0.5, 2 / 3, 0.75, 1.0]


def test_no_patient_is_on_two_sides_of_the_split(table):
    found = resolve(table.votes, Votes(), CLASSES)
    used = table.take(np.flatnonzero(found.kept))
    labels = number([name for name in found.subclasses if name])[0]
    splits = make_splits(study().data, labels, None, used.groups, used.where, Findings())
    sides = [{used.groups[row] for row in rows} for rows in (splits.train, splits.validation, splits.test)]
    assert len(set().union(*sides)) == sum(len(side) for side in sides) == 634
    assert [len(splits.train), len(splits.validation), len(splits.test)] == pytest.approx([771, 193, 241], abs=3)
    for rows, share in ((splits.train, 0.64), (splits.validation, 0.16), (splits.test, 0.2)):
        assert np.bincount(labels[rows]) / np.bincount(labels) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"data": {"root": "images"}}, 'key "data.root"'),
        ({"data": {"table": "votes.csv"}}, 'key "data.table"'),
        ({"data": {"columns": {"path": "file"}}}, 'key "data.columns"'),
        ({"data": {"pattern": r"(?P<group>\d+)"}}, 'key "data.pattern"'),
        ({"votes": {"column": "votes"}}, 'key "votes.column"'),
        ({"votes": {"annotators": 4}}, 'key "votes.annotators"'),
        ({"votes": {"columns": ["a", "b"]}}, 'key "votes.columns"'),
        ({"votes": {"positive": ["x"]}}, 'key "votes.positive"'),
        ({"votes": {"tie": "drop", "classes": ["a", "b"]}}, 'key "votes.classes"'),
    ],
)
def test_a_key_that_these_data_have_no_use_for_is_refused(content, where):
    with pytest.raises(UserError) as caught:
        read(study(**content), Findings())
    assert caught.value.where == where
    assert caught.value.found == "a value, and data.kind: lidc-votes"
    assert "Remove it." in str(caught.value)


def test_ties_and_subclasses_may_be_set():
    assert len(read(study(votes={"tie": "positive", "subclasses": [1.0]}), Findings())) == 1377


# What is embedded


def test_the_embedded_file_is_small_and_has_its_notices():
    assert EMBEDDED.stat().st_size < 300_000
    notice = " ".join(EMBEDDED.with_name("lidc_nodule_votes.LICENSE.txt").read_text("utf-8").split())
    for needed in (
        "Creative Commons Attribution 3.0", "https://creativecommons.org/licenses/by/3.0/", "Armato",
        "doi.org/10.7937/K9/TCIA.2015.LO9QL9SX", "What was changed", "not biopsies",
        "acknowledge the National Cancer Institute and the Foundation for the National Institutes of Health",
    ):  # fmt: skip
        assert needed in notice


def test_the_script_makes_the_embedded_file_from_the_larger_one(tmp_path):
    if not SHARED.is_file():
        pytest.skip(f"needs {SHARED.name}, which is not part of the project")
    call = "import embed_lidc, pathlib, sys; embed_lidc.main(*map(pathlib.Path, sys.argv[1:]))"
    for name in ("first.npz", "second.npz"):
        command = [sys.executable, "-c", call, str(SHARED), str(tmp_path / name)]
        subprocess.run(command, check=True, cwd=ROOT / "scripts", capture_output=True)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    # Arrays rather than bytes: another zlib packs them otherwise.
    with np.load(tmp_path / "first.npz") as made, np.load(EMBEDDED) as kept, np.load(SHARED) as larger:
        assert made.files == kept.files == ["images", "malignancy", "patient"]
        assert all(np.array_equal(made[name], kept[name]) for name in kept.files)
        assert np.array_equal(kept["images"][:, 0], larger["mask48"])
        assert np.array_equal(kept["patient"], larger["patient"])
