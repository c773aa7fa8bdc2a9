"""Folders of images: which levels they have, what patterns on file names add, and what is refused."""

import time
from collections import Counter
from pathlib import Path

import pytest

from subclass_kd.data.findings import Findings
from subclass_kd.data.folder import read
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

CHEST_XRAY = Path(__file__).parents[2] / "shared/data/chest_xray"
CHEST_PATTERNS = [r"(?P<group>person\d+_(?P<subclass>bacteria|virus))", r"^(?P<group>(?:NORMAL2-)?IM-\d+)"]


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def load(root, *pattern, **content):
    findings = Findings()
    study = make_study({"data": {"kind": "folder", "root": str(root), "pattern": list(pattern)}, **content})
    return read(study, findings), findings


def rows(table):
    columns = [table.classes, table.subclasses, table.splits, table.groups]
    return {name: tuple(column and column[row] for column in columns) for row, name in enumerate(table.names)}


def refused(root, *pattern, **content):
    with pytest.raises(UserError) as caught:
        load(root, *pattern, **content)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


# Levels


def test_classes_alone(tmp_path):
    table, findings = load(make(tmp_path, "sick/b.png", "sick/a.JPG", "well/c.tiff"))
    assert not findings.kept
    assert (table.where, table.root) == (str(tmp_path), tmp_path)
    assert table.names == ["sick/a.JPG", "sick/b.png", "well/c.tiff"]
    assert rows(table)["sick/a.JPG"] == ("sick", "sick", None, None)
    assert rows(table)["well/c.tiff"] == ("well", "well", None, None)
    assert table.votes is table.weights is table.rows is None
    assert table.place(0) == str(tmp_path / "sick/a.JPG")


def test_a_folder_called_none_is_a_class_as_any_other(tmp_path):
    """In a table None stands for a missing value; nobody makes a folder of one."""
    make(tmp_path, "none/a.png", "lesion/b.png", "NA/c.png")
    table, findings = load(tmp_path)
    assert (sorted(table.classes), findings.kept) == (["NA", "lesion", "none"], [])


def test_classes_with_subclasses(tmp_path):
    table, _ = load(make(tmp_path, "sick/viral/a.png", "sick/bacterial/b.png", "well/healthy/c.png"))
    assert rows(table) == {
        "sick/bacterial/b.png": ("sick", "bacterial", None, None),
        "sick/viral/a.png": ("sick", "viral", None, None),
        "well/healthy/c.png": ("well", "healthy", None, None),
    }


@pytest.mark.parametrize(
    ("folder", "split"),
    [("train", "train"), ("Training", "train"), ("VAL", "validation"), ("valid", "validation"), ("dev", "validation"),
     ("validation", "validation"), ("test", "test"), ("Testing", "test")],
)  # fmt: skip
def test_splits_with_classes(tmp_path, folder, split):
    table, _ = load(make(tmp_path, f"{folder}/sick/a.png", f"{folder}/well/b.png"))
    assert rows(table)[f"{folder}/sick/a.png"] == ("sick", "sick", split, None)


def test_splits_with_classes_and_subclasses(tmp_path):
    names = [f"{split}/{label}/{i}.png" for split in ("test", "train") for label in ("s/v", "w/h") for i in range(3)]
    table, findings = load(make(tmp_path, *names))
    assert table.names == names
    assert rows(table)["test/w/h/1.png"] == ("w", "h", "test", None)
    assert Counter(table.splits) == {"train": 6, "test": 6}
    assert not findings.kept


@pytest.mark.parametrize("split", ["test", "train"])
def test_one_folder_of_a_split_s_name_among_others_is_refused(tmp_path, split):
    """Else the owner's test images would be trained on: train_2023/ beside test/."""
    with pytest.raises(UserError, match="folders of splits only, or of classes only"):
        load(make(tmp_path, f"{split}/a.png", "train_2023/b.png"))


def test_rows_come_sorted_whatever_the_order_on_the_disk(tmp_path):
    names = [f"{label}/{i}.png" for label in ("b", "a") for i in (10, 9, 1, 11)]
    assert load(make(tmp_path / "1", *names))[0].names == sorted(names)
    assert load(make(tmp_path / "2", *reversed(names)))[0].names == sorted(names)


