"""What skd check finds: each thing that may be wrong with images and rows, once, and nothing in good data."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from subclass_kd.data.check import check_rows, check_study
from subclass_kd.data.findings import Findings
from subclass_kd.data.rows import Rows
from subclass_kd.data.samples import resolve_rows
from subclass_kd.data.table import SampleTable
from subclass_kd.display import RunProgress
from subclass_kd.display_check import show
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.study_file import make_study

SHARED = Path(__file__).parents[2] / "shared/data/chest_xray"
NAMES = {"well": ["healthy"], "sick": ["mild", "severe"]}


def picture(number, size=(40, 40)):
    patches = np.random.default_rng(number).uniform(20, 220, (7, 7)).astype(np.float32)
    return Image.fromarray(np.asarray(Image.fromarray(patches).resize(size)).astype(np.uint8))


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Give a folder without faults: 2 classes, 3 subclasses, 40 training, 10 test and 20 validation images of each."""
    root = tmp_path_factory.mktemp("good")
    number = 0
    for split, count in (("train", 40), ("test", 10), ("validation", 20)):
        for name, members in NAMES.items():
            for member in members:
                for _ in range(count):
                    save(root / split / name / member / f"{number:03}.png", picture(number))
                    number += 1
    return root


@pytest.fixture
def root(good, tmp_path):
    """Give a copy of it to spoil."""
    return Path(shutil.copytree(good, tmp_path / "data"))


def study_of(root, **data):
    return make_study({"data": {"kind": "folder", "root": str(root), "size": 32, "channels": 1, **data}})


def check(root, **data):
    return check_study(study_of(root, **data))


def kinds(report):
    return {(row["severity"], row["kind"]): row["count"] for row in report["counts"]}


def messages(report, kind):
    return [
        f"{row['where']}: {row['found']}; {row['expected']}. {row['remedy']}"
        for row in report["findings"]
        if row["kind"] == kind
    ]


def test_good_data_have_no_findings(good):
    report = check(good)
    assert (report["errors"], report["warnings"], report["findings"]) == (0, 0, [])
    data = report["data"]
    assert (data["images"], data["unreadable"]) == (210, 0)
    assert data["sizes"] == [{"width": 40, "height": 40, "images": 210}]
    assert data["channels"] == {"1": 210}
    assert (data["shared_groups"], data["sentence"].split(":")[0]) == (None, "No groups (patients) are known")
    assert (data["copies"], data["near_duplicates"]) == ({"groups": 0, "surplus": 0}, 0)
    assert [(row["name"], row["class"], row["test"]) for row in data["subclasses"]] == [
        ("mild", "sick", 10), ("severe", "sick", 10), ("healthy", "well", 10),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("augment", "size", "expected"),
    [
        ({"hue": 0.1}, 32, 'key "augment.hue": 0.1, and grey images; images in colour. Remove it.'),
        ({"rotate90": True}, 32, None),
        ({"rotate90": True}, None, None),
    ],
)
def test_augmentation_that_does_not_fit_the_images_is_an_error(good, augment, size, expected):
    data = {"kind": "folder", "root": str(good), "size": size}
    report = check_study(make_study({"data": data, "augment": augment}))
    assert messages(report, "augmentation") == ([expected] if expected else [])
    assert report["errors"] == (expected is not None)


def first(root, folder):
    return sorted((root / folder).glob("*.png"))[0]


def spoil_truncated(root):
    path = first(root, "train/sick/mild")
    path.write_bytes(path.read_bytes()[:200])


def spoil_text(root):
    first(root, "test/well/healthy").write_text("no image")


def spoil_copy_across_splits(root):
    shutil.copy(first(root, "train/sick/mild"), first(root, "test/sick/mild"))


def spoil_resaved_across_splits(root):
    """The same pixels in another form: as colour, in another file format."""
    image = Image.open(first(root, "train/sick/mild")).convert("RGB")
    first(root, "test/sick/mild").unlink()
    save(root / "test/sick/mild/again.tif", image)


def spoil_copy_with_another_label(root):
    shutil.copy(first(root, "train/sick/mild"), first(root, "train/sick/severe"))


def spoil_copies_inside(root):
    mild = sorted((root / "train/sick/mild").glob("*.png"))
    shutil.copy(mild[0], mild[1])
    shutil.copy(mild[0], mild[2])
    shutil.copy(mild[5], mild[6])


def spoil_near_across_splits(root):
    save(first(root, "test/sick/mild").with_suffix(".jpg"), Image.open(first(root, "train/sick/mild")))
    first(root, "test/sick/mild").unlink()


def spoil_near_with_another_label(root):
    image = Image.open(first(root, "train/sick/mild"))
    save(first(root, "train/well/healthy"), image.resize((36, 36)).resize((40, 40)))


