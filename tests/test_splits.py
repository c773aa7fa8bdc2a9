"""Splits: given or made, in proportion, no group on two sides, and the same for ever."""

import hashlib
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from subclass_kd.config import Data
from subclass_kd.data.fashion_mnist import EMBEDDED
from subclass_kd.data.findings import Findings
from subclass_kd.data.splits import draw, grouped_parts, make_splits
from subclass_kd.errors import UserError


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def split(labels, splits=None, groups=None, findings=None, **data):
    noted = Findings()
    found = make_splits(Data(**data), np.asarray(labels, np.int64), splits, groups, "cases.csv", noted)
    if findings is None:
        assert noted.counts == {}
    else:
        findings.kept.extend(noted.kept)
    return found


def parts_of(splits):
    return splits.train, splits.validation, splits.test


def refused(*arguments, **options):
    with pytest.raises(UserError) as caught:
        split(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def named(codes):
    return [f"p{code}" for code in codes]


def random_groups(seed, groups=(60, 400)):
    """Labels that go with the patient, as in life: (labels, groups, number of parts)."""
    random = np.random.default_rng(seed)
    count, kinds, folds = random.integers(*groups), random.integers(2, 10), int(random.integers(2, 8))
    codes = np.repeat(np.arange(count), 1 + random.poisson(4, count))
    prior = random.dirichlet(np.ones(kinds) * 5)
    held = random.multinomial(np.bincount(codes), random.dirichlet(prior * 3 + 1e-3, count))  # (groups, kinds)
    labels = np.repeat(np.tile(np.arange(kinds), count), held.ravel())
    return np.unique(labels, return_inverse=True)[1], codes, folds


# Drawing by label


def test_the_largest_remainders_get_the_odd_rows():
    """By hand: a third of 8, 7, 3 is 2.67, 2.33, 1, so of 6 the first label has 3, the others 2 and 1."""
    labels = np.repeat([4, 7, 9], [8, 7, 3])
    drawn, left = draw(np.arange(18), labels, 6, generator())
    assert [int((labels[drawn] == label).sum()) for label in (4, 7, 9)] == [3, 2, 1]
    assert sorted([*drawn, *left]) == list(range(18))
    assert (np.diff(drawn) > 0).all()
    assert (np.diff(left) > 0).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 99))
def test_a_draw_is_within_one_row_of_each_label_s_share(values, share, seed):
    labels, rows = np.array(values), np.flatnonzero(np.arange(len(values)) % 4 != 1)
    count = round(share * len(rows))
    drawn, left = draw(rows, labels, count, generator(seed))
    assert len(drawn) == count
    assert np.array_equal(np.union1d(drawn, left), rows)
    exact = np.bincount(labels[rows], minlength=6) * count / len(rows)
    assert (np.abs(np.bincount(labels[drawn], minlength=6) - exact) < 1).all()


@pytest.mark.parametrize(
    ("data", "train", "validation"),
    [
        ({}, "28c592ce5cd6c8f2", "67b4a22c85e77adf"),
        ({"train_images": 1000}, "d3f2658c139b1fa5", "855340f9fb46cd9d"),
        ({"train_images": 2999, "validation": 0.37}, "a8e172284b6dedf3", "abfdb09ec912844e"),
        ({"validation": 0.02}, "8f3af000c2b745f9", "da7f7b9166d77090"),
    ],
)
def test_the_embedded_fashion_mnist_is_split_as_by_version_0_1(data, train, validation):
    """Fingerprints of the row numbers that version 0.1.0, before it knew of groups, gave for the same keys."""
    with np.load(EMBEDDED) as stored:
        labels = np.concatenate([stored["train_labels"], stored["test_labels"]])
    found = split(labels, splits=["train"] * 3000 + ["test"] * 3500, **data)
    marks = [hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] for rows in parts_of(found)]
    assert marks == [train, validation, "6687b31c6480f0ba"]