# What is passed over


def test_what_systems_leave_in_folders_is_passed_over_silently(tmp_path):
    left = [".DS_Store", "a/.x.png", ".git/a/x.png", "__MACOSX/a/._1.png", "a/Thumbs.db", "b/desktop.ini", "b/._2.png"]
    table, findings = load(make(tmp_path, "a/1.png", "b/2.png", *left))
    assert table.names == ["a/1.png", "b/2.png"]
    assert not findings.kept


def test_other_files_are_counted_by_suffix_in_one_warning(tmp_path):
    table, findings = load(make(tmp_path, "a/1.png", "b/2.png", "a/1.txt", "a/2.TXT", "notes.md", "b/LICENCE"))
    assert len(table) == 2
    (warning,) = findings.kept
    assert (warning.severity, warning.where) == ("warning", str(tmp_path))
    assert warning.found == "files that are no images: 1 with .md, 2 with .txt, 1 with no suffix"


# What is wrong with files


@pytest.mark.parametrize(
    ("stray", "found"),
    [
        ("x.png", "an image right in the root"),
        ("s/x.png", "an image 1 folder deep"),
        ("w/h/d/x.png", "an image 3 folders deep"),
    ],
)
def test_a_file_at_another_depth_is_an_error_that_names_it(tmp_path, stray, found):
    table, findings = load(make(tmp_path, "s/v/1.png", "s/v/2.png", "w/h/1.png", stray))
    assert table.names == ["s/v/1.png", "s/v/2.png", "w/h/1.png"]
    (error,) = findings.kept
    assert (error.kind, error.where) == ("depth of file", str(tmp_path / stray))
    assert error.found == found
    assert error.expected.startswith("2 folders deep, as 3 others")


def test_empty_files_and_links_outside_are_errors_and_left_out(tmp_path):
    root = make(tmp_path / "root", "a/1.png", "b/2.png", "b/3.png")
    (root / "a/0.png").touch()
    make(tmp_path, "outside.png", "away/4.png")
    (root / "b/out.png").symlink_to(tmp_path / "outside.png")
    (root / "b/in.png").symlink_to(root / "b/2.png")
    (root / "c").symlink_to(tmp_path / "away")
    table, findings = load(root)
    assert table.names == ["a/1.png", "b/2.png", "b/3.png", "b/in.png"]
    assert {(finding.kind, finding.where) for finding in findings.kept} == {
        ("empty file", str(root / "a/0.png")),
        ("path outside the root", str(root / "b/out.png")),
        ("path outside the root", str(root / "c")),
    }


@pytest.mark.parametrize("target", [".", "..", "../b", "../a"])
def test_a_link_to_a_folder_inside_is_refused_and_never_walked(tmp_path, target):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/link").symlink_to(target)
    table, findings = load(tmp_path)
    assert table.names == ["a/1.png", "b/2.png"]
    (error,) = findings.kept
    assert (error.kind, error.where) == ("link to a folder", str(tmp_path / "a/link"))


