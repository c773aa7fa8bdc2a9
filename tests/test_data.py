"""From files to samples: what is read, how it is split and marked, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subclass_kd.data.fashion_mnist import NAMES, read, read_idx
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import FASHION_HIERARCHY, load_samples
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

SHARED = Path(__file__).parents[2] / "shared/data/fashion_mnist_3000_1000.npz"
UPPER = ["T-shirt/top", "Pullover", "Dress", "Coat", "Shirt"]
OTHER = ["Trouser", "Sandal", "Sneaker", "Bag", "Ankle boot"]


def load(root=None, **content):
    data = content.pop("data", {})
    return load_samples(make_study({"data": {**data, **({"root": str(root)} if root else {})}, **content}))


def refused(call, *arguments, **content):
    with pytest.raises(UserError) as caught:
        call(*arguments, **content)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def arrays(folder):
    """Read a folder's (train images, train labels, test images, test labels), writeable."""
    names = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return [read_idx(folder / name, 3 if "images" in name else 1).copy() for name in names]


# IDX files


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(3,), (2, 5, 4), (0, 28, 28)])
def test_an_idx_file_is_read_as_it_was_written(write_idx, tmp_path, shape, suffix):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / f"file{suffix}", array)
    found = read_idx(tmp_path / f"file{suffix}", len(shape))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


def test_an_idx_header_is_the_one_in_the_format_s_description(tmp_path):
    content = bytes.fromhex("00000803000000010000000200000003") + bytes([1, 2, 3, 4, 5, 6])
    (tmp_path / "file").write_bytes(content)
    assert read_idx(tmp_path / "file", 3).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "first bytes missing"),
        (b"PK\3\4zip", "first bytes 504b0304"),
        (bytes.fromhex("0000080100000001") + b"1", "first bytes 00000801"),
        (bytes.fromhex("0000080300000001"), "8 bytes"),
        (bytes.fromhex("00000803000000020000000200000002") + b"1234567", "7 bytes of data"),
        (bytes.fromhex("00000803000000010000000200000002") + b"12345", "5 bytes of data"),
        (bytes.fromhex("00000803ffffffffffffffffffffffff") + b"1", "1 bytes of data"),
    ],
)
def test_a_file_that_is_no_whole_idx_file_is_refused_with_what_it_holds(tmp_path, content, found):
    path = tmp_path / "images"
    path.write_bytes(content)
    error = refused(read_idx, path, 3)
    assert error.where == str(path)
    assert error.found == found


@pytest.mark.parametrize("damage", ["truncated", "plain", "flipped"])
def test_a_damaged_gzip_file_is_refused(write_idx, tmp_path, damage):
    path = tmp_path / "images.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (4, 9, 9), np.uint8))
    content = path.read_bytes()
    damaged = {"truncated": content[:-20], "plain": b"not gzip", "flipped": content[:60] + b"XXXX" + content[64:]}
    path.write_bytes(damaged[damage])
    assert refused(read_idx, path, 3).found.startswith("a file that cannot be read")


# The four files


def test_plain_and_gzipped_files_give_the_same_samples(small_idx_folder, write_idx, tmp_path):
    for path in small_idx_folder.iterdir():
        write_idx(tmp_path / f"{path.name}.gz", read_idx(path, 3 if "images" in path.name else 1))
    plain, gzipped = load(small_idx_folder), load(tmp_path)
    assert plain.fingerprint == gzipped.fingerprint
    assert np.array_equal(plain.images, gzipped.images)


