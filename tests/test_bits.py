"""Label bits of a table of predictions: those of the same numbers in Python, and one line for what is wrong."""

import json

import numpy as np
import pytest
import torch

from subclass_kd import SubclassHierarchy, information
from subclass_kd.bits import bits_of
from subclass_kd.errors import UserError

PARENTS = {"virus": "sick", "=healthy": "well", "bacteria": "sick", "tired": "well"}
HEADER = "path,class,subclass,class: sick,subclass: virus,subclass: bacteria,subclass: tired,subclass: =healthy"


@pytest.fixture
def table(tmp_path):
    """Write 60 rows of noisy predictions; give the file, its log-probabilities (60, 4) and labels as in HEADER."""
    names = ["virus", "bacteria", "tired", "=healthy"]
    random = np.random.default_rng(0)
    labels = np.arange(60) % 4
    logits = random.normal(0, 1, (60, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 6)
    # As skd predict writes it: a cell that a spreadsheet would run has an apostrophe before it.
    shown = [name.replace("=", "'=") for name in names]
    rows = [
        f"a{n}.png,{PARENTS[names[k]]},{shown[k]},0.5,{','.join(map(str, row))}"
        for n, (k, row) in enumerate(zip(labels, probabilities, strict=True))
    ]
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path, torch.from_numpy(probabilities).log(), torch.from_numpy(labels)


def test_the_bits_are_those_of_the_same_numbers_in_python(table, skd, tmp_path):
    path, log_probs, labels = table
    names = ["virus", "bacteria", "tired", "=healthy"]
    hierarchy = SubclassHierarchy(["sick", "well"], {name: PARENTS[name] for name in names})
    expected = information.label_bits(log_probs, labels, hierarchy)
    found = bits_of(path)
    assert found["images"] == 60
    assert {row["name"]: row["class"] for row in found["hierarchy"]["subclasses"]} == PARENTS
    for name, value in expected._asdict().items():
        assert found[name] == pytest.approx(value, abs=1e-12)
    assert expected.ceiling == pytest.approx(1, abs=1e-12)
    told = skd("bits", path, "--json", cwd=tmp_path)
    assert json.loads(told.stdout) == found
    shown = skd("bits", path, cwd=tmp_path)
    assert f"{expected.mutual_information:.2f}" in shown.stdout
    assert "Label bits of 60 images, 4 subclasses" in shown.stdout


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("path,class,", "path,klass,", r'row 1: found no column "class"; expected columns'),
        ("subclass: virus", "virus", r'row 2, column "subclass": found "virus", and no column "subclass: virus"'),
        ("a0.png,sick", "a0.png,", r'row 2, column "class": found an empty cell; expected the true class'),
        ("a4.png,sick", "a4.png,well", r'row 6, column "class": found "virus" in "well", elsewhere in "sick"'),
        ("a1.png,sick,bacteria,0.5,0.", "a1.png,sick,bacteria,0.5,x", r'row 3, column "subclass: virus": found "x'),
        ("a1.png,sick,bacteria,0.5,0.", "a1.png,sick,bacteria,0.5,9.", r'found "9\.\d+"; expected a probability'),
        ("a1.png,sick,bacteria,0.5,0.", "a1.png,sick,bacteria,0.5,0.9", r"row 3: found probabilities that add up to"),
        (",tired,", ",'=healthy,", r'found a column "subclass: tired", and no row of this subclass'),
        (",well,", ",sick,", r'found one class, "sick"; expected at least two'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table, before, after, message):
    path, _, _ = table
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(UserError, match=message):
        bits_of(path)


def test_the_command_refuses_in_one_line(skd, tmp_path):
    done = skd("bits", "gone.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "skd: gone.csv: found no such file; expected a table of predictions. Check the path.\n"