def test_a_link_to_itself_is_an_error_of_that_file_alone(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png", "b/3.png")
    (tmp_path / "b/0.png").symlink_to("0.png")
    (tmp_path / "b/nowhere.png").symlink_to("gone.png")
    table, findings = load(tmp_path)
    assert table.names == ["a/1.png", "b/2.png", "b/3.png"]
    assert findings.counts == {("error", "unreadable file"): 1, ("error", "missing file"): 1}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    scandir = __import__("os").scandir

    def deny(path):
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("subclass_kd.data.folder.os.scandir", deny)
    table, findings = load(tmp_path)
    assert table.names == ["a/1.png", "b/2.png"]
    (error,) = findings.kept
    assert error.where.rstrip("/") == str(tmp_path / "c")
    assert error.found == "a folder that cannot be read (Permission denied)"


def test_a_name_that_is_not_utf8_is_an_error_that_can_be_printed(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png", "b/3\udcff.png", "b/4\n.png")
    table, findings = load(tmp_path)
    assert table.names == ["a/1.png", "b/2.png"]
    assert [finding.where for finding in findings.kept] == [f"{tmp_path}/b/3\\udcff.png", f"{tmp_path}/b/4\\n.png"]
    assert [finding.found for finding in findings.kept] == ['"b/3\\udcff.png"', '"b/4\\n.png"']


# What is wrong with labels


@pytest.mark.parametrize(("first", "second"), [("Normal", "normal"), ("caf\u00e9", "cafe\u0301"), ("T 1", "T1")])
def test_classes_that_look_alike_are_an_error_and_taken_for_one(tmp_path, first, second):
    root = make(tmp_path, f"train/{first}/1.png", f"train/{first}/2.png", f"test/{second}/3.png", "train/sick/4.png")
    table, findings = load(root)
    assert Counter(table.classes) == {first: 3, "sick": 1}
    (error,) = findings.kept
    assert (error.severity, error.kind) == ("error", "labels alike")
    assert f'"{first}" (2 images)' in error.found
    assert f'"{second}" (1 images)' in error.found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (" sick", "blanks around label"), ("sick ", "blanks around label"), ("=cmd()", "label a spreadsheet would run"),
        ("x" * 101, "long label"), ("two\nlines", "characters in label"),
    ],
)  # fmt: skip
def test_a_folder_s_name_that_is_no_label_is_told_once(tmp_path, name, kind):
    table, findings = load(make(tmp_path, f"{name}/1.png", f"{name}/2.png", "well/3.png"))
    assert table.names == ["well/3.png"]
    assert findings.counts["error", kind] == 1


def test_a_subclass_under_two_classes_names_a_file_of_each(tmp_path):
    root = make(tmp_path, "a/x/1.png", "a/x/2.png", "b/x/3.png", "b/y/4.png")
    table, findings = load(root)
    assert table.names == ["a/x/1.png", "a/x/2.png", "b/y/4.png"]
    (error,) = findings.kept
    assert error.where == str(root / "b/x/3.png")
    assert error.found == 'subclass "x" of class "b" (1 of its rows)'
    assert error.expected == f'one class for it: "a" at {root / "a/x/1.png"} (2 rows)'


# What makes it impossible to go on


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "no image"),
        (["notes.txt"], "no image"),
        (["a/1.png", "a/2.png"], 'one class, "a"'),
        (["train/a/1.png", "test/a/2.png"], 'one class, "a"'),
        (["1.png", "2.png"], "images right in the root"),
        (["train/1.png", "test/2.png"], "images 1 folder deep"),
        (["d/e/f/1.png", "d/e/g/2.png"], "images 3 folders deep"),
        (["train/a/b/c/1.png", "train/a/b/d/2.png"], "images 4 folders deep"),
        (["train/a/1.png", "test/b/2.png", "extra/c/3.png"], 'the folders "extra", "test", "train"'),
    ],
)
def test_a_folder_without_classes_is_refused_with_the_layout(tmp_path, names, found):
    error = refused(make(tmp_path, *names))
    assert (error.where, error.found) == (str(tmp_path), found)
    assert f"images of at least two classes as {tmp_path}/[SPLIT/]CLASS/[SUBCLASS/]NAME.png" in str(error)


def test_a_root_one_folder_too_high_is_told_the_right_one(tmp_path):
    assert f'set key "data.root" to "{tmp_path}/set"' in str(refused(make(tmp_path, "set/a/1.png", "set/b/2.png")))
    assert 'in "set"' in str(refused(make(tmp_path, *[f"set/train/a/b/{i}.png" for i in range(9)])))


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    assert refused(tmp_path / "nowhere").where == 'key "data.root"'
    with pytest.raises(UserError, match=r'key "data.root": found nothing'):
        read(make_study({"data": {"kind": "folder"}}), Findings())


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"data": {"table": "a.csv"}}, "data.table"),
        ({"data": {"columns": {"path": "file"}}}, "data.columns"),
        ({"votes": {"column": "n", "annotators": 3}}, "votes"),
    ],
)
def test_keys_of_a_table_are_refused(tmp_path, content, key):
    data = {"kind": "folder", "root": str(tmp_path), **content.get("data", {})}
    with pytest.raises(UserError) as caught:
        read(make_study({**content, "data": data}), Findings())
    assert caught.value.where == f'key "{key}"'


