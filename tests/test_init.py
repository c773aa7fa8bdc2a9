"""What skd init finds in data of many layouts, and that what it writes is a study that runs as it is."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from subclass_kd import expected_time, init
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import resolve_rows
from subclass_kd.errors import UserError
from subclass_kd.expected_time import expected_seconds
from subclass_kd.file_names import find_patterns
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.study_file import load_study, make_study

SHARED = Path(__file__).parents[2] / "shared/data/chest_xray"


def image(path, number=0, size=(16, 16), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)).save(path)


def folder(root, names, **form):
    for number, name in enumerate(names):
        image(root / name, number, **form)
    return root


def written(data, tmp_path, measure=False):
    """Write a study without timing the networks, hold it to what it should be, and give (text, study)."""
    text = init.init(data, measure)
    path = tmp_path / "written.yaml"
    path.write_text(text, "utf-8")
    study = load_study(path)
    assert text.endswith("\n")
    assert not any(line != line.rstrip() or len(line) > 120 for line in text.splitlines() if line.startswith("#"))
    findings = Findings()
    resolve_rows(study, findings)
    findings.raise_first()
    return text, study


def sides_of(study):
    rows = resolve_rows(study, Findings())
    return [set(rows.groups[part].tolist()) for part in (rows.train, rows.validation, rows.test)]


def plain(text):
    return yaml.safe_load(text)


# Folders

SPLIT_CLASS_SUBCLASS = [
    f"{split}/{name}/{k}.png" for split in ("train", "test") for name in ("a/w", "a/x", "b/y", "b/z") for k in range(12)
]


def test_folders_of_split_class_and_subclass(tmp_path):
    text, study = written(folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS), tmp_path)
    assert plain(text)["hierarchy"] == {"a": ["w", "x"], "b": ["y", "z"]}
    assert (study.data.kind, study.data.root, study.data.pattern) == ("folder", tmp_path / "data", [])
    assert (study.data.size, study.data.channels, study.positive) == (16, 1, "b")
    assert (study.teacher.model, study.student.model) == ("small:resnet", "small:convnet")
    assert (study.teacher.epochs, study.student.epochs) == (60, 120)
    assert len(study.arms) == 6
    assert "# split/class/subclass/image" in text
    assert "w  # 24 images" in text
    assert "test: 0.2" not in text
    assert "96 images (38 train, 10 validation, 48 test)" in text.replace("\n# ", " ")


def test_a_handful_of_validation_images_is_told(tmp_path):
    names = [*SPLIT_CLASS_SUBCLASS, *(f"val/{name}/{k}.png" for name in ("a/w", "a/x", "b/y", "b/z") for k in range(4))]
    text, _ = written(folder(tmp_path / "data", names), tmp_path)
    told = text.replace("\n  # ", " ")
    assert '8 validation images of class "a" and 8 validation images of class "b". Merge the validation split' in told
    assert "validation: 0.2" not in text
    text, _ = written(folder(tmp_path / "more", [f"{name}/{k}.png" for name in "ab" for k in range(130)]), tmp_path)
    assert "validation images of" not in text


def test_folders_of_classes_alone_have_nothing_to_distill(tmp_path):
    names = [f"{name}/{k}.png" for name in ("normal", "odd") for k in range(20)]
    text, study = written(folder(tmp_path / "data", names), tmp_path)
    assert study.hierarchy == {"normal": ["normal"], "odd": ["odd"]}
    assert study.arms == ["scratch", "kd"]
    assert "No subclasses were found" in text
    assert "skd is the same as kd" in text.replace("\n# ", " ")
    assert "test: 0.2" in text
    assert "No patients (groups) were found" in text


def test_a_positive_class_is_not_the_normal_one(tmp_path):
    names = [f"{name}/{k}.png" for name in ("abnormal", "normal") for k in range(20)]
    assert written(folder(tmp_path / "data", names), tmp_path)[1].positive == "abnormal"


def test_names_that_yaml_reads_otherwise_are_quoted(tmp_path):
    classes = {"no": ["1", "1e3"], "off": ["a: b", "it's #2"], "~": ["true", "0x1F"], "1.0": ["x - y", "2024-01-01"]}
    names = [f"{name}/{member}/{k}.png" for name, members in classes.items() for member in members for k in range(12)]
    _, study = written(folder(tmp_path / "dir: #1", names), tmp_path)
    assert {name: sorted(members) for name, members in study.hierarchy.items()} == {
        name: sorted(members) for name, members in classes.items()
    }
    assert study.data.root == tmp_path / "dir: #1"


def test_large_images_of_colour_and_several_sizes(tmp_path):
    root = folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS[:-10], size=(90, 120), mode="RGB")
    folder(root, SPLIT_CLASS_SUBCLASS[-10:], size=(80, 80))
    text, study = written(root, tmp_path)
    assert (study.data.size, study.data.channels) == (64, 3)
    assert "stored are 90 x 120 and 1 other size." in text.replace("\n  # ", " ")


def test_with_a_gpu_large_images_stay_large(tmp_path, monkeypatch):
    monkeypatch.setattr(init, "_has_gpu", lambda: True)
    monkeypatch.setattr(init, "expected_seconds", lambda *_: 5000.0)
    root = folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS, size=(240, 230))
    text, study = written(root, tmp_path, measure=True)
    assert study.data.size == 224
    assert (study.teacher.model, study.student.model) == ("timm:resnet18", "timm:mobilenetv3_small_050")
    assert (study.teacher.learning_rate, study.student.learning_rate) == (0.001, 0.001)
    assert "Expected time of skd run on this machine: about 83 minutes." in text


def test_sixteen_bits_are_told_their_white(tmp_path):
    root = folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS)
    for path in root.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)
    text, study = written(root, tmp_path)
    assert study.data.white == 4095
    assert "the largest seen is about 4,112" in text


def test_errors_in_the_data_are_told_in_the_study(tmp_path):
    root = folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS)
    (root / "train/a/w/0.png").write_bytes(b"")
    text = init.init(root, measure=False)
    assert "# Errors in the data: 1. A run refuses them; skd check lists them." in text


# File names


def chest(count=30):
    """Names as of the chest X-rays: numbers of bacterial and viral patients are independent of each other."""
    for split, start in (("train", 0), ("test", count)):
        for kind, shift in (("bacteria", 0), ("virus", count)):
            for k in range(count):
                patient = (start + shift + k // 2) % (2 * count) + 1
                yield f"{split}/PNEUMONIA/person{patient}_{kind}_{start + k}.jpeg"
        for k in range(count):
            yield f"{split}/NORMAL/{'NORMAL2-' * (k % 4 > 1)}IM-{start + k // 2 + 100:04}-000{k % 2}.jpeg"


def test_subclass_and_patient_are_found_in_file_names(tmp_path):
    text, study = written(folder(tmp_path / "data", chest()), tmp_path)
    assert study.hierarchy == {"NORMAL": ["NORMAL"], "PNEUMONIA": ["bacteria", "virus"]}
    assert sorted(study.data.pattern) == sorted(
        [r"^(?P<group>person\d+_(?P<subclass>bacteria|virus))", r"^(?P<group>NORMAL2-IM-\d+)", r"^(?P<group>IM-\d+)"]
    )
    assert "on both sides of the given split" in text.replace("\n  # ", " ")
    rows = resolve_rows(study, Findings())
    sides = [set(rows.groups[part]) for part in (rows.train, rows.validation, rows.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))


PATIENTS = [f"{name}/patient{k:03}/slice{i}.png" for k in range(24) for name in ("ab"[k % 2],) for i in range(5)]


def test_a_folder_for_each_patient_is_a_group_and_no_subclass(tmp_path):
    """As subclasses, all patients would be in training and in test."""
    text, study = written(folder(tmp_path / "data", PATIENTS), tmp_path)
    assert study.data.pattern == ["^[^/]+/(?P<group>[^/]+)/"]
    assert study.hierarchy == {"a": ["a"], "b": ["b"]}
    assert "# class/patient/image" in text
    assert "folders such as a/patient000; 24 groups of 120 images, the largest of 5." in text.replace("\n  # ", " ")
    assert "two classes" not in text
    sides = sides_of(study)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 24


@pytest.mark.parametrize(
    ("form", "pattern", "levels"),
    [
        ("{name}/{k:02}/{i}.png", "^[^/]+/(?P<group>[^/]+)/", "class/patient/image"),
        ("{name}/{sub}/P{k}/{i}.png", "^(?:[^/]+/){2}(?P<group>[^/]+)/", "class/subclass/patient/image"),
        ("{split}/{name}/P{k}/{i}.png", "^(?:[^/]+/){2}(?P<group>[^/]+)/", "split/class/patient/image"),
        ("{name}/case {k}/series 1/{i}.png", "^[^/]+/(?P<group>[^/]+)/", "class/patient/image"),
    ],
)
def test_folders_of_patients_are_found_at_any_level(tmp_path, form, pattern, levels):
    rows = [(k, i) for k in range(48) for i in range(3)]
    names = [
        form.format(k=k, i=i, name="ab"[k % 2], sub=f"{'ab'[k % 2]}{k // 2 % 2}", split=("train", "test")[k // 2 % 2])
        for k, i in rows
    ]
    text, study = written(folder(tmp_path / "data", names), tmp_path)
    assert study.data.pattern == [pattern]
    assert f"# {levels}\n" in text
    sides = sides_of(study)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 48
    assert sum(map(len, study.hierarchy.values())) == (4 if "{sub}" in form else 2)


def test_below_the_folder_of_a_patient_names_may_tell_subclasses(tmp_path):
    names = [f"a/p{k}/s/{('mild', 'severe')[k % 2]}_{i}.png" for k in range(24) for i in range(3)]
    names += [f"b/p{k}/s/{i}.png" for k in range(12, 36) for i in range(3)]
    text, study = written(folder(tmp_path / "data", names), tmp_path)
    start = "^[^/]+/(?P<group>[^/]+)/"
    assert study.data.pattern == [f"{start}[^/]+/(?P<subclass>mild|severe)", start]
    assert study.hierarchy == {"a": ["mild", "severe"], "b": ["b"]}
    assert "12 of them are in two classes or more" in text.replace("\n  # ", " ")
    sides = sides_of(study)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 36


def test_folders_of_patients_on_both_sides_of_the_given_split_are_told(tmp_path):
    names = [f"{split}/{name}" for split in ("train", "test") for name in PATIENTS[:60]]
    text = init.init(folder(tmp_path / "data", names), measure=False)
    assert "12 groups are on both sides of the given split, which is an error" in text.replace("\n  # ", " ")
    assert "# Errors in the data: 12." in text


def find(names, split=False):
    """Give patterns for names such as "train/class/file"."""
    parts = [name.split("/") for name in names]
    return find_patterns(names, [part[-2] for part in parts], [part[0] for part in parts] if split else None)


def test_without_a_torn_split_the_number_alone_is_the_patient():
    names = [f"sick/person{k // 3}_{('mild', 'severe')[k % 2]}_{k}.png" for k in range(60)]
    assert find(names).expressions == [r"^(?P<group>person\d+)_(?P<subclass>mild|severe)"]


def test_a_subclass_may_stand_before_the_patient():
    names = [f"sick/{('mild', 'severe')[k % 2]}_p{k // 4}_{k}.png" for k in range(60)]
    assert find(names).expressions == [r"^(?P<subclass>mild|severe)_(?P<group>p\d+)"]


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}/{k}.png" for name in "ab" for k in range(30)],  # counted anew in each class
        [f"{name}/{sub}/{k}.png" for name in "ab" for sub in "xy" for k in range(30)],  # and in each subclass
        [f"{split}/{name}/img_{k}.png" for split in ("train", "test") for name in "ab" for k in range(30)],
        [f"{name}/{word} ({k}).png" for name, word in (("b", "benign"), ("m", "malignant")) for k in range(30)],
        [f"a/{'abcdefghijklmnopqrstuvwxyz'[k % 26] * 3}.png" for k in range(26)],  # words of many values
        [f"a/{k * 7919 % 2**32:08x}{k * 104729 % 2**32:08x}.png" for k in range(300)],  # random digits
        [f"{name}/{side}_{k}.png" for name in "ab" for side in ("left", "right") for k in range(30)],  # in both classes
        [f"a/{('L', 'R')[k % 2]}{k}.png" for k in range(40)],  # single letters
        [f"a/{'rare' if k < 4 else 'common'}_{k}.png" for k in range(100)],  # fewer than five
    ],
    ids=[
        "count",
        "count in subclasses",
        "count in splits",
        "count after word",
        "words",
        "random",
        "both classes",
        "letters",
        "rare",
    ],
)
def test_what_is_no_subclass_and_no_patient_is_left_out(names):
    found = find(names, split=names[0].startswith("train"))
    assert (found.expressions, found.notes) == ([], [])


def test_a_number_with_a_fifth_of_the_files_is_a_site_and_not_a_patient():
    names = [f"a/site{k % 3}_p{k // 6:03}_{k}.png" for k in range(120)]
    [expression] = find(names).expressions
    assert expression == r"^(?P<group>site\d+_p\d+)"
    match = re.match(expression, "site2_p017_105.png")
    assert match["group"] == "site2_p017"


def test_a_pattern_of_one_class_hides_no_subclass_of_another():
    names = [f"well/p{k // 3}_plain_{k}.png" for k in range(90)]
    names += [f"sick/p{k // 3}_{('mild', 'severe')[k % 2]}_{k}.png" for k in range(60)]
    assert find(names).expressions == [r"^(?P<group>p\d+)_(?P<subclass>mild|severe)", r"^(?P<group>p\d+)"]


def test_patients_on_both_sides_of_the_given_split_are_told():
    names = [f"{split}/a/p{k // 3}_{k}.png" for split in ("train", "test") for k in range(60)]
    found = find(names, split=True)
    assert found.expressions == [r"^(?P<group>p\d+)"]
    assert found.notes[0].startswith("20 groups are on both sides of the given split, which is an error")


def test_a_rare_shape_is_covered_by_the_pattern_of_its_like():
    names = [f"sick/p{k // 3}_{('mild', 'severe')[k % 2]}_{k}.png" for k in range(150)] + ["sick/p3_mild_1_2.png"]
    assert find(names).expressions == [r"^(?P<group>p\d+)_(?P<subclass>mild|severe)"]


def test_names_with_the_marks_of_regular_expressions():
    names = [f"sick/a.b(c)+p{k // 3}_{k}.png" for k in range(60)]
    [expression] = find(names).expressions
    assert re.match(expression, "a.b(c)+p7_22")["group"] == "a.b(c)+p7"
    assert not re.match(expression, "axb(c)+p7_22")


def test_a_hundred_thousand_names_are_read_in_seconds():
    import time

    names = [f"sick/p{k // 7}_{('mild', 'severe')[k % 2]}_{k}.png" for k in range(100_000)]
    started = time.perf_counter()
    assert len(find(names).expressions) == 1
    assert time.perf_counter() - started < 20  # about 2 s


# Tables


def table(here, header, line, count=60, name="cases.csv", images="images"):
    for k in range(count):
        image(here / images / f"{k}.png", k)
    path = here / name
    separator = "\t" if path.suffix == ".tsv" else ","
    path.write_text("\n".join(separator.join(row) for row in [header, *(line(k) for k in range(count))]))
    return path


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["path", "class", "subclass", "split", "group"], {}),
        (["Image Name", "Diagnosis", "Grade", "Partition", "Patient ID"], {"path": "Image Name"}),
        (["file", "label", "subtype", "fold", "slide_id"], {"class": "label", "split": "fold", "group": "slide_id"}),
        (["filename", "target", "grade", "set", "case"], {"subclass": "grade", "split": "set"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["cases.csv", "cases.tsv"])
def test_a_table_s_columns_are_guessed(header, columns, name, tmp_path):
    def line(k):
        return [f"{k}.png", "ab"[k % 4 // 2], "wxyz"[k % 4], "train" if k % 10 else "test", f"p{k // 5}"]

    def line_of_groups(k):
        return [*line(k)[:3], "test" if k >= 40 else "train", f"p{k // 5}"]

    path = table(tmp_path, header, line_of_groups, name=name)
    text, study = written(path, tmp_path)
    keys = ("path", "class", "subclass", "split", "group")
    assert study.data.columns == dict(zip(keys, header, strict=True))
    assert columns.items() <= study.data.columns.items()
    assert study.data.root == tmp_path / "images"
    assert study.hierarchy == {"a": ["w", "x"], "b": ["y", "z"]}
    assert "test: 0.2" not in text


@pytest.mark.parametrize("most", ["NA", "", "site 1"])
def test_a_column_of_patients_may_lack_most_of_them(tmp_path, most):
    def row(k):
        return [f"{k}.png", "ab"[k % 2], most if k < 40 else f"p{k // 4}"]

    _, study = written(table(tmp_path, ["path", "class", "patient"], row), tmp_path)
    assert study.data.columns["group"] == "patient"


def test_a_column_of_numbered_folds_is_no_split(tmp_path):
    path = table(tmp_path, ["path", "label", "fold"], lambda k: [f"{k}.png", "ab"[k % 2], str(k % 5)])
    text, study = written(path, tmp_path)
    assert "split" not in study.data.columns
    assert 'Column "fold" is not used as split' in text
    assert "test: 0.2" in text


def test_a_column_named_split_that_numbers_folds_is_not_used(tmp_path):
    """Its name alone would have it used: the study says that it is not."""
    path = table(tmp_path, ["path", "class", "split"], lambda k: [f"{k}.png", "ab"[k % 2], str(k // 2 % 5)])
    text, study = written(path, tmp_path)
    assert study.data.columns == {"path": "path", "class": "class", "split": None}
    assert "    split: null\n" in text
    assert 'Column "split" is not used as split' in text
    assert "test: 0.2" in text


@pytest.mark.parametrize("largest", [13, 30])  # rows of 60: 22 % and 50 %
@pytest.mark.parametrize("name", ["patient", "Patient ID", "slide", "group", "case"])
def test_a_patient_of_many_images_is_a_patient(name, largest, tmp_path):
    """Whoever has most images would else be in training and test."""

    def line(k):
        return [f"{k}.png", "ab"[k % 2], "p0" if k < largest else f"p{k // 5}"]

    _, study = written(table(tmp_path, ["path", "class", name], line), tmp_path)
    assert study.data.columns["group"] == name
    sides = sides_of(study)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 1 + len({k // 5 for k in range(largest, 60)})


def test_four_patients_are_patients(tmp_path):
    path = table(tmp_path, ["path", "class", "patient"], lambda k: [f"{k}.png", "ab"[k % 2], f"p{k // 15}"])
    sides = sides_of(written(path, tmp_path)[1])
    assert sum(map(len, sides)) == len(set.union(*sides)) == 4


@pytest.mark.parametrize(
    ("name", "cells", "said", "key"),
    [
        ("patient", ["p1"], 'every row has "p1"', {}),
        ("patient", [""], "every row has nothing", {}),
        ("group", ["p1"], 'every row has "p1"', {"group": None}),
        ("group", ["control", "treated"], 'every row has "control" or "treated"', {"group": None}),
        ("case", ["1", "0"], 'every row has "0" or "1"', {}),
    ],
)
def test_a_column_that_tells_no_patients_apart_is_none(name, cells, said, key, tmp_path):
    """A column "case" may tell cases from controls: two values could not be shared out among three splits."""
    path = table(tmp_path, ["path", "class", name], lambda k: [f"{k}.png", "ab"[k % 2], cells[k // 2 % len(cells)]])
    text, study = written(path, tmp_path)
    assert study.data.columns == {"path": "path", "class": "class"} | key
    assert f'Column "{name}" is not taken for the patient: {said}.' in text.replace("\n  # ", " ")
    assert "No patients (groups) were found" in text


def test_votes_decide_where_nothing_else_does(tmp_path):
    path = table(tmp_path, ["image", "votes", "annotators"], lambda k: [f"images/{k}.png", str(k % 6), "5"])
    text, study = written(path, tmp_path)
    assert (study.votes.column, study.votes.annotators) == ("votes", "annotators")
    assert study.hierarchy is None
    assert "soft-votes" in study.arms
    assert "positive 1: 10" in text or "positive 5/5: 10" in text


def test_columns_that_may_be_votes_are_told(tmp_path):
    path = table(tmp_path, ["path", "label", "reader 1 vote"], lambda k: [f"{k}.png", "ab"[k % 2], "yes"])
    assert '"reader 1 vote" may be' in written(path, tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("nowhere", None, ["no such file or folder", "a folder of images"]),
        ("empty", (), ["no image"]),
        ("images.zip", b"PK", ["a file in .zip", "a folder of images, or a table in .csv"]),
        ("one.png", b"PNG", ["a file in .png", "Give the folder it lies in."]),
        ("bare", b"?", ["a file name without a suffix"]),
        ("cases.csv", b"patient,age\n1,2\n", ['the columns "patient", "age"', "one of image paths"]),
        ("cases.csv", b"path,age\na.png,2\n", ['the columns "path", "age"', "one of classes"]),
        ("cases.csv", b"path,reader_a\na.png,2\n", ["one of classes", "'reader_a'", "key votes"]),
        ("cases.csv", b"", ["an empty file"]),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused(name, content, parts, tmp_path):
    path = tmp_path / name
    if content == ():
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        init.init(path)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_images_none_of_which_can_be_read_are_refused(tmp_path):
    root = tmp_path / "data"
    for name in SPLIT_CLASS_SUBCLASS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no image")
    with pytest.raises(UserError, match="none of 96 could be read"):
        init.init(root)


# MHIST's form, with images of noise


def test_mhist_s_folder_is_known_by_its_table(tmp_path):
    header = "Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition"
    lines = [
        f"MHIST_{k:03}.png,{'SSA' if k % 8 > 3 else 'HP'},{k % 8},{'test' if k < 40 else 'train'}" for k in range(160)
    ]
    folder(tmp_path / "data", [f"images/MHIST_{k:03}.png" for k in range(160)], mode="RGB")
    (tmp_path / "data/annotations.csv").write_text("\n".join([header, *lines]))
    text, study = written(tmp_path / "data", tmp_path)
    assert (study.data.kind, study.data.channels, study.positive) == ("mhist", 3, "SSA")
    assert study.hierarchy is None
    assert len(study.arms) == 7
    assert "Subclasses by votes" in text


# Time


def test_the_expected_time_grows_with_epochs_and_shrinks_with_workers(monkeypatch):
    monkeypatch.setattr(
        expected_time,
        "_rates",
        lambda study, network, *_: (0.01, 0.002) if "resnet" in network.model else (0.001, 0.0002),
    )
    hierarchy = SubclassHierarchy.from_parent([0, 0, 1])
    counts = {"train": 100, "validation": 20, "test": 30}
    content = {"arms": ["scratch", "kd", "skd"], "seeds": 2, "workers": 2, "device": "cpu"}
    content |= {"teacher": {"epochs": 5}, "student": {"epochs": 10}, "distillation": {"views": 4}}
    # By hand: 4 teachers of 5 epochs, their targets, 6 students of 10 epochs, predictions of all ten.
    teachers = 4 * 5 * (100 * 0.01 + 20 * 0.002)
    targets = 4 * 4 * 100 * 0.002
    students = 6 * 10 * (100 * 0.001 + 20 * 0.0002)
    predictions = 50 * (4 * 0.002 + 6 * 0.0002)
    total = teachers + targets + students + predictions
    found = expected_seconds(make_study(content), hierarchy, counts, (1, 28, 28))
    assert found == pytest.approx(expected_time.STARTING + total / 2)
    alone = expected_seconds(make_study(content | {"workers": 1}), hierarchy, counts, (1, 28, 28))
    assert alone == pytest.approx(expected_time.STARTING + total)


def test_the_networks_are_timed_as_they_will_be_trained(tmp_path):
    text, _ = written(folder(tmp_path / "data", SPLIT_CLASS_SUBCLASS), tmp_path, measure=True)
    assert re.search(r"Expected time of skd run on this machine: about \d+ (seconds|minutes)\.", text)


# Real images


def test_the_chest_x_rays_make_a_study_that_shares_no_patient(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"the chest X-rays are not here: {SHARED}")
    text, study = written(SHARED, tmp_path)
    rows = resolve_rows(study, Findings())
    sides = [set(rows.groups[part]) for part in (rows.train, rows.validation, rows.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 4082
    assert plain(text)["hierarchy"] == {"NORMAL": ["NORMAL"], "PNEUMONIA": ["bacteria", "virus"]}
    assert (study.data.size, study.data.channels, study.positive) == (64, 1, "PNEUMONIA")
    assert (study.teacher.epochs, study.student.epochs) == (12, 24)
    given = [
        re.compile(p)
        for p in (r"(?P<group>person\d+_(?P<subclass>bacteria|virus))", r"^(?P<group>(?:NORMAL2-)?IM-\d+)")
    ]

    def values(patterns, name):
        match = next(match for pattern in patterns if (match := pattern.search(name)))
        return match.groupdict()

    ours = [re.compile(pattern) for pattern in study.data.pattern]
    names = [Path(name).name for name in rows.table.names]
    assert len(names) == 5840
    assert [values(ours, name) for name in names] == [values(given, name) for name in names]
