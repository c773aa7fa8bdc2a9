"""From a table to samples: what decides labels, hierarchy, splits, groups and stages, and what is refused."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from subclass_kd.bench import Bench
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import load_samples, resolve_rows
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study


@pytest.fixture
def write(tmp_path):
    """Give the function that writes a table of cells with one small image a row, and loads it as a study's data."""

    def make(header, rows, **content):
        for number, _ in enumerate(rows):
            pixels = np.full((8, 8), (37 * number) % 256, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        with (tmp_path / "cases.csv").open("w", newline="") as file:
            lines = [["path", *header], *([f"{number}.png", *row] for number, row in enumerate(rows))]
            csv.writer(file).writerows(lines)
        columns = {name: name for name in ("weight", "difficulty") if name in header}
        data = {"kind": "table", "table": str(tmp_path / "cases.csv"), "columns": columns, **content.pop("data", {})}
        return make_study({"data": data, **content})

    return make


def classes_of(samples):
    """Give class: [subclasses]."""
    members = list(zip(samples.hierarchy.subclasses, samples.hierarchy.parent_indices, strict=True))
    names = enumerate(samples.hierarchy.classes)
    return {name: [subclass for subclass, parent in members if parent == number] for number, name in names}


def refused(study):
    with pytest.raises(UserError) as caught:
        load_samples(study)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


# 48 rows: 4 subclasses in 2 classes, 12 patients of 4 images each.
CASES = [["ab"[k % 4 // 2], "wxyz"[k % 4], f"p{k // 4}"] for k in range(48)]


def test_a_table_becomes_labels_hierarchy_groups_and_splits(write):
    samples = load_samples(write(["class", "subclass", "group"], CASES))
    assert classes_of(samples) == {"a": ["w", "x"], "b": ["y", "z"]}
    assert samples.positive == 1
    assert samples.subclass_labels.tolist() == [k % 4 for k in range(48)]
    assert samples.class_labels.tolist() == [k % 4 // 2 for k in range(48)]
    assert samples.images.shape == (48, 1, 8, 8)
    assert [image[0, 0, 0] for image in samples.images] == [(37 * k) % 256 for k in range(48)]
    patients = [{CASES[row][2] for row in part} for part in (samples.train, samples.validation, samples.test)]
    assert sum(len(part) for part in patients) == 12
    assert len(set.union(*patients)) == 12
    assert samples.describe()["groups"] == {s: len(p) for s, p in zip(("train", "validation", "test"), patients)}  # noqa: B905
    assert samples.describe()["votes"] is None


def test_the_listing_names_every_sample_once_with_its_split(write):
    samples = load_samples(write(["class", "subclass", "group", "weight"], [[*row, 2] for row in CASES]))
    header, *lines = samples.listing()
    assert header == ["sample", "class", "subclass", "split", "group", "weight"]
    assert [line[0] for line in lines] == [f"{number}.png" for number in range(48)]
    assert lines[5] == ["5.png", "a", "x", lines[5][3], "p1", "2.0"]
    for split in ("train", "validation", "test"):
        assert [n for n, line in enumerate(lines) if line[3] == split] == getattr(samples, split).tolist()


def test_groups_that_are_all_blank_are_no_groups(write):
    samples = load_samples(write(["class", "subclass", "group"], [[*row[:2], ""] for row in CASES]))
    assert samples.groups is None


def test_a_study_s_hierarchy_decides_where_the_table_names_no_class(write):
    hierarchy = {"sick": ["z", "w"], "well": ["x", "y"]}
    study = write(["subclass"], [row[1:2] for row in CASES], hierarchy=hierarchy, positive="sick")
    samples = load_samples(study)
    assert classes_of(samples) == hierarchy
    assert samples.positive == 0
    error = refused(write(["subclass"], [row[1:2] for row in CASES]))
    assert (error.where, error.found.split(",")[0]) == ('key "hierarchy"', "none")


def test_regrouping_subclasses_moves_no_image(write):
    found = load_samples(write(["class", "subclass"], [row[:2] for row in CASES]))
    given = load_samples(
        write(["class", "subclass"], [row[:2] for row in CASES], hierarchy={"p": ["z"], "q": list("wxy")})
    )
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(found, split), getattr(given, split))


@pytest.mark.parametrize(
    "hierarchy",
    [{"a": ["y", "z"], "b": ["w", "x"]}, {"A": ["y", "z"], "other": ["w", "x"]}, {"p": ["w", "x", "z"], "a": ["y"]}],
)
def test_a_hierarchy_that_turns_the_tables_classes_over_is_refused(write, hierarchy):
    error = refused(write(["class", "subclass"], [row[:2] for row in CASES], hierarchy=hierarchy))
    name = next(name for name in hierarchy if name in "aA")
    assert error.where == f'key "hierarchy.{name}"'
    assert error.found.startswith('"y", of class "b" in ')
    assert error.expected == 'subclasses of "a" there: w, x'
    assert error.remedy.endswith("give the classes names of their own.")


def test_classes_that_are_the_subclasses_may_be_grouped_under_one_of_their_names(write):
    hierarchy = {"w": ["w", "x", "y"], "z": ["z"]}
    samples = load_samples(write(["class"], [row[1:2] for row in CASES], hierarchy=hierarchy))
    assert classes_of(samples) == hierarchy
    half = {"a": ["w"], "rest": ["x", "y", "z"]}  # what it has of the table's class is the table's
    assert classes_of(load_samples(write(["class", "subclass"], [row[:2] for row in CASES], hierarchy=half))) == half


@pytest.mark.parametrize(
    ("names", "positive", "warned"),
    [
        (("cancer", "normal"), None, True), (("Cancer", "Normal"), None, True), (("1", "0"), None, False),
        (("cancer", "normal"), "normal", False), (("cancer", "normal"), "cancer", False),
        (("normal", "tumour"), None, False),
    ],
)  # fmt: skip
def test_a_negative_class_that_is_positive_by_default_is_warned_of(write, names, positive, warned):
    """The last class is the positive one where none is named: of cancer and normal it would be normal."""
    rows = [[names[row[0] == "b"], row[1]] for row in CASES]
    findings = Findings()
    found = resolve_rows(write(["class", "subclass"], rows, positive=positive), findings)
    assert found.hierarchy.classes[found.positive] == (positive or sorted(names)[-1])
    assert [one.kind for one in findings.kept] == (["negative class as positive"] if warned else [])
    if warned:
        assert f'"{names[1]}", the last class, is the positive one' in findings.kept[0].found


def test_a_subclass_under_two_classes_names_both_places(write):
    rows = [row[:2] for row in CASES]
    rows[7] = ["a", "z"]
    error = refused(write(["class", "subclass"], rows))
    for part in ('"z"', '"a"', '"b"', "row 9", "row 5"):
        assert part in str(error)


VOTES = {"column": "ssa", "annotators": 7, "classes": ["HP", "SSA"]}
VOTED = [[k % 8] for k in range(160)]


def test_votes_decide_class_and_subclass(write):
    samples = load_samples(write(["ssa"], VOTED, votes={**VOTES, "subclasses": "pairs"}))
    assert classes_of(samples) == {"HP": ["HP 0-1/7", "HP 2-3/7"], "SSA": ["SSA 4-5/7", "SSA 6-7/7"]}
    assert samples.subclass_labels.tolist() == [k % 8 // 2 for k in range(160)]
    assert np.allclose(samples.positive_votes, [k % 8 / 7 for k in range(160)])
    summary = samples.describe()["votes"]
    assert summary["class_entropy"] == pytest.approx(1)
    assert summary["subclass_entropy"] == pytest.approx(1)
    assert summary["vote_entropy"] == pytest.approx(2)
    header, *lines = samples.listing()
    assert header[-2:] == ["positive_votes", "annotators"]
    assert lines[13][-2:] == ["5", "7"]


@pytest.mark.parametrize(
    ("fewest", "most", "found"),
    [(0, 5, "0 to 5 votes, and 7 annotators"), (1, 7, "1 to 7 votes, and 7 annotators"), (0, 7, None)],
)
def test_more_annotators_than_ever_voted_are_doubtful(write, fewest, most, found):
    """Of five readers, 3 votes are the majority; of seven they are not."""
    findings = Findings()
    study = write(["ssa"], [[fewest + k % (most - fewest + 1)] for k in range(160)], votes=VOTES)
    resolve_rows(study, findings)
    assert [(one.kind, one.found) for one in findings.kept] == ([("no image with all votes", found)] if found else [])
    assert all(one.where == f'{study.data.table}, column "ssa"' for one in findings.kept)


def test_another_rule_for_subclasses_moves_no_image(write):
    parts = [
        load_samples(write(["ssa"], VOTED, votes={**VOTES, "subclasses": rule})) for rule in ("each", "pairs", [0.8])
    ]
    for split in ("train", "validation", "test"):
        assert all(np.array_equal(getattr(part, split), getattr(parts[0], split)) for part in parts)


def test_a_tie_is_dropped_or_given_to_a_class(write):
    rows = [[k % 5] for k in range(100)]
    votes = {"column": "ssa", "annotators": 4}
    dropped = load_samples(write(["ssa"], rows, votes=votes))
    assert (len(dropped.table), dropped.ties) == (80, 20)
    assert dropped.describe()["votes"]["dropped_ties"] == 20
    assert len(dropped.images) == 80
    kept = load_samples(write(["ssa"], rows, votes={**votes, "tie": "positive"}))
    assert (len(kept.table), kept.ties) == (100, 0)
    assert kept.class_labels.sum() == 60


def test_soft_votes_teach_the_shares_themselves(write, tmp_path):
    study = write(["ssa"], VOTED, votes=VOTES)
    samples = load_samples(study)
    targets = Bench(study, samples, tmp_path, choices=None, seed=0).vote_targets()
    assert targets.shape == (8, len(samples.train), 2)
    shares = torch.tensor([k % 8 / 7 for k in samples.train.tolist()])
    assert torch.allclose(targets[3].softmax(-1)[:, 1], shares, atol=1e-6)
    assert set(targets[0].softmax(-1)[shares == 0, 1].tolist()) == {0.0}


def test_what_votes_are_needed_for_is_refused_without_them(write):
    rows = [row[:2] for row in CASES]
    error = refused(write(["class", "subclass"], rows, arms=["scratch", "soft-votes"]))
    assert (error.where, error.found) == ('key "arms"', '"soft-votes", and no votes')
    error = refused(write(["class", "subclass"], rows, curriculum={"student": True}))
    assert (error.where, error.found) == ('key "curriculum.by"', '"agreement", and no votes')
    error = refused(write(["class", "subclass"], rows, curriculum={"student": True, "by": "difficulty"}))
    assert error.found == '"difficulty", and no column "difficulty"'
    error = refused(write(["ssa"], VOTED, votes=VOTES, hierarchy={"a": ["b"], "c": ["d"]}))
    assert error.where == 'key "hierarchy"'


def test_soft_votes_are_an_arm_where_there_are_votes():
    assert "soft-votes" not in make_study({}).arms
    assert "soft-votes" not in make_study({"arms": "all"}).arms
    for content in ({"data": {"kind": "lidc-votes"}}, {"data": {"kind": "mhist"}}, {"votes": VOTES}):
        assert make_study(content).arms[2] == "soft-votes"


def test_a_curriculum_by_agreement_has_a_stage_for_each_level(write):
    samples = load_samples(write(["ssa"], VOTED, votes=VOTES, curriculum={"teacher": True}))
    level = {0: 0, 7: 0, 1: 1, 6: 1, 2: 2, 5: 2, 3: 3, 4: 3}
    for row in range(160):
        assert samples.stage[row] == (level[row % 8] if row in samples.train else -1)
    assert load_samples(write(["ssa"], VOTED, votes=VOTES)).stage is None


def test_a_first_stage_without_a_class_is_refused(write):
    rows = [[*row[:2], 0 if row[0] == "a" else 1] for row in CASES]
    curriculum = {"student": True, "by": "difficulty", "stages": 2}
    error = refused(write(["class", "subclass", "difficulty"], rows, curriculum=curriculum))
    assert error.where == 'key "curriculum.stages"'
    assert 'no image of class "b" in the first' in error.found


def test_every_column_that_matters_is_in_the_fingerprint(write):
    def mark(header, rows, **content):
        return load_samples(write(header, rows, **content)).fingerprint

    plain = [row[:2] for row in CASES]
    marks = [
        mark(["class", "subclass"], plain),
        mark(["class", "subclass", "weight"], [[*row, 1] for row in plain]),
        mark(["class", "subclass", "weight"], [[*row, 1 + (k == 0)] for k, row in enumerate(plain)]),
        mark(["class", "subclass", "group"], CASES),
        mark(["ssa"], VOTED, votes=VOTES),
        mark(["ssa"], VOTED, votes=VOTES, curriculum={"student": True}),
        mark(["ssa"], VOTED, votes=VOTES, curriculum={"student": True, "stages": 2}),
    ]
    assert len(set(marks)) == len(marks)
    assert mark(["class", "subclass"], plain) == marks[0]


def test_weights_have_a_mean_of_one_over_the_training_images(write, tmp_path):
    study = write(["class", "subclass", "weight"], [[*row[:2], 1 + k] for k, row in enumerate(CASES)])
    samples = load_samples(study)
    weights = Bench(study, samples, tmp_path, choices=None, seed=0).weights
    assert weights[torch.from_numpy(samples.train)].mean().item() == pytest.approx(1)
    assert (weights[5] / weights[2]).item() == pytest.approx(2)


def test_all_that_is_wrong_with_rows_is_found_in_one_pass(write):
    rows = [list(row) for row in CASES]
    rows[3][0], rows[10][1] = "", "=cmd()"
    findings = Findings()
    resolve_rows(write(["class", "subclass", "group"], rows), findings)
    assert findings.errors == 2
    assert "1 more error: `skd check` lists them." in str(refused(write(["class", "subclass", "group"], rows)))


def test_a_column_of_weights_is_used_only_where_the_study_names_it(write):
    """It may hold kilograms."""
    rows = [[*row[:2], 60 + k] for k, row in enumerate(CASES)]
    study = write(["class", "subclass", "weight"], rows, data={"columns": {}})
    assert load_samples(study).table.weights is None


def test_a_class_whose_training_weights_are_all_zero_is_refused(write):
    rows = [[*row[:2], int(row[0] == "a")] for row in CASES]
    error = refused(write(["class", "subclass", "weight"], rows))
    assert error.found == 'only weights of 0 in the training images of class "b"'


def test_keys_without_effect_are_told(write):
    findings = Findings()
    rows = [[*row[:2], ("train", "validation", "test")[k // 4 % 3]] for k, row in enumerate(CASES)]
    changes = {"data": {"test": 0.3, "validation": 0.3}, "curriculum": {"stages": 3}}
    resolve_rows(write(["class", "subclass", "split"], rows, **changes), findings)
    told = [finding.where for finding in findings.kept]
    assert told == ['key "data.test"', 'key "data.validation"', 'key "curriculum"']
    assert findings.errors == 0


# LIDC


def test_the_lidc_study_splits_by_patient_and_has_the_votes_of_its_owners():
    samples = load_samples(make_study({"data": {"kind": "lidc-votes"}}))
    assert samples.images.shape == (1204, 1, 48, 48)
    assert samples.ties == 173
    assert classes_of(samples) == {
        "benign": ["benign 0", "benign 1/4", "benign 1/3"],
        "malignant": ["malignant 2/3", "malignant 3/4", "malignant 1"],
    }
    sides = [set(samples.groups[part]) for part in (samples.train, samples.validation, samples.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 634
    assert [len(part) for part in (samples.train, samples.validation, samples.test)] == [770, 192, 242]
    counts = {
        row["positive"] * 10 + row["annotators"]: sum(row["images"].values())
        for row in samples.describe()["votes"]["counts"]
    }
    assert counts == {3: 292, 4: 329, 13: 108, 14: 208, 23: 53, 33: 28, 34: 135, 44: 51}


def test_five_folds_test_every_nodule_once():
    tested = []
    for fold in range(5):
        samples = load_samples(make_study({"data": {"kind": "lidc-votes", "folds": 5, "fold": fold}}))
        tested += samples.test.tolist()
    assert sorted(tested) == list(range(1204))