# Patterns


def test_named_groups_fill_what_folders_do_not_say(tmp_path):
    root = make(tmp_path, "sick/p1_viral_1.png", "sick/p2_bacterial_1.png", "well/q.png")
    table, findings = load(root, r"(?P<group>p\d+)_(?P<subclass>[a-z]+)")
    assert not findings.kept
    assert rows(table) == {
        "sick/p1_viral_1.png": ("sick", "viral", None, "p1"),
        "sick/p2_bacterial_1.png": ("sick", "bacterial", None, "p2"),
        "well/q.png": ("well", "well", None, ""),
    }


def test_named_groups_go_before_folders_and_an_empty_one_does_not(tmp_path):
    root = make(tmp_path, "train/a/x-test.png", "train/a/y-.png", "train/b/z-b2.png")
    table, _ = load(root, r"-(?P<split>test)?(?P<class>b2)?")
    assert rows(table) == {
        "train/a/x-test.png": ("a", "a", "test", None),
        "train/a/y-.png": ("a", "a", "train", None),
        "train/b/z-b2.png": ("b2", "b2", "train", None),
    }


def test_the_first_pattern_that_matches_counts(tmp_path):
    table, findings = load(make(tmp_path, "a/p1.png", "b/q2.png"), r"^(?P<group>p)", r"(?P<group>\d)")
    assert table.groups == ["p", "2"]
    assert not findings.kept


def test_a_pattern_sees_the_file_name_only(tmp_path):
    table, findings = load(make(tmp_path, "p1/a.png", "p2/b.png"), r"(?P<group>p\d)")
    assert table.groups is None
    assert findings.kept[0].kind == "pattern"


def test_a_pattern_with_a_slash_sees_the_path_so_that_a_folder_may_be_the_patient(tmp_path):
    """The folder is then no subclass; the file's name may still tell one."""
    root = make(tmp_path, "sick/p1/1_mild.png", "sick/p2/1.png", "well/p1/1.png")
    table, findings = load(root, r"^[^/]+/(?P<group>[^/]+)/(?:\d+_(?P<subclass>[a-z]+))?")
    assert rows(table) == {
        "sick/p1/1_mild.png": ("sick", "mild", None, "p1"),
        "sick/p2/1.png": ("sick", "sick", None, "p2"),
        "well/p1/1.png": ("well", "well", None, "p1"),
    }
    assert [(one.severity, one.kind) for one in findings.kept] == [("warning", "no subclass")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"/(?P<group>p\d+)_(?P<subclass>[a-z]+)/", ("sick", "mild", None, "p1")),  # both in one folder
        (r"^(?P<group>[^/]+/[^/]+)/", ("sick", "sick", None, "sick/p1_mild")),  # of two folders the last
        (r"^(?P<group>[^/]+)/", ("sick", "p1_mild", None, "sick")),  # the class's folder leaves the next one alone
    ],
)
def test_a_folder_that_a_pattern_ends_in_is_no_subclass(tmp_path, pattern, expected):
    table, findings = load(make(tmp_path, "sick/p1_mild/1.png", "well/p2_none/2.png"), pattern)
    assert not findings.kept
    assert rows(table)["sick/p1_mild/1.png"] == expected


def test_patients_may_lie_in_their_own_folders_below_those_of_subclasses_or_above_series(tmp_path):
    make(tmp_path / "1", "sick/mild/p1/1.png", "well/none/p2/2.png")
    table, findings = load(tmp_path / "1", "^(?:[^/]+/){2}(?P<group>[^/]+)/")
    assert not findings.kept
    assert list(rows(table).values()) == [("sick", "mild", None, "p1"), ("well", "none", None, "p2")]
    make(tmp_path / "2", "train/sick/p1/series_1/1.png", "test/well/p2/series_1/2.png")
    table, findings = load(tmp_path / "2", "^(?:[^/]+/){2}(?P<group>[^/]+)/")
    assert not findings.kept
    assert list(rows(table).values()) == [("well", "well", "test", "p2"), ("sick", "sick", "train", "p1")]
    assert "data.pattern: '^(?:[^/]+/){2}(?P<group>[^/]+)/'" in refused(tmp_path / "1").remedy