# Parts that keep groups whole


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", *"abcdefgh"])), min_size=1, max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_no_group_is_in_two_parts_and_no_part_is_empty(rows, weights, seed):
    labels, groups = np.array([label for label, _ in rows]), [group for _, group in rows]
    shares = [weight / sum(weights) for weight in weights]
    parts = grouped_parts(labels, groups, shares, generator(seed))
    assert parts.shape == labels.shape
    assert parts.dtype == np.int64
    for group in set(groups) - {""}:
        assert len({part for part, of in zip(parts, groups, strict=True) if of == group}) == 1
    count = len(set(groups) - {""}) + groups.count("")
    assert len(set(parts.tolist())) == min(count, len(shares))
    assert np.array_equal(parts, grouped_parts(labels, groups, shares, generator(seed)))


def test_groups_may_be_names_or_numbers():
    labels, codes, folds = random_groups(3)
    by_number = grouped_parts(labels, codes, [1 / folds] * folds, generator())
    assert np.array_equal(by_number, grouped_parts(labels, named(codes), [1 / folds] * folds, generator()))


def test_a_greedy_pass_by_hand():
    """Each part is due 2 rows of either label, 4 in all. Groups a (label 0) and b (label 1) hold 3 rows, c and d one.

    a fills a part first, or b. The other adds 3 * 3/2 for its label in either part, but for size 3 * (6 + 3)/4 beside
    the first and 3 * 3/4 apart from it. Then c, label 0, adds (6 + 1)/2 beside a and 1/2 beside b; d the reverse.
    """
    labels, groups = np.array([0, 0, 0, 1, 1, 1, 0, 1]), list("aaabbbcd")
    for seed in range(10):
        parts = grouped_parts(labels, groups, [0.5, 0.5], generator(seed))
        assert parts[0] == parts[2] == parts[7] != parts[3] == parts[5] == parts[6]


def test_shares_need_not_be_equal():
    labels, codes, _ = random_groups(0)
    shares = [0.7, 0.2, 0.1]
    parts = grouped_parts(labels, codes, shares, generator())
    assert np.bincount(parts) / len(parts) == pytest.approx(shares, abs=0.005)
    for label in range(labels.max() + 1):
        assert np.bincount(parts[labels == label]) / (labels == label).sum() == pytest.approx(shares, abs=0.03)


def test_another_seed_gives_another_cut():
    labels, codes, folds = random_groups(1)
    cuts = [grouped_parts(labels, codes, [1 / folds] * folds, generator(seed)) for seed in (0, 1)]
    assert not np.array_equal(*cuts)


