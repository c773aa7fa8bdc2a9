"""Shards in WebDataset's format: the same samples as of files, read in place, and what is refused."""

import gzip
import io
import json
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from subclass_kd.config import Study
from subclass_kd.data import shard_index
from subclass_kd.data.check import check_study
from subclass_kd.data.fashion_mnist import read_idx
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import read_header
from subclass_kd.data.members import LARGEST, Member
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.samples import load_samples, resolve_rows
from subclass_kd.data.shards import read
from subclass_kd.decoders import decoded
from subclass_kd.errors import UserError
from subclass_kd.init import init
from subclass_kd.report.thumbnails import thumbnails
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study


def png(shade=0, side=8):
    """Give the bytes of an image whose pixels all differ, unlike those of other shades."""
    file = io.BytesIO()
    pixels = np.random.default_rng(shade).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard(path, members, **kinds):
    """Write (name, content) as a shard, in this order; a dictionary is written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kinds.get(name.partition(".")[0], tarfile.REGTYPE)
            content = json.dumps(content).encode() if isinstance(content, dict) else content
            info.size = len(content) if info.isreg() else 0
            info.linkname = "elsewhere.png"
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(key, facts, shade=0):
    return [(f"{key}.png", png(shade)), (f"{key}.json", facts)]


def load(root, findings=None, **data):
    study = make_study({"data": {"kind": "webdataset", "root": str(root), **data}})
    found = Findings() if findings is None else findings
    return read(study, found), found


def problem(root, *wrong, **kinds):
    """Give what is found where two good samples stand before wrong members."""
    good = [*sample("a", {"class": "x"}), *sample("b", {"class": "y"}, 1)]
    path = shard(root / "s-0.tar", [*good, *wrong], **kinds)
    table, found = load(root)
    assert table.names == ["s-0.tar/a.png", "s-0.tar/b.png"]
    (one,) = found.kept
    assert one.where.startswith(str(path))
    return one


@pytest.fixture(scope="module")
def both(small_idx_folder, tmp_path_factory):
    """Write 40 training and 20 test images of 4 subclasses as folders and as shards, in one order."""
    root = tmp_path_factory.mktemp("both")
    members = {"test": [], "train": []}
    for split, name, count in (("test", "t10k", 20), ("train", "train", 40)):
        images = read_idx(small_idx_folder / f"{name}-images-idx3-ubyte", 3)
        labels = read_idx(small_idx_folder / f"{name}-labels-idx1-ubyte", 1)
        for subclass in range(4):
            for number in np.flatnonzero(labels == subclass)[: count // 4].tolist():
                parent, own = "ab"[subclass // 2], "wxyz"[subclass]
                path = root / f"files/{split}/{parent}/{own}/{number:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[number]).save(path)
                facts = {"class": parent, "subclass": own, "age": 40 + number}
                members[split] += [(f"{own}/{number:04}.png", path.read_bytes()), (f"{own}/{number:04}.json", facts)]
    shard(root / "shards/test/0.tar", members["test"])
    shard(root / "shards/train-0.tar", members["train"][:30])
    shard(root / "shards/train-1.tar", members["train"][30:])
    return root


def study(root, **others):
    kind = {"files": "folder", "shards": "webdataset"}[root.name]
    return make_study({"data": {"kind": kind, "root": str(root), **others.pop("data", {})}, "seeds": 1, **others})


@pytest.mark.parametrize("data", [{}, {"folds": 3, "fold": 1}])
def test_shards_give_the_samples_of_the_same_files(both, data):
    ours, theirs = (load_samples(study(both / name, data=data)) for name in ("shards", "files"))
    assert np.array_equal(ours.images, theirs.images)
    for name in ("subclass_labels", "train", "validation", "test"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.hierarchy == theirs.hierarchy
    assert (len(ours.train), len(ours.validation), len(ours.test)) == (32, 8, 20)
    assert ours.table.names[0] == "test/0.tar/w/0000.png"
    assert ours.table.place(20) == f"{both}/shards/train-0.tar, w/0000.png"


def test_a_run_on_shards_gives_the_numbers_of_one_on_files(both, tmp_path):
    quick = {"epochs": 2, "options": {"width": 4}}
    settings = {
        "teacher": quick, "student": quick, "distillation": {"views": 1}, "arms": ["kd", "skd"], "workers": 1,
        "device": "cpu",
    }  # fmt: skip
    results, pictures = [], []
    for name, limit in (("files", 50.0), ("shards", 0.0)):
        run_study(study(both / name, data={"store_limit": limit}, **settings), tmp_path / name)
        results.append(json.loads((tmp_path / name / "results.json").read_text()))
        mark = results[-1]["data"]["fingerprint"]
        pictures.append(thumbnails([tmp_path / name], [mark], [0, 19]))

    def plain(value):
        """Leave out times and what names the data."""
        if isinstance(value, list):
            return [plain(item) for item in value]
        skipped = ("kind", "root", "fingerprint")
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key not in skipped and "seconds" not in key}
        return value

    assert plain(results[0]) == plain(results[1])
    assert pictures[0] == pictures[1]


def test_images_on_demand_are_those_stored_also_by_other_processes(both):
    stored = load_samples(study(both / "shards")).images
    images = load_samples(study(both / "shards", data={"store_limit": 0})).images
    assert isinstance(images, OnDemand)
    rows = [np.array([3, 59]), np.array([0])]
    assert all(np.array_equal(images[some], stored[some]) for some in rows)
    images.processes = 1
    assert [batch.tolist() for batch in decoded(images, rows)] == [stored[some].tolist() for some in rows]


def test_a_second_start_reads_no_headers_until_a_shard_changes(tmp_path, monkeypatch):
    path = shard(tmp_path / "0.tar", [*sample("a", {"class": "x"}), ("b.png", png(1)), ("b.cls", b"y\n")])
    scanned, scan = [], shard_index._scan
    monkeypatch.setattr(shard_index, "_scan", lambda file, where: scanned.append(where) or scan(file, where))
    first, second = load(tmp_path)[0], load(tmp_path)[0]
    assert (first.classes, second.classes) == (["x", "y"], ["x", "y"])
    assert np.array_equal(first.spans, second.spans)
    shard(path, sample("c", {"class": "z"}))
    assert load(tmp_path)[0].classes == ["z"]
    assert scanned == [str(path), str(path)]


def test_json_is_a_row_with_the_tables_rules(tmp_path):
    facts = {"dx": "mel", "patient": 7, "w": 0.5, "path": "/lost/1.png", "more": [1, {}]}
    shard(tmp_path / "0.tar", sample("a", facts) + sample("b", facts | {"dx": "nv", "patient": None, "w": 2}, 1))
    table, found = load(tmp_path, columns={"class": "dx", "group": "patient", "weight": "w"})
    assert (table.classes, table.groups, table.weights.tolist()) == (["mel", "nv"], ["7", ""], [0.5, 2.0])
    assert (table.splits, found.kept) == (None, [])
    shard(tmp_path / "1.tar", sample("c", {"dx": "mel", "w": -1, "patient": 8}))
    table, found = load(tmp_path, columns={"class": "dx", "group": "patient", "weight": "w"})
    assert len(table) == 2
    assert found.kept[0].where == f'{tmp_path}/1.tar, c.png, key "w"'
    assert found.kept[0].found == '"-1"'


def test_a_shard_may_have_any_name_but_that_of_a_folder(tmp_path):
    shard(tmp_path / "İ.tar.TAR", sample("x.tar/İ", {"class": "x"}))
    table, found = load(tmp_path)
    assert (str(table.path(0)), found.kept) == (f"{tmp_path}/İ.tar.TAR, x.tar/İ.png", [])
    assert read_header(table.path(0)).width == 8


def test_votes_stand_in_json_too(tmp_path):
    members = [member for k in range(8) for member in sample(k, {"yes": k % 4, "readers": 3}, k)]
    shard(tmp_path / "0.tar", members)
    chosen = {
        "data": {"kind": "webdataset", "root": str(tmp_path)},
        "votes": {"column": "yes", "annotators": "readers"},
    }
    assert read(make_study(chosen), Findings()).votes.positive.tolist() == [0, 1, 2, 3] * 2


def test_cls_gives_the_class_and_a_hierarchy_may_group_it(tmp_path):
    members = [
        (f"{k}.{end}", png(k) if end == "jpg" else f"{k % 4}\n".encode()) for k in range(40) for end in ("jpg", "cls")
    ]
    shard(tmp_path / "a/train_0.tar", members)
    shard(tmp_path / "a/VAL_0.tar", members)
    shard(tmp_path / "a/testing.tar", [*members, ("0.txt", b"a caption"), ("0.seg.png", b""), ("README", b"")])
    chosen = {
        "data": {"kind": "webdataset", "root": str(tmp_path)},
        "hierarchy": {"low": ["0", "1"], "high": ["2", "3"]},
    }
    rows = resolve_rows(make_study(chosen), found := Findings())
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (40, 40, 40)
    assert rows.hierarchy.subclasses == ("0", "1", "2", "3")
    assert [one.found for one in found.kept] == [
        "members that are no image, .json or .cls: 1 with .*.png, 1 with .txt, 1 with no suffix"
    ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/0.tar", "test/0.tar"], ["test", "train"]),
        (["cc3m-train-0.tar", "cc3m-validation-0.tar"], ["train", "validation"]),
        (["trainset-0.tar", "b.tar"], None),
    ],
)
def test_the_names_of_shards_give_splits(tmp_path, names, splits):
    for number, name in enumerate(names):
        shard(tmp_path / name, sample("a", {"class": f"c{number}"}))
    assert load(tmp_path)[0].splits == splits


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train-0.tar", "b.tar"], '"train-0.tar", named like a split, and "b.tar"'),
        (["data-0.tar", "val-0.tar"], '"val-0.tar", named like a split, and "data-0.tar"'),
        (["train/val_0.tar"], "a path with the splits train and validation"),
        ([], "no file in .tar"),
    ],
)
def test_names_that_leave_the_split_open_are_refused(tmp_path, names, found):
    for name in names:
        shard(tmp_path / name, sample("a", {"class": "x"}))
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert caught.value.found == found


@pytest.mark.parametrize(
    ("facts", "label", "classes"),
    [
        ({"dx": "nevus"}, "melanoma", []), ({"dx": "nevus"}, "nevus\n", ["nevus"]), ({"dx": "nevus"}, "1", ["nevus"]),
        ({"dx": 1}, "nevus", ["1"]), ({"dx": None}, "melanoma", ["melanoma"]), ({}, "melanoma", ["melanoma"]),
    ],
)  # fmt: skip
def test_two_names_of_a_class_are_an_error(tmp_path, facts, label, classes):
    """A number says nothing against a name: it may be its index."""
    members = [*sample("a", facts), ("a.cls", label.encode()), *sample("b", {"dx": "nevus"}, 1)]
    shard(tmp_path / "0.tar", members)
    table, found = load(tmp_path, columns={"class": "dx"})
    assert table.classes == [*classes, "nevus"]
    told = [(one.where, one.found) for one in found.kept]
    assert told == ([] if classes else [(f'{tmp_path}/0.tar, a.png, key "dx"', '"nevus", and "melanoma" in .cls')])


def test_a_split_in_json_must_be_that_of_the_shard(tmp_path):
    shard(tmp_path / "train.tar", sample("a", {"class": "x", "split": "Training"}) + sample("b", {"split": "test"}))
    table, found = load(tmp_path)
    assert table.splits == ["train"]
    assert [(one.where, one.found) for one in found.kept] == [
        (f'{tmp_path}/train.tar, b.png, key "split"', '"test" in a shard of train')
    ]


@pytest.mark.parametrize(("name", "splits"), [("s-0.tar", None), ("train-0.tar", ["train", "train"])])
def test_a_split_in_json_is_not_used_where_the_study_says_null(tmp_path, name, splits):
    """The name of the shard still says its split."""
    shard(
        tmp_path / name,
        [*sample("a", {"class": "x", "split": "0"}), *sample("b", {"class": "y", "split": "test"}, 1)],
    )
    table, found = load(tmp_path, columns={"split": None})
    assert (table.splits, table.classes, found.kept) == (splits, ["x", "y"], [])


def test_the_class_of_a_cls_is_not_used_where_the_study_says_null(tmp_path):
    named = sample("a", {"class": "one", "subclass": "x"})
    shard(tmp_path / "s.tar", [*named, ("a.cls", b"other"), *sample("b", {"subclass": "y"}, 1)])
    study = make_study(
        {"data": {"kind": "webdataset", "root": str(tmp_path), "columns": {"class": None}},
         "hierarchy": {"one": ["x"], "two": ["y"]}}
    )  # fmt: skip
    findings = Findings()
    assert (read(study, findings).classes, findings.kept) == (None, [])


@pytest.mark.parametrize(
    ("wrong", "where", "found"),
    [
        ([("c.json", {"class": "x"})], "c", "no image beside .json"),
        ([*sample("c", {}), ("c.jpg", b"1")], "c", '2 images, "c.png" and "c.jpg"'),
        ([*sample("c", {}), *sample("c", {})], "c.png", 'the key "c" twice with .png'),
        ([("c.png", png()), ("c.json", b"{'class'")], "c", ".json that cannot be read (Expecting property name"),
        ([("c.png", png()), ("c.json", b'{"a": 1, "a": 2}')], "c", ".json that cannot be read (a key twice)"),
        ([("c.png", png()), ("c.json", b'"\xff"')], "c", ".json that cannot be read (bytes that are not UTF-8)"),
        ([("c.png", png()), ("c.json", b"[" * 9999)], "c", ".json that cannot be read (maximum recursion"),
        ([("c.png", png()), ("c.json", b"[]")], "c", ".json of a list"),
        ([("c.png", png()), ("c.json", b" " * 2**20 + b"1")], "c", ".json of 1,048,577 bytes"),
        ([("c.png", png()), ("c.cls", b"1" * 2**21)], "c", "a .cls of 2,097,152 bytes"),
        ([("c.png", b""), ("c.cls", b"x")], "c", '"c.png" of 0 bytes'),
        ([*sample("c", {"class": ["x"]})], 'c.png, key "class"', "a list"),
        ([("../c.png", png())], "../c.png", '"../c.png"'),
        ([("/etc/c.png", png())], "/etc/c.png", '"/etc/c.png"'),
        ([("./", png())], ".", "a member without a name"),
        ([("..", png())], "..", '".."'),
        ([("\x1b[2Jc.png", png())], r"\x1b[2Jc.png", r'"\x1b[2Jc.png"'),
    ],
)  # fmt: skip
def test_a_member_that_is_wrong_is_named_and_the_others_stay(tmp_path, wrong, where, found):
    one = problem(tmp_path, *wrong)
    assert one.severity == "error"
    assert one.where == f"{tmp_path}/s-0.tar, {where}"
    assert one.found.startswith(found)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device or a pipe"),
        (tarfile.FIFOTYPE, "a device or a pipe"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, found):
    one = problem(tmp_path, ("c.png", b""), c=kind)
    assert (one.where, one.found) == (f"{tmp_path}/s-0.tar, c.png", found)


def test_folders_and_what_systems_leave_are_passed_over(tmp_path):
    members = [("./d/a.png", png()), ("./d/a.cls", b"x"), ("./d/._a.png", b"1"), ("__info__.json", b"1")]
    with tarfile.open(shard(tmp_path / "0.tar", members), "a") as archive:
        folder = tarfile.TarInfo("./d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    table, found = load(tmp_path)
    assert (table.names, found.kept) == (["0.tar/d/a.png"], [])


def cut(content):
    return content[: content.index(b"b.png") + 600]


def other_header(content):
    start = content.index(b"b.png")
    return content[:start] + b"\xff" + content[start + 1 :]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (cut, "a file that is no whole tar file (unexpected end of data)"),
        (
            lambda content: content.rstrip(b"\0") + b"\0" * (-len(content.rstrip(b"\0")) % 512),
            "a shard without the mark",
        ),
        (other_header, "no header of a member at byte "),
        (lambda content: content + content, "more data behind the mark of its end"),
        (lambda content: b"no tar" * 200, "a file that is no tar file ("),
        (gzip.compress, "a file that gzip has compressed"),
        (lambda content: b"", '"1.tar" of 0 bytes'),
    ],
)
def test_a_shard_that_is_not_whole_is_refused_and_the_others_stay(tmp_path, spoil, found):
    path = shard(tmp_path / "0.tar", [*sample("a", {"class": "x"}), ("b.png", png(1)), ("b.cls", b"y")])
    (tmp_path / "1.tar").write_bytes(spoil(path.read_bytes()))
    table, findings = load(tmp_path)
    assert table.names == ["0.tar/a.png", "0.tar/b.png"]
    (one,) = findings.kept
    assert one.where == str(tmp_path / "1.tar")
    assert one.found.startswith(found)


def test_a_shard_without_images_is_warned_of(tmp_path):
    shard(tmp_path / "0.tar", sample("a", {"class": "x"}))
    shard(tmp_path / "1.tar", [])
    (one,) = load(tmp_path)[1].kept
    assert (one.severity, one.where, one.found) == ("warning", f"{tmp_path}/1.tar", "no image")


def test_compressed_shards_and_files_beside_them_are_named(tmp_path):
    shard(tmp_path / "0.tar", sample("a", {"class": "x"}))
    shard(tmp_path / "odd.tar/1.tar", sample("a", {"class": "x"}))
    (tmp_path / "1.tar.gz").write_bytes(b"1")
    (tmp_path / "labels.csv").write_bytes(b"1")
    found = load(tmp_path)[1].kept
    assert [(one.severity, one.where, one.found) for one in found] == [
        ("warning", str(tmp_path), "files that are no shards: 1 with .csv"),
        ("error", f"{tmp_path}/1.tar.gz", "a compressed archive"),
        ("error", f"{tmp_path}/odd.tar/1.tar", "a file in a folder named like a shard"),
    ]


def test_a_check_names_damage_and_copies_inside_shards(tmp_path):
    members = [member for k in range(40) for member in sample(k, {"class": "xy"[k % 2]}, k)]
    members += [("damaged.png", png(9, side=64)[:900]), ("damaged.cls", b"x"), *sample("copy", {"class": "y"}, 0)]
    shard(tmp_path / "0.tar", members)
    chosen = {"data": {"kind": "webdataset", "root": str(tmp_path), "size": 8}}
    found = [one for one in check_study(make_study(chosen))["findings"] if one["severity"] == "error"]
    assert [(one["kind"], one["where"]) for one in found][:2] == [
        ("unreadable image", f"{tmp_path}/0.tar, damaged.png"),
        ("duplicate with another label", f"{tmp_path}/0.tar, 0.png"),
    ]


def test_a_shard_that_changed_while_a_run_goes_on_stops_it(tmp_path):
    path = shard(tmp_path / "0.tar", sample("a", {"class": "x"}))
    table, _ = load(tmp_path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"0\.tar, a\.png: found a shard that ends inside this image"):
        read_header(table.path(0))
    path.unlink()
    with pytest.raises(UserError, match=r"0\.tar, a\.png: found no file"):
        read_header(table.path(0))
    with pytest.raises(UserError, match="at most 1,073,741,824"):
        Member(str(path), "a.png", 0, LARGEST + 1).read()


def test_images_without_labels_may_lie_beside_as_files(both, tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others/1.png").write_bytes(png(1, side=28))
    data = {"unlabelled": str(tmp_path / "others"), "store_limit": 0}
    samples = load_samples(study(both / "shards", data=data, distillation={"unlabelled": True}))
    assert samples.unlabelled.tolist() == [60]
    assert samples.images[np.array([60, 0])].shape == (2, 1, 28, 28)


def test_shards_in_a_store_are_read_there(both, tmp_path):
    store = fsspec.filesystem("memory")
    store.put(str(both / "shards"), "/bucket/shards", recursive=True)
    root = "memory://bucket/shards"
    for limit in (50.0, 0.0):
        data = {"kind": "webdataset", "root": root, "store_limit": limit}
        samples = load_samples(make_study({"data": data}))
        here = load_samples(study(both / "shards"))
        assert samples.table.names == here.table.names
        assert np.array_equal(samples.images[np.arange(60)], here.images)
        assert len(samples.test) == 20
    assert samples.table.place(0) == f"{root}/test/0.tar, w/0000.png"
    sent = make_study({"data": data})
    assert Study.model_validate_json(sent.model_dump_json()) == sent  # as other machines get it
    (tmp_path / "others").mkdir()
    (tmp_path / "others/1.png").write_bytes(png(1, side=28))
    data |= {"unlabelled": str(tmp_path / "others")}
    samples = load_samples(make_study({"data": data, "distillation": {"unlabelled": True}}))
    assert samples.images[np.array([60])].shape == (1, 1, 28, 28)
    store.rm("/bucket/shards/test/0.tar")
    with pytest.raises(UserError, match=r"memory://bucket/shards/test/0\.tar: found FileNotFoundError"):
        samples.images[np.array([0])]
    with pytest.raises(UserError, match=r"memory://nobody: found no file in \.tar"):
        read(make_study({"data": data | {"root": "memory://nobody"}}), Findings())
    with pytest.raises(UserError, match=r'the URL "memory://bucket"; expected the folder of the images'):
        load_samples(make_study({"data": {"kind": "folder", "root": "memory://bucket"}}))


def test_init_says_that_folds_in_the_json_are_not_used(tmp_path):
    facts = [{"class": "ab"[k % 2], "split": str(k // 2 % 5)} for k in range(40)]
    shard(tmp_path / "s-0.tar", [member for k in range(40) for member in sample(f"{k}", facts[k], k)])
    assert "    class: class\n    split: null\n" in init(tmp_path, measure=False)


def test_init_writes_a_study_of_shards(both):
    text = init(both / "shards", measure=False)
    assert "kind: webdataset" in text
    assert "    class: class\n    subclass: subclass\n    split: split\n" in text
    assert "- w  # 15 images" in text