def test_a_slash_that_is_excluded_leaves_a_pattern_to_the_file_name(tmp_path):
    table, _ = load(make(tmp_path, "a/p1_1.png", "b/p2_2.png"), r"^(?P<group>[^/]+)_")
    assert table.groups == ["p1", "p2"]


def test_a_pattern_of_paths_that_matches_nothing_is_an_error_with_examples(tmp_path):
    _, findings = load(make(tmp_path, "a/x/1.png", "b/y/2.png"), r"/(?P<group>p\d+)/")
    (error,) = findings.kept
    assert error.found == r'"/(?P<group>p\d+)/", which matches no path'
    assert error.expected == 'a pattern for paths such as "a/x/1.png", "b/y/2.png"'


def below_classes(root, count, images, name):
    """Make folders of images below those of two classes, in turn; ``name`` gives each its name by its number."""
    return make(root, *[f"{'ab'[k % 2]}/{name(k)}/{i}.png" for k in range(count) for i in range(images)])


def letters(number):
    return chr(97 + number) * 3


@pytest.mark.parametrize(
    ("count", "images", "name", "found"),
    [
        (24, 10, "patient{:03}".format, '12 folders in class "a", such as "patient000", of 10 images'),
        (24, 30, "{:05}".format, '12 folders in class "a", such as "00000", of 30 images'),  # as slices of scans
        (6, 30, "Subject {}".format, '3 folders in class "a", such as "Subject 0", of 30 images'),
        (26, 5, letters, '13 folders in class "a", such as "aaa", of 5 images'),
    ],
)
def test_folders_of_patients_where_subclasses_should_be_are_an_error(tmp_path, count, images, name, found):
    """Every patient would be in training and in test."""
    root = below_classes(tmp_path, count, images, name)
    (error,) = load(root)[1].kept
    assert (error.severity, error.kind, error.where) == ("error", "folders of patients", str(root))
    assert error.found == found
    assert "data.pattern: '^[^/]+/(?P<group>[^/]+)/'" in error.remedy
    assert "'^[^/]+/(?P<subclass>[^/]+)/'" in error.remedy
    table, findings = load(root, "^[^/]+/(?P<group>[^/]+)/")
    assert not findings.kept
    assert (len(set(table.groups)), set(table.subclasses)) == (count, {"a", "b"})
    table, findings = load(root, "^[^/]+/(?P<subclass>[^/]+)/")  # as the user says so
    assert not findings.kept
    assert (table.groups, len(set(table.subclasses))) == (None, count)


@pytest.mark.parametrize(
    ("count", "images", "name"),
    [
        (20, 2, "grade {}".format),
        (8, 30, "pT{}".format),
        (6, 4, "case-control {}".format),
        (24, 20, letters),
    ],
)
def test_folders_of_subclasses_are_no_patients(tmp_path, count, images, name):
    """Ten of a class may have numbers; more than that may not, or few images."""
    table, findings = load(below_classes(tmp_path, count, images, name))
    assert not findings.kept
    assert len(set(table.subclasses)) == count


def test_a_flat_folder_will_do_where_patterns_give_the_class(tmp_path):
    root = make(tmp_path, "cat_1.png", "dog_2.png", "dog_3.png", "bird.png")
    table, findings = load(root, r"(?P<class>cat|dog)_(?P<group>\d)")
    assert rows(table) == {
        "cat_1.png": ("cat", "cat", None, "1"),
        "dog_2.png": ("dog", "dog", None, "2"),
        "dog_3.png": ("dog", "dog", None, "3"),
    }
    (error,) = findings.kept
    assert (error.kind, error.where) == ("no class", str(root / "bird.png"))