def test_a_share_smaller_than_any_group_still_has_one():
    parts = grouped_parts(np.zeros(20, np.int64), named(np.arange(20) // 10), [0.95, 0.05], generator())
    assert sorted(np.bincount(parts)) == [10, 10]


def test_parts_are_no_further_from_their_shares_than_scikit_learn_s():
    """Means over 40 data sets of how far a part's shares of labels, and its size, are from the whole's."""
    ours, theirs = [], []
    for seed in range(40):
        labels, codes, folds = random_groups(seed, groups=(40, 200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a label with fewer rows than folds
            cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, codes)
            reference = np.empty(len(labels), np.int64)
            for part, (_, rows) in enumerate(cut):
                reference[rows] = part
        for parts, deviations in (
            (grouped_parts(labels, codes, [1 / folds] * folds, generator(seed)), ours),
            (reference, theirs),
        ):
            counts = np.zeros((folds, labels.max() + 1))
            np.add.at(counts, (parts, labels), 1)
            sizes, whole = counts.sum(1, keepdims=True), counts.sum(0) / counts.sum()
            off_shares = np.abs(counts / sizes - whole)
            deviations.append([off_shares.mean(), off_shares.max(), np.abs(sizes * folds / len(labels) - 1).max()])
    ours, theirs = np.mean(ours, axis=0), np.mean(theirs, axis=0)
    assert (ours <= theirs).all()
    assert ours[2] < theirs[2] * 0.6  # sizes are half as far off


def test_fifty_thousand_groups_are_shared_out_in_seconds():
    random = np.random.default_rng(0)
    groups = np.concatenate([np.arange(50_000), random.integers(0, 50_000, 50_000)])
    labels = random.integers(0, 10, 100_000)
    started = time.perf_counter()
    parts = grouped_parts(labels, groups, [0.2] * 5, generator())
    assert time.perf_counter() - started < 6  # 0.7 s on an idle core
    assert np.ptp(np.bincount(parts)) <= 10


# Whole splits


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["", *"abcdefgh"]), st.sampled_from(["train", "validation", "test"])
        ),
        min_size=12,
        max_size=80,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 2, 3]),
)
def test_splits_are_disjoint_sorted_complete_and_keep_groups_whole(rows, with_splits, with_groups, folds):
    labels, groups, splits = zip(*rows, strict=True)
    options = {"splits": list(splits) if with_splits else None, "groups": list(groups) if with_groups else None}
    findings = Findings()
    try:
        found = split(labels, **options, findings=findings, folds=folds)
    except UserError:
        return
    for part in parts_of(found):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert sorted(np.concatenate(parts_of(found))) == list(range(len(labels)))
    if with_splits and folds is None and "test" in splits:
        assert found.test.tolist() == [row for row, of in enumerate(splits) if of == "test"]
    if with_groups and not findings.kept:
        sides = [{groups[row] for row in part} - {""} for part in parts_of(found)]
        assert len(set().union(*sides)) == sum(len(side) for side in sides)


LABELS = np.arange(1000) % 4


def test_without_a_split_a_share_of_each_label_tests_and_of_the_rest_validates():
    found = split(LABELS, test=0.3, validation=0.1)
    assert [np.bincount(LABELS[part]).tolist() for part in parts_of(found)] == [
        [157, 157, 158, 158], [18, 18, 17, 17], [75, 75, 75, 75],
    ]  # fmt: skip
    again = split(LABELS, test=0.3, validation=0.1)
    assert all(np.array_equal(*pair) for pair in zip(parts_of(found), parts_of(again), strict=True))


def test_given_rows_stay_where_they_are_and_only_training_rows_are_fewer():
    splits = ["train"] * 700 + ["validation"] * 100 + ["test"] * 200
    found = split(LABELS, splits, train_images=300)
    assert np.bincount(LABELS[found.train]).tolist() == [75] * 4
    assert found.train.max() < 700
    assert found.validation.tolist() == list(range(700, 800))
    assert found.test.tolist() == list(range(800, 1000))


def test_a_given_validation_split_alone_leaves_the_test_to_be_drawn_from_the_others():
    found = split(LABELS, ["validation"] * 100 + ["train"] * 900)
    assert found.validation.tolist() == list(range(100))
    assert (len(found.test), len(found.train)) == (180, 720)


def test_a_given_test_split_alone_leaves_validation_to_be_drawn_by_group():
    groups = ["" if row % 5 == 0 else f"p{row // 7}" for row in range(1000)]
    found = split(LABELS, ["train"] * 798 + ["test"] * 202, groups)  # 798 = 7 * 114: no group on both sides
    assert found.test.tolist() == list(range(798, 1000))
    assert len(found.validation) == pytest.approx(0.2 * 798, abs=3)
    assert not {groups[r] for r in found.train} & {groups[r] for r in found.validation} - {""}


def test_groups_that_are_all_empty_are_no_groups():
    with_empty, without = split(LABELS, groups=[""] * 1000), split(LABELS)
    assert all(np.array_equal(*pair) for pair in zip(parts_of(with_empty), parts_of(without), strict=True))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("splits", [None, ["train"] * 500 + ["test"] * 503])