def spoil_near_inside(root):
    """Near duplicates that tell nothing to the test, and have one label."""
    mild = sorted((root / "train/sick/mild").glob("*.png"))
    save(mild[1], Image.open(mild[0]).point(lambda value: value + 9))


def spoil_constant(root):
    save(first(root, "train/sick/mild"), Image.new("L", (40, 40), 7))
    save(first(root, "test/sick/mild"), Image.new("L", (40, 40), 7))


def spoil_long(root):
    save(first(root, "train/sick/mild"), picture(900, (100, 40)))


def spoil_small(root):
    save(first(root, "train/sick/mild"), picture(900, (20, 20)))


def spoil_colour(root):
    save(first(root, "train/sick/mild"), Image.merge("RGB", [picture(900), picture(901), picture(902)]))


def spoil_few_test_images(root):
    for path in sorted((root / "test/sick/mild").glob("*.png"))[4:]:
        path.unlink()


def spoil_few_training_images(root):
    for path in sorted((root / "train/sick/mild").glob("*.png"))[16:]:
        path.unlink()


def spoil_few_validation_images(root):
    for folder in ("validation/sick/severe", "validation/sick/mild"):
        for path in sorted((root / folder).glob("*.png"))[9:]:
            path.unlink()


CASES = {
    "truncated": (spoil_truncated, {("error", "unreadable image"): 1}, ["sick/mild/040.png", "cannot be decoded"]),
    "text": (spoil_text, {("error", "unreadable image"): 1}, ["test/well/healthy/120.png", "a file that Pillow"]),
    "copy across splits": (
        spoil_copy_across_splits, {("error", "duplicate across splits"): 1},
        ["test/sick/mild", "a test image that training has as train/sick/mild"],
    ),
    "saved anew across splits": (
        spoil_resaved_across_splits, {("error", "duplicate across splits"): 1}, ["again.tif", "train/sick/mild"],
    ),
    "copy with another label": (
        spoil_copy_with_another_label, {("error", "duplicate with another label"): 1},
        ["train/sick/mild", "the same image as train/sick/severe", '"mild" and "severe"'],
    ),
    "copies inside": (
        spoil_copies_inside, {("warning", "duplicate image"): 2},
        ["train/sick/mild", "the same image as train/sick/mild"],
    ),
    "near across splits": (
        spoil_near_across_splits, {("warning", "near duplicate across splits"): 1},
        ["test/sick/mild", ".jpg", "a test image much like train/sick/mild"],
    ),
    "near with another label": (
        spoil_near_with_another_label, {("warning", "near duplicate with another label"): 1},
        ['an image of "mild" much like train/well/healthy', 'of "healthy"'],
    ),
    "near inside": (spoil_near_inside, {}, []),
    "constant": (spoil_constant, {("warning", "constant image"): 2}, ["mild", "the value 7 in every pixel"]),
    "long": (spoil_long, {("warning", "squashed images"): 1}, ["1 of 210 images", "(100 x 40)", "far from square"]),
    "small": (spoil_small, {("warning", "small images"): 1}, ["1 of 210 images", "(20 x 20)", "at least 32 x 32"]),
    "colour": (spoil_colour, {("warning", "colour as grey"): 1}, ["1 of 210", "data.channels: 3"]),
    "few test images": (
        spoil_few_test_images, {("warning", "few test images"): 1},
        ['4 test image(s) of subclass "mild"', "at least 5"],
    ),
    "few training images": (
        spoil_few_training_images, {("warning", "small subclass"): 1},
        ['16 training images of subclass "mild"', "16.7 %", "at least 20"],
    ),
    "few validation images": (
        spoil_few_validation_images, {("warning", "few validation images"): 1},
        [': 18 validation images of class "sick"; at least 20 of each', "Merge the validation split into train, and"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_found_and_nothing_else(case, root):
    spoil, expected, parts = CASES[case]
    spoil(root)
    report = check(root)
    assert kinds(report) == expected
    for (_, kind), _ in expected.items():
        for part in parts:
            assert part in messages(report, kind)[0]


def test_a_test_image_is_compared_with_those_that_training_has(root):
    """Not with those that data.train_images leaves out, unless a teacher speaks of them."""
    rows = resolve_rows(study_of(root, train_images=20), Findings())
    names = np.array(rows.table.names)
    unused = np.setdiff1d(np.arange(len(names)), np.concatenate([rows.train, rows.validation, rows.test]))
    assert len(unused) == 100
    exact, near = names[unused[:2]]
    tests = names[rows.test]
    shutil.copy(root / exact, root / tests[0])
    save(root / tests[1], Image.open(root / near).point(lambda value: value + 9))
    assert {kind for _, kind in kinds(check(root, train_images=20))} >= {"duplicate image"}
    assert not {kind for _, kind in kinds(check(root, train_images=20)) if "across splits" in kind}
    across = {("error", "duplicate across splits"): 1, ("warning", "near duplicate across splits"): 1}
    assert across.items() <= kinds(check(root)).items()
    unlabelled = study_of(root, train_images=20).model_dump() | {"distillation": {"unlabelled": True}}
    assert across.items() <= kinds(check_study(make_study(unlabelled))).items()


def test_copies_and_near_duplicates_are_counted(root):
    spoil_copies_inside(root)
    spoil_near_with_another_label(root)
    data = check(root)["data"]
    assert data["copies"] == {"groups": 2, "surplus": 3}
    assert data["near_duplicates"] == 1


def test_several_sizes_need_a_size(root):
    save(first(root, "train/sick/mild"), picture(900, (100, 40)))
    save(first(root, "train/well/healthy"), picture(901, (20, 20)))
    report = check(root, size=None)
    assert kinds(report) == {("error", "different sizes"): 1}
    assert "208 of 40 x 40, 1 of 100 x 40, 1 of 20 x 20 pixels" in messages(report, "different sizes")[0]
    assert "Set data.size." in messages(report, "different sizes")[0]


@pytest.mark.parametrize(
    ("largest", "white", "advice"),
    [(4095, 65535, 4095), (900, 65535, 1023), (60000, 65535, None), (4095, 4095, None), (700, 4095, 1023)],
)
def test_sixteen_bits_that_come_out_dark_are_told_their_white(root, largest, white, advice):
    for path in root.rglob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(np.float64)
        save(path, Image.fromarray((pixels / 255 * largest).round().astype(np.uint16)))
    dark = np.asarray(Image.open(path)).copy()
    dark[0, 0] = largest
    save(path, Image.fromarray(dark))
    report = check(root, white=white)
    assert kinds(report) == ({("warning", "dark images"): 1} if advice else {})
    if advice:
        assert f"Set data.white: {advice}." in messages(report, "dark images")[0]
        assert "210 images of 16 bits" in messages(report, "dark images")[0]


def test_near_duplicates_everywhere_are_one_warning(root):
    for train, test in (("train/sick/mild", "test/sick/mild"), ("train/sick/severe", "test/sick/severe")):
        sources = sorted((root / train).glob("*.png"))
        for source, path in zip(sources, sorted((root / test).glob("*.png")), strict=False):
            save(path, Image.open(source).point(lambda value: value + 9))
    report = check(root)
    assert kinds(report) == {("warning", "many near duplicates"): 1}
    assert "19 % of the images" in messages(report, "many near duplicates")[0]


def test_a_table_s_rows_are_named(good, tmp_path):
    names = sorted(path.relative_to(good).as_posix() for path in good.rglob("*.png"))
    lines = [f"{name},{name.split('/')[1]},{name.split('/')[2]},{name.split('/')[0]}" for name in names]
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    (broken / names[6]).write_text("no image")
    (broken / "cases.csv").write_text("\n".join(["path,class,subclass,split", *lines]))
    data = {"kind": "table", "table": str(broken / "cases.csv"), "size": 32, "channels": 1}
    report = check_study(make_study({"data": data}))
    [message] = messages(report, "unreadable image")
    assert "cases.csv, row 8" in message
    assert names[6] in message


def test_what_ends_the_reading_is_a_finding_too(tmp_path):
    report = check(tmp_path / "nowhere")
    assert (report["errors"], report["data"]) == (1, None)
    assert report["findings"][0]["where"] == 'key "data.root"'
    (tmp_path / "empty").mkdir()
    assert check(tmp_path / "empty")["errors"] == 1


def test_progress_is_told_for_every_image(good):
    told = []
    check_study(
        make_study({"data": {"kind": "folder", "root": str(good), "size": 32}}), lambda *numbers: told.append(numbers)
    )
    assert told == [(done, 210) for done in range(1, 211)]


# Rows without pixels


def rows(labels, splits, parents, groups=None):
    """Make rows of subclasses k0, k1, ... with these parents, split by 0 training, 1 validation, 2 test."""
    count = len(labels)
    hierarchy = SubclassHierarchy.from_parent(parents)
    table = SampleTable("cases.csv", [f"{row}.png" for row in range(count)], groups=groups)
    splits = np.asarray(splits)
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
    return Rows(
        table=table, subclass_labels=np.asarray(labels), train=np.flatnonzero(splits == 0),
        validation=np.flatnonzero(splits == 1), test=np.flatnonzero(splits == 2), hierarchy=hierarchy, positive=1,
        groups=codes,
    )  # fmt: skip


def row_findings(*arguments):
    findings = Findings()
    check_rows(rows(*arguments), findings)
    assert findings.errors == 0
    return [(finding.kind, finding.found) for finding in findings.kept]


def test_imbalance_is_warned_of_below_a_twentieth():
    splits = [0] * 1000 + [2] * 60
    balanced = [0] * 460 + [1] * 490 + [2] * 50
    assert row_findings([*balanced, *[0, 1, 2] * 20], splits, [0, 0, 1]) == []
    small = [0] * 460 + [1] * 491 + [2] * 49
    assert row_findings([*small, *[0, 1, 2] * 20], splits, [0, 0, 1]) == [
        ("small class", '49 training images of class "class 1", 4.9 %')
    ]
    assert row_findings([*small, *[0, 1, 2] * 20], splits, [0, 1, 1]) == [
        ("small subclass", '49 training images of subclass "subclass 2", 4.9 %')
    ]


@pytest.mark.parametrize(("sick", "found"), [(20, None), (19, '19 validation images of class "class 1"')])
def test_a_handful_of_validation_images_is_warned_of(sick, found):
    """What data.validation sets aside, too: a share of few images is few."""
    labels = [0, 1, 2] * 60 + [0, 1] * 10 + [2] * sick
    splits = [0] * 120 + [2] * 60 + [1] * (20 + sick)
    assert row_findings(labels, splits, [0, 0, 1]) == ([("few validation images", found)] if found else [])


def test_many_equal_subclasses_are_no_imbalance():
    labels = list(range(40)) * 30
    splits = [0] * 800 + [2] * 400
    assert row_findings(labels, splits, [k % 2 for k in range(40)]) == []


def test_one_subclass_a_class_leaves_nothing_to_distill():
    assert row_findings([0, 1] * 50, [0] * 80 + [2] * 20, [0, 1]) == [
        ("no subclasses", "one subclass in each of the 2 classes")
    ]


def test_a_group_of_more_than_a_fifth_is_named():
    labels, splits = [0, 1, 2] * 100, [0] * 210 + [2] * 90
    groups = [f"p{row // 10}" for row in range(300)]
    assert row_findings(labels, splits, [0, 1, 1], groups) == []
    groups[:61] = ["site"] * 61
    assert row_findings(labels, splits, [0, 1, 1], groups) == [("large group", '61 images, 20 %, in group "site"')]


# What is shown


def test_a_report_fits_eighty_columns_and_is_json(root):
    for spoil in (spoil_text, spoil_copy_across_splits, spoil_small, spoil_copy_with_another_label):
        spoil(root)
    report = json.loads(json.dumps(check(root)))
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, report)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("healthy", "unreadable image", "small images", "210 images, 1 unreadable", "No groups"):
        assert part in text
    assert text.splitlines()[-1] == "2 errors, 1 warning: mend the errors before the study can run."


def test_a_run_shows_its_warnings_once_and_no_error(root):
    for spoil in (spoil_small, spoil_few_validation_images, spoil_text):
        spoil(root)
    console = Console(width=80, record=True, file=io.StringIO())
    progress = RunProgress(console)
    for _ in range(2):  # as of two folds
        progress.checked(check(root))
    text = console.export_text()
    lines = text.splitlines()
    assert [line for line in lines if line.startswith(("warning", "error"))] == [
        "warning: few validation images", "warning: small images",
    ]  # fmt: skip
    assert "18 validation images of class" in " ".join(text.split())


def test_only_some_of_many_findings_are_shown(root):
    for path in sorted((root / "train/sick/mild").glob("*.png"))[:30]:
        save(path, Image.new("L", (40, 40), 7))
    report = check(root)
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, report)
    text = console.export_text()
    assert text.count("in every pixel") == 5
    assert "and 25 more" in text


# Real images


def test_the_chest_x_rays_have_32_surplus_images_and_no_shared_patient():
    if not SHARED.exists():
        pytest.skip(f"the chest X-rays are not here: {SHARED}")
    pattern = [r"(?P<group>person\d+_(?P<subclass>bacteria|virus))", r"^(?P<group>(?:NORMAL2-)?IM-\d+)"]
    report = check(SHARED, pattern=pattern, size=64)
    assert kinds(report) == {("warning", "duplicate image"): 30}
    data = report["data"]
    assert data["copies"] == {"groups": 30, "surplus": 32}
    assert data["near_duplicates"] == 0
    assert (data["images"], data["unreadable"], data["shared_groups"]) == (5840, 0, 0)
    assert data["sentence"] == "No group (patient) is in two splits: 4,082 groups."
    assert data["groups"]["train"] + data["groups"]["validation"] + data["groups"]["test"] == 4082