@pytest.mark.parametrize("missing", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_a_missing_file_is_named(small_idx_folder, tmp_path, missing):
    for path in small_idx_folder.iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert refused(load, tmp_path).found == f"no file {missing} or {missing}.gz"
    assert refused(load, tmp_path / "nowhere").where == str(tmp_path / "nowhere")


def test_files_that_do_not_fit_together_are_refused(small_idx_folder, write_idx_folder, tmp_path):
    images, labels, test_images, test_labels = arrays(small_idx_folder)

    def refusal(*parts):
        return refused(load, write_idx_folder(tmp_path / "data", *parts))

    error = refusal(images, labels[:-1], test_images, test_labels)
    assert (error.found, error.expected) == ("399 labels", "400, one for each image")
    wrong = test_labels.copy()
    wrong[7] = 10
    error = refusal(images, labels, test_images, wrong)
    assert error.where.endswith("t10k-labels-idx1-ubyte, item 7")
    assert (error.found, error.expected) == ("label 10", "0 to 9")
    assert "test images of (14, 14) pixels" in refusal(images, labels, test_images[:, ::2, ::2], test_labels).found
    assert "shape (0, 28, 28)" in refusal(images[:0], labels[:0], test_images, test_labels).found
    assert "shape (400, 0, 28)" in refusal(images[:, :0], labels, test_images[:, :0], test_labels).found


def test_a_file_that_changes_under_a_running_process_is_read_anew(small_idx_folder, write_idx_folder, tmp_path):
    parts = arrays(small_idx_folder)
    first = load(write_idx_folder(tmp_path, *parts))
    parts[0][0, 0, 0] ^= 1
    second = load(write_idx_folder(tmp_path, *parts))
    assert second.images[0, 0, 0, 0] == first.images[0, 0, 0, 0] ^ 1
    assert second.fingerprint != first.fingerprint


# The embedded selection


def embedded():
    """Give (images, labels, whether each is for the test) of the embedded selection."""
    table = read(make_study({}), Findings())
    labels = np.array([NAMES.index(name) for name in table.subclasses])
    return table.images, labels, np.array(table.splits) == "test"


def test_the_embedded_selection_has_300_training_and_350_test_images_of_each_subclass():
    images, labels, is_test = embedded()
    assert images.shape == (6500, 1, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels[~is_test]).tolist() == [300] * 10
    assert np.bincount(labels[is_test]).tolist() == [350] * 10


def test_the_embedded_selection_holds_no_image_twice_across_training_and_test():
    images, _, is_test = embedded()
    train, test = ({image.tobytes() for image in images[part]} for part in (~is_test, is_test))
    assert len(train) == 3000
    assert not train & test


def test_the_embedded_training_images_are_the_first_300_a_class_of_the_official_file():
    if not SHARED.exists():
        pytest.skip(f"the independent selection is not here: {SHARED}")
    images, labels, is_test = embedded()
    with np.load(SHARED) as other:
        assert tuple(str(name) for name in other["names"]) == NAMES
        for split, ours in (("train", ~is_test), ("test", is_test)):
            mine, theirs = (
                {(label, image.tobytes()) for label, image in zip(numbers.tolist(), pictures, strict=True)}
                for numbers, pictures in (
                    (labels[ours], images[ours, 0]),
                    (other[f"{split}_labels"], other[f"{split}_images"]),
                )
            )
            assert theirs <= mine if split == "test" else theirs == mine


def test_the_default_hierarchy_has_every_subclass_once():
    members = [name for names in FASHION_HIERARCHY.values() for name in names]
    assert sorted(members) == sorted(NAMES)


# Split


def test_the_splits_are_disjoint_sorted_and_the_owners_test_images_stay_the_test(small_idx_folder):
    samples = load(small_idx_folder)
    assert [len(rows) for rows in (samples.train, samples.validation, samples.test)] == [320, 80, 200]
    rows = np.concatenate([samples.train, samples.validation, samples.test])
    assert np.array_equal(np.sort(rows), np.arange(600))
    assert np.array_equal(samples.test, np.arange(400, 600))
    for part in (samples.train, samples.validation):
        assert np.array_equal(part, np.unique(part))


@pytest.mark.parametrize(("share", "use"), [(0.2, None), (0.37, None), (0.5, 201), (0.11, 257), (0.05, 400)])
def test_each_subclass_is_drawn_within_one_image_of_its_exact_share(write_idx_folder, tmp_path, share, use):
    """Subclass k has 12 + 7 k training images: the largest remainder keeps each count between floor and ceiling."""
    labels = np.repeat(np.arange(10), 12 + 7 * np.arange(10))
    test = np.arange(20) % 10
    folder = write_idx_folder(tmp_path, *(part for y in (labels, test) for part in (np.zeros((len(y), 2, 2)), y)))
    samples = load(folder, data={"validation": share, "train_images": use})
    counts = {
        split: np.array([row[split] for row in samples.describe()["subclasses"]]) for split in ("train", "validation")
    }
    by_name = [NAMES.index(name) for name in samples.hierarchy.subclasses]
    sizes, used = np.bincount(labels)[by_name], use or len(labels)
    assert counts["train"].sum() + counts["validation"].sum() == used
    assert counts["validation"].sum() == round(used * share)
    drawn = counts["train"] + counts["validation"]
    assert (np.abs(drawn - sizes * used / len(labels)) < 1).all()
    assert (np.abs(counts["validation"] - drawn * (counts["validation"].sum() / used)) < 1).all()


def test_the_largest_remainders_get_the_odd_images(write_idx_folder, tmp_path):
    """By hand: a third of 8, 7, 3 is 2.67, 2.33, 1, so of 6 the first subclass has 3, the others 2 and 1."""
    labels = np.repeat([0, 1, 2], [8, 7, 3])
    labels = np.concatenate([labels, np.repeat(np.arange(3, 10), 6)])  # a third of these is 2 each
    test = np.arange(10)
    folder = write_idx_folder(tmp_path, *(part for y in (labels, test) for part in (np.zeros((len(y), 2, 2)), y)))
    samples = load(folder, data={"validation": 1 / 3})
    counts = {row["name"]: row["validation"] for row in samples.describe()["subclasses"]}
    assert [counts[name] for name in NAMES] == [3, 2, 1, 2, 2, 2, 2, 2, 2, 2]


def test_the_split_depends_on_data_and_study_data_alone(small_idx_folder):
    def rows(**content):
        samples = load(small_idx_folder, **content)
        return samples.train.tolist(), samples.validation.tolist()

    first = rows()
    assert rows() == first
    assert rows(seeds=[7], positive="lower", augment={"flip": False}, student={"epochs": 1}) == first
    assert rows(hierarchy={"upper": UPPER, "other": OTHER}) == first
    assert rows(hierarchy={"other": OTHER[::-1], "upper": UPPER[::-1]}) == first
    assert rows(data={"channels": 3, "size": 16}) == first
    assert rows(data={"validation": 0.25}) != first


def test_the_embedded_split_is_the_same_on_every_machine():
    samples = load()
    assert [len(rows) for rows in (samples.train, samples.validation, samples.test)] == [2400, 600, 3500]
    assert {row["train"] for row in samples.describe()["subclasses"]} == {240}
    assert samples.validation[:8].tolist() == [8, 18, 19, 22, 26, 29, 35, 36]


def test_fewer_training_images_are_a_stratified_part_of_them(small_idx_folder):
    samples = load(small_idx_folder, data={"train_images": 200})
    assert [row["train"] + row["validation"] for row in samples.describe()["subclasses"]] == [20] * 10
    assert samples.test.tolist() == list(range(400, 600))


# Labels


def test_labels_follow_the_names_whatever_the_order_of_the_hierarchy(small_idx_folder):
    samples = load(small_idx_folder, hierarchy={"other": OTHER, "upper": UPPER}, positive="other")
    names = [samples.hierarchy.subclasses[label] for label in samples.subclass_labels]
    assert names == [NAMES[k % 10] for k in range(400)] + [NAMES[k % 10] for k in range(200)]
    assert (samples.class_labels == [int(name in UPPER) for name in names]).all()
    assert (samples.positive, load(small_idx_folder).positive) == (0, 1)


def test_a_description_counts_what_is_there(small_idx_folder):
    description = load(small_idx_folder).describe()
    assert description["classes"] == list(FASHION_HIERARCHY)
    assert description["positive"] == "lower"
    assert description["image_shape"] == [1, 28, 28]
    assert description["subclasses"][0] == {
        "name": "T-shirt/top", "class": "upper", "train": 32, "validation": 8, "test": 20,
    }  # fmt: skip


# Refusals


def test_a_hierarchy_that_does_not_fit_the_data_is_refused(small_idx_folder):
    def refusal(hierarchy):
        return refused(load, small_idx_folder, hierarchy=hierarchy)

    error = refusal({"upper": ["Tshirt/top", *UPPER[1:]], "other": OTHER})
    assert error.where == 'key "hierarchy.upper"'
    assert (error.found, error.remedy) == ('"Tshirt/top"', 'Did you mean "T-shirt/top"?')
    error = refusal({"upper": UPPER[1:], "other": OTHER[1:]})
    assert error.found == "8 subclasses, without T-shirt/top, Trouser"
    assert error.expected.startswith("all 10 subclasses")
    assert refusal({"upper": UPPER, "other": [*OTHER, "Coat"]}).found == '"Coat", which "upper" has too'
    assert refusal({"upper": [*UPPER, "Coat"], "other": OTHER}).found == '"Coat", which "upper" has too'
    assert refusal({"all": list(NAMES)}).found == "the classes ['all']"
    assert refusal({}).found == "the classes []"
    error = refusal({"upper": UPPER, "other": OTHER, "none": []})
    assert (error.where, error.found) == ('key "hierarchy.none"', "no subclass")


def test_an_unknown_positive_class_is_refused_with_the_nearest(small_idx_folder):
    error = refused(load, small_idx_folder, positive="lwoer")
    assert error.where == 'key "positive"'
    assert error.remedy == 'Did you mean "lower"?'


def test_a_training_set_of_one_class_is_refused(small_idx_folder, write_idx_folder, tmp_path):
    images, labels, *test = arrays(small_idx_folder)
    folder = write_idx_folder(tmp_path, images, np.zeros_like(labels), *test)
    error = refused(load, folder)
    assert (error.where, error.found) == (str(folder), 'no training image of class "lower"')


def test_too_few_images_are_refused_and_named(small_idx_folder, write_idx_folder, tmp_path):
    images, labels, test_images, test_labels = arrays(small_idx_folder)
    error = refused(load, small_idx_folder, data={"train_images": 15})
    assert error.found == '1 training image(s) of subclass "T-shirt/top"'
    assert refused(load, small_idx_folder, data={"train_images": 4}).found.startswith("0 training image(s)")
    error = refused(load, small_idx_folder, data={"train_images": 401})
    assert (error.where, error.found) == ('key "data.train_images"', "401")
    assert error.expected == "at most 400, as many as there are"
    keep = np.isin(test_labels, [0, 2])
    folder = write_idx_folder(tmp_path, images, labels, test_images[keep], test_labels[keep])
    assert refused(load, folder).found == 'no test image of class "lower"'


# Pixels


def test_images_are_resized_as_pillow_does_and_channels_are_copies(small_idx_folder):
    plain, small = load(small_idx_folder), load(small_idx_folder, data={"size": 14, "channels": 3})
    assert small.images.shape == (600, 3, 14, 14)
    assert small.images.dtype == np.uint8
    by_hand = np.asarray(Image.fromarray(plain.images[5, 0]).resize((14, 14), Image.Resampling.BILINEAR))
    for channel in range(3):
        assert np.array_equal(small.images[5, channel], by_hand)
    assert np.array_equal(load(small_idx_folder, data={"size": 28}).images, plain.images)


def test_resizing_keeps_an_even_grey_even(write_idx_folder, tmp_path):
    y = np.arange(100) % 10
    folder = write_idx_folder(tmp_path, *[np.full((100, 8, 8), 77), y] * 2)
    assert np.unique(load(folder, data={"size": 20}).images).tolist() == [77]


# Fingerprint


def test_the_fingerprint_changes_with_a_pixel_a_label_a_split_or_a_name_and_with_nothing_else(
    small_idx_folder, write_idx_folder, tmp_path
):
    def mark(*parts, **content):
        return load(write_idx_folder(tmp_path / "data", *parts), **content).fingerprint

    parts = arrays(small_idx_folder)
    first = mark(*parts)
    same = [
        mark(*parts),
        load(small_idx_folder).fingerprint,
        mark(*parts, seeds=[9], student={"epochs": 1}, arms=["skd"], workers=2, device="cpu"),
        mark(*parts, positive="lower"),
        mark(*parts, hierarchy=FASHION_HIERARCHY),
        mark(*parts, data={"size": 28, "train_images": 400}),
    ]
    assert set(same) == {first}
    others = [
        mark(*parts, positive="upper"),
        mark(*parts, data={"validation": 0.25}),
        mark(*parts, data={"train_images": 399}),
        mark(*parts, data={"channels": 3}),
        mark(*parts, hierarchy={"above": FASHION_HIERARCHY["upper"], "lower": FASHION_HIERARCHY["lower"]}),
        mark(*parts, hierarchy={"lower": FASHION_HIERARCHY["lower"], "upper": FASHION_HIERARCHY["upper"]}),
        mark(*parts, hierarchy={"upper": UPPER, "other": OTHER}),
    ]
    for which, place in ((0, (3, 4, 5)), (1, 11), (2, (199, 27, 27)), (3, 0)):
        changed = [part.copy() for part in parts]
        changed[which][place] = (changed[which][place] + 1) % 10
        others.append(mark(*changed))
    assert len({first, *others}) == 1 + len(others)