def test_folds_test_every_image_once_whatever_the_given_split(grouped, splits):
    labels = np.random.default_rng(0).integers(0, 4, 1003)
    groups = named(np.arange(1003) // 5) if grouped else None
    found = [split(labels, splits, groups, folds=5, fold=fold) for fold in range(5)]
    assert sorted(np.concatenate([each.test for each in found])) == list(range(1003))
    # Grouped, 200 groups of 5 images and one of 3.
    sizes = [200, 200, 200, 200, 203] if grouped else [200, 200, 201, 201, 201]
    assert sorted(len(each.test) for each in found) == sizes
    for each in found:
        assert sorted(np.concatenate(parts_of(each))) == list(range(1003))
        share = np.bincount(labels[each.test]) - np.bincount(labels) / 5
        assert np.abs(share).max() < (4 if grouped else 1)
        assert len(each.validation) == pytest.approx(0.2 * (1003 - len(each.test)), abs=3)
        if grouped:
            assert not {groups[row] for row in each.test} & {groups[row] for row in [*each.train, *each.validation]}


# Groups on two sides


def noted(splits, groups):
    findings = Findings()
    split(np.arange(len(groups)) % 2, splits, groups, findings=findings)
    for finding in findings.kept:
        assert (finding.severity, finding.kind, finding.where) == ("error", "group on two sides", "cases.csv")
        assert finding.expected == "each group in one split"
        assert "data.folds" in finding.remedy
    return [finding.found for finding in findings.kept]


def test_every_group_on_two_sides_of_a_given_split_is_named():
    groups = named([1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    splits = ["train", "train", "train", "test", "train", "train", "test", "test", "validation", "validation"]
    assert noted(splits, groups) == ['group "p2" in train and test']
    splits[8], splits[0] = "train", "validation"
    two = ["train and validation", "train and test", "train and validation"]
    assert noted(splits, groups) == [f'group "p{n}" in {sides}' for n, sides in zip((1, 2, 5), two, strict=True)]
    splits = ["test", "train", "validation", "test", *splits[4:]]
    assert noted(splits, [*groups[:1] * 3, *groups[3:]])[0] == 'group "p1" in train and validation and test'


def test_images_without_a_group_are_on_no_two_sides():
    split([0, 1] * 5, ["train"] * 6 + ["test"] * 4, ["", "", "a", "a", "b", "", "", "c", "", ""])


# Refusals


def test_more_training_images_than_there_are_are_refused():
    error = refused(LABELS, ["train"] * 600 + ["validation"] * 100 + ["test"] * 300, train_images=601)
    assert (error.where, error.found) == ('key "data.train_images"', "601")
    assert error.expected == "at most 600, as many as there are"


@pytest.mark.parametrize(
    ("groups", "expected"),
    [(named([0] * 500 + [1] * 500), "at most 2, as many as there are groups"), (None, None)],
)
def test_fewer_groups_than_folds_are_refused(groups, expected):
    if expected is None:
        error, expected = refused([0, 1, 0], folds=5), "at most 3, as many as there are images"
    else:
        error = refused(LABELS, None, groups, folds=5)
    assert (error.where, error.found, error.expected) == ('key "data.folds"', "5", expected)


def test_one_group_cannot_be_shared_out():
    error = refused(LABELS, None, ["p1"] * 1000)
    assert (error.where, error.found) == ("cases.csv", "1 group among 1000 images")
    assert error.expected == "at least 2, to share out between training and test"
    error = refused(LABELS, None, ["p1"] * 500 + ["p2"] * 500)
    assert error.found == "1 group among 500 images"
    assert error.expected == "at least 2, to share out between training and validation"


@pytest.mark.parametrize(
    ("labels", "splits"),
    [([], None), ([0, 1], ["test", "test"]), ([0, 1], ["validation", "validation"]), ([0, 1], ["test", "validation"])],
)
def test_no_image_to_train_on_is_refused(labels, splits):
    error = refused(labels, splits)
    assert (error.where, error.found) == ("cases.csv", "no training image")