def test_splits_with_classes_from_file_names(tmp_path):
    table, _ = load(make(tmp_path, "train/cat_1.png", "test/dog_2.png"), r"(?P<class>cat|dog)_")
    assert rows(table)["test/dog_2.png"] == ("dog", "dog", "test", None)


def test_a_split_that_only_some_names_give_is_an_error_of_the_others(tmp_path):
    root = make(tmp_path, "a/1_train.png", "a/2_testing.png", "b/3_train.png", "b/4.png", "b/5_later.png")
    table, findings = load(root, r"_(?P<split>[a-z]+)")
    assert dict(zip(table.names, table.splits, strict=True)) == {
        "a/1_train.png": "train", "a/2_testing.png": "test", "b/3_train.png": "train",
    }  # fmt: skip
    assert {(finding.kind, finding.where, finding.found) for finding in findings.kept} == {
        ("no split", str(root / "b/4.png"), "no split"),
        ("split", str(root / "b/5_later.png"), '"later"'),
    }


def test_a_pattern_that_matches_nothing_is_an_error_with_examples(tmp_path):
    _, findings = load(
        make(tmp_path, "a/p1.png", "a/p2.png", "b/p3.png", "b/p4.png"), r"(?P<group>p\d)", "x(?P<class>.)y"
    )
    (error,) = findings.kept
    assert (error.severity, error.where) == ("error", 'key "data.pattern"')
    assert error.found == '"x(?P<class>.)y", which matches no file name'
    assert error.expected == 'a pattern for names such as "p1.png", "p2.png", "p3.png"'


def test_a_pattern_behind_one_that_takes_all_its_names_is_an_error(tmp_path):
    _, findings = load(make(tmp_path, "a/p1.png", "b/p2.png"), r"(?P<group>p\d)", r"(?P<group>\d)")
    assert findings.kept[0].found.endswith("which matches no file name that those before it leave")


def test_images_of_a_class_without_the_subclass_that_others_have_are_a_warning(tmp_path):
    root = make(tmp_path, "sick/1_viral.png", "sick/2_viral.png", "sick/3_virl.png", "well/4.png")
    table, findings = load(root, r"_(?P<subclass>viral)")
    assert table.subclasses == ["viral", "viral", "sick", "well"]
    (warning,) = findings.kept
    assert (warning.severity, warning.kind, warning.where) == ("warning", "no subclass", str(root / "sick/3_virl.png"))
    assert warning.found == 'no subclass of class "sick", as of 1 of its 3 images'


def test_folders_are_subclasses_where_the_study_has_a_hierarchy(tmp_path):
    root = make(tmp_path, "tabby/1.png", "siamese/2.png", "poodle/3.png")
    table, _ = load(root, hierarchy={"cat": ["tabby", "siamese"], "dog": ["poodle"]})
    assert table.classes is None
    assert table.subclasses == ["poodle", "siamese", "tabby"]


def test_the_chest_x_rays_as_their_owners_ship_them():
    if not CHEST_XRAY.exists():
        pytest.skip(f"the chest X-rays are not here: {CHEST_XRAY}")
    table, findings = load(CHEST_XRAY, *CHEST_PATTERNS)
    assert not findings.kept
    assert len(table) == 5840
    assert Counter(zip(table.subclasses, table.splits, strict=True)) == {
        ("bacteria", "train"): 2530, ("bacteria", "test"): 242, ("virus", "train"): 1345, ("virus", "test"): 148,
        ("NORMAL", "train"): 1341, ("NORMAL", "test"): 234,
    }  # fmt: skip
    assert set(table.classes) == {"NORMAL", "PNEUMONIA"}
    sides = {}
    for group, split in zip(table.groups, table.splits, strict=True):
        sides.setdefault(group, set()).add(split)
    assert len(sides) == 4082
    assert all(len(splits) == 1 for splits in sides.values())


def test_thousands_of_files_take_less_than_a_second(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(1000):
            (tmp_path / label / f"p{i // 3}_{i}.png").write_bytes(b"x")
    start = time.process_time()
    table, _ = load(tmp_path, r"(?P<group>p\d+)_")
    assert len(table) == 2_000
    assert time.process_time() - start < 1
