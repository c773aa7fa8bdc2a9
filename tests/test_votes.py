"""From annotators' votes to classes, subclasses and entropies; numbers worked by hand."""

import json
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subclass_kd import config
from subclass_kd.data.table import Votes
from subclass_kd.data.votes import agreement, positive_shares, resolve, vote_summary
from subclass_kd.errors import UserError

MHIST = ("HP", "SSA")
MHIST_TRAIN = [537, 497, 302, 209, 151, 106, 154, 219]  # images by SSA votes 0 to 7


def votes_of(*pairs):
    positive, annotators = zip(*pairs, strict=True)
    return Votes(np.array(positive, dtype=np.int64), np.array(annotators, dtype=np.int64))


def resolved(*pairs, classes=("benign", "malignant"), **rule):
    return resolve(votes_of(*pairs), config.Votes(**rule), classes)


def refused(*pairs, classes=("benign", "malignant"), **rule):
    with pytest.raises(UserError) as caught:
        resolved(*pairs, classes=classes, **rule)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def mhist_votes():
    positive = np.repeat(np.arange(8), MHIST_TRAIN)
    return Votes(positive, np.full(len(positive), 7))


# Classes


@pytest.mark.parametrize(
    ("tie", "classes"),
    [
        ("drop", ["no", "no", "", "yes", "yes", "no", "yes"]),
        ("negative", ["no", "no", "no", "yes", "yes", "no", "yes"]),
        ("positive", ["no", "no", "yes", "yes", "yes", "no", "yes"]),
    ],
)
def test_the_class_is_that_of_more_than_half_of_the_annotators(tie, classes):
    pairs = [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (1, 3), (2, 3)]
    found = resolved(*pairs, classes=("no", "yes"), tie=tie)
    assert [name.partition(" ")[0] for name in found.subclasses] == classes
    assert found.kept.tolist() == [name != "" for name in classes]
    assert found.kept.dtype == bool


def test_a_tie_given_to_a_class_is_a_subclass_of_it():
    assert resolved((1, 2), (2, 2), (0, 2), tie="positive").hierarchy == {
        "benign": ["benign 0/2"],
        "malignant": ["malignant 1/2", "malignant 2/2"],
    }
    assert resolved((1, 2), (2, 2), (1, 3), tie="negative").hierarchy == {
        "benign": ["benign 1/3", "benign 1/2"],
        "malignant": ["malignant 1"],
    }


def test_large_numbers_of_votes_are_told_apart_exactly():
    """As floats 2**53 and 2**53 + 1 are one number, and these votes a tie."""
    half = 2**53
    found = resolved((half, 2 * half + 1), (half + 1, 2 * half + 1))
    assert found.subclasses == [f"benign {half}/{2 * half + 1}", f"malignant {half + 1}/{2 * half + 1}"]


# Subclasses


def test_each_count_is_a_subclass_named_by_it_where_all_have_as_many_annotators():
    found = resolve(mhist_votes(), config.Votes(), MHIST)
    assert found.hierarchy == {
        "HP": ["HP 0/7", "HP 1/7", "HP 2/7", "HP 3/7"],
        "SSA": ["SSA 4/7", "SSA 5/7", "SSA 6/7", "SSA 7/7"],
    }
    assert list(Counter(found.subclasses).values()) == MHIST_TRAIN


def test_each_share_is_a_subclass_where_numbers_of_annotators_differ():
    found = resolved((0, 3), (0, 4), (2, 6), (1, 3), (1, 4), (2, 3), (4, 6), (3, 4), (3, 3))
    assert found.subclasses == [
        "benign 0", "benign 0", "benign 1/3", "benign 1/3", "benign 1/4",
        "malignant 2/3", "malignant 2/3", "malignant 3/4", "malignant 1",
    ]  # fmt: skip
    assert found.hierarchy == {
        "benign": ["benign 0", "benign 1/4", "benign 1/3"],
        "malignant": ["malignant 2/3", "malignant 3/4", "malignant 1"],
    }


def test_dropped_ties_have_no_say_in_the_names():
    assert resolved((0, 3), (3, 3), (2, 4)).subclasses == ["benign 0/3", "malignant 3/3", ""]


@pytest.mark.parametrize(
    ("annotators", "tie", "negative", "positive"),
    [
        (7, "drop", ["0-1/7", "0-1/7", "2-3/7", "2-3/7"], ["4-5/7", "4-5/7", "6-7/7", "6-7/7"]),
        (5, "drop", ["0-1/5", "0-1/5", "2/5"], ["3/5", "4-5/5", "4-5/5"]),
        (4, "drop", ["0-1/4", "0-1/4"], ["3-4/4", "3-4/4"]),
        (4, "positive", ["0-1/4", "0-1/4"], ["2/4", "3-4/4", "3-4/4"]),
        (4, "negative", ["0-1/4", "0-1/4", "2/4"], ["3-4/4", "3-4/4"]),
        (6, "negative", ["0-1/6", "0-1/6", "2-3/6", "2-3/6"], ["4/6", "5-6/6", "5-6/6"]),
        (1, "drop", ["0/1"], ["1/1"]),
    ],
)
def test_pairs_are_made_from_the_unanimous_end_of_each_class(annotators, tie, negative, positive):
    counts = [k for k in range(annotators + 1) if tie != "drop" or 2 * k != annotators]
    found = resolved(*[(k, annotators) for k in counts], classes=MHIST, subclasses="pairs", tie=tie)
    assert found.subclasses == [f"HP {name}" for name in negative] + [f"SSA {name}" for name in positive]
    assert found.hierarchy["SSA"] == [f"SSA {name}" for name in dict.fromkeys(positive)]


def test_a_pair_is_named_the_same_if_one_of_its_counts_is_missing():
    assert resolved((0, 7), (6, 7), classes=MHIST, subclasses="pairs").subclasses == ["HP 0-1/7", "SSA 6-7/7"]


@pytest.mark.parametrize(
    ("cuts", "names"),
    [
        ([1.0], ["100%", "<100%", "<100%", "<100%"]),
        ([0.8, 1.0], ["100%", "80-<100%", "<80%", "<80%"]),
        ([0.8], ["80-100%", "80-100%", "<80%", "<80%"]),
        ([0.75, 0.9], ["90-100%", "75-<90%", "<75%", "<75%"]),
        ([0.625, 1], ["100%", "62.5-<100%", "62.5-<100%", "<62.5%"]),
    ],
)
def test_cut_points_make_levels_of_agreement(cuts, names):
    """Of ten annotators 10, 8, 7 and 6 on the class's side, for either class."""
    pairs = [(0, 10), (2, 10), (3, 10), (4, 10), (10, 10), (8, 10), (7, 10), (6, 10)]
    found = resolved(*pairs, subclasses=cuts)
    assert found.subclasses == [f"{name} {level}" for name in ("benign", "malignant") for level in names]
    levels = list(dict.fromkeys(names))
    assert found.hierarchy == {
        "benign": [f"benign {level}" for level in levels],
        "malignant": [f"malignant {level}" for level in reversed(levels)],
    }


@pytest.mark.parametrize(
    ("cut", "side", "annotators", "reached"),
    [
        (0.6667, 2, 3, True), (0.67, 2, 3, True), (0.66, 2, 3, True), (0.6, 3, 5, True), (0.7, 7, 10, True),
        (0.68, 2, 3, False), (0.7, 2, 3, False), (0.8, 3, 4, False), (0.86, 6, 7, True), (0.9, 6, 7, False),
        (2 / 3, 2, 3, True), (6 / 7, 6, 7, True), (5 / 7, 5, 7, True), (1.0, 999, 1000, False), (1.0, 1000, 1000, True),
    ],
)  # fmt: skip
def test_a_cut_point_is_compared_as_a_person_reads_it(cut, side, annotators, reached):
    """Two thirds reach 0.67 but not 0.7; 0.7 of ten is exactly 7, which as floats it might not be."""
    found = resolved((side, annotators), (annotators - side, annotators), subclasses=[cut]).subclasses
    assert ["<" not in name for name in found] == [reached, reached]


def test_a_tie_is_below_every_cut_point():
    found = resolved((2, 4), (4, 4), (1, 4), subclasses=[0.51], tie="positive")
    assert found.subclasses == ["malignant <51%", "malignant 51-100%", "benign 51-100%"]


# Refusals


def test_pairs_of_differing_numbers_of_annotators_are_refused():
    error = refused((0, 3), (3, 4), (7, 7), subclasses="pairs")
    assert error.where == 'key "votes.subclasses"'
    assert (error.found, error.expected) == (
        '"pairs", and images of 3 to 7 annotators',
        "one number of annotators for all images",
    )


@pytest.mark.parametrize("cuts", [[], [0.8, 0.8], [1.0, 0.8]])
def test_cut_points_that_do_not_ascend_are_refused(cuts):
    error = refused((0, 3), (3, 3), subclasses=cuts)
    assert (error.where, error.found) == ('key "votes.subclasses"', str(cuts))
    assert error.expected.startswith("cut points above 0.5 and up to 1 in ascending order")


def test_one_name_for_both_classes_is_refused():
    error = refused((0, 3), (3, 3), classes=("x", "x"))
    assert (error.where, error.found) == ('key "votes.classes"', '"x" twice')


@pytest.mark.parametrize(
    ("pairs", "missing", "remedy"),
    [
        ([(0, 3), (1, 3)], "malignant", "Check that the votes counted are those for the positive class."),
        ([(3, 3)], "benign", "Check that the votes counted are those for the positive class."),
        ([(3, 3), (1, 2), (2, 4)], "benign", "2 images are ties and dropped; votes.tie can give them to a class."),
    ],
)
@pytest.mark.parametrize("subclasses", ["each", [1.0]])
def test_a_class_without_any_image_is_named(pairs, missing, remedy, subclasses):
    error = refused(*pairs, subclasses=subclasses)
    assert (error.where, error.found) == ('key "votes"', f'no image of class "{missing}" by majority of votes')
    assert error.remedy == remedy


# Laws


@st.composite
def several_votes(draw):
    numbers = draw(st.lists(st.integers(1, 9), min_size=1, max_size=30))
    return [(draw(st.integers(0, n)), n) for n in numbers] + [(0, 3), (3, 3)]


@settings(max_examples=200, deadline=None)
@given(
    several_votes(),
    st.sampled_from(["drop", "positive", "negative"]),
    st.one_of(
        st.just("each"), st.sets(st.sampled_from([0.55, 0.6, 0.67, 0.75, 0.8, 0.9, 1.0]), min_size=1).map(sorted)
    ),
)
def test_rows_are_kept_but_for_ties_and_subclasses_ascend_without_overlap(pairs, tie, subclasses):
    found = resolved(*pairs, tie=tie, subclasses=subclasses)
    shares = [Fraction(*pair) for pair in pairs]
    assert found.kept.tolist() == [tie != "drop" or share != Fraction(1, 2) for share in shares]
    ordered = [name for members in found.hierarchy.values() for name in members]
    assert set(ordered) == set(found.subclasses) - {""}
    spans = [[share for share, of in zip(shares, found.subclasses, strict=True) if of == name] for name in ordered]
    assert all(max(low) < min(high) for low, high in pairwise(spans))
    for share, name in zip(shares, found.subclasses, strict=True):
        assert name == "" or share == Fraction(1, 2) or name.startswith("malignant") == (share > Fraction(1, 2))


@settings(max_examples=100, deadline=None)
@given(several_votes())
def test_agreement_and_shares_are_the_fractions(pairs):
    votes = votes_of(*pairs)
    shares = [Fraction(*pair) for pair in pairs]
    assert positive_shares(votes).tolist() == [float(share) for share in shares]
    assert agreement(votes).tolist() == [float(max(share, 1 - share)) for share in shares]
    assert positive_shares(votes).dtype == agreement(votes).dtype == np.float64


# Summary


def summary_of(votes, **rule):
    found = resolve(votes, config.Votes(**rule), MHIST)
    rows = np.flatnonzero(found.kept)
    names = [name for members in found.hierarchy.values() for name in members]
    parents = {name: side for side, members in enumerate(found.hierarchy.values()) for name in members}
    subclass_labels = np.array([names.index(found.subclasses[row]) for row in rows])
    class_labels = np.array([parents[found.subclasses[row]] for row in rows])
    return vote_summary(votes[rows], class_labels, subclass_labels, list(MHIST), names)


@pytest.mark.parametrize(("subclasses", "bits"), [("each", 1.92), ("pairs", 0.933)])
def test_the_summary_of_mhist_is_the_published_one(subclasses, bits):
    """1545 HP and 630 SSA; H(vote|class) = 1.92 bits, in pairs 0.933 (the method's facts)."""
    summary = summary_of(mhist_votes(), subclasses=subclasses)
    assert summary["images"] == 2175
    assert summary["annotators"] == 7
    assert summary["counts"][3:5] == [
        {"positive": 3, "annotators": 7, "images": {"HP": 209, "SSA": 0}},
        {"positive": 4, "annotators": 7, "images": {"HP": 0, "SSA": 151}},
    ]
    assert [row["images"]["HP"] + row["images"]["SSA"] for row in summary["counts"]] == MHIST_TRAIN
    share = 630 / 2175
    by_hand = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert summary["class_entropy"] == pytest.approx(by_hand, abs=1e-12)
    assert summary["vote_entropy"] == pytest.approx(1.92, abs=5e-3)
    assert summary["subclass_entropy"] == pytest.approx(bits, abs=5e-3 if subclasses == "each" else 5e-4)
    assert sum(row["images"] for row in summary["subclasses"]) == 2175
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_summary_of_differing_numbers_of_annotators_by_hand():
    """0/3 and 0/4 are one share; 1/4 another; 2/3 is alone: two bits of class and share over 4, 4, 8 images."""
    pairs = [(0, 3)] * 2 + [(0, 4)] * 2 + [(1, 4)] * 4 + [(2, 3)] * 8
    summary = summary_of(votes_of(*pairs), subclasses=[1.0])
    assert summary["annotators"] == [{"annotators": 3, "images": 10}, {"annotators": 4, "images": 6}]
    assert summary["counts"] == [
        {"positive": 0, "annotators": 3, "images": {"HP": 2, "SSA": 0}},
        {"positive": 0, "annotators": 4, "images": {"HP": 2, "SSA": 0}},
        {"positive": 1, "annotators": 4, "images": {"HP": 4, "SSA": 0}},
        {"positive": 2, "annotators": 3, "images": {"HP": 0, "SSA": 8}},
    ]
    assert summary["subclasses"] == [
        {"name": "HP 100%", "images": 4}, {"name": "HP <100%", "images": 4}, {"name": "SSA <100%", "images": 8},
    ]  # fmt: skip
    assert summary["class_entropy"] == pytest.approx(1.0, abs=1e-12)
    assert summary["subclass_entropy"] == pytest.approx(0.5, abs=1e-12)
    assert summary["vote_entropy"] == pytest.approx(0.5, abs=1e-12)


def test_one_subclass_a_class_tells_nothing_beyond_it():
    summary = summary_of(votes_of((0, 3), (3, 3), (3, 3)))
    assert (summary["subclass_entropy"], summary["vote_entropy"]) == (0.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(several_votes(), st.sampled_from(["each", [0.8], [0.67, 1.0]]))
def test_no_subclass_from_votes_tells_more_than_the_votes(pairs, subclasses):
    summary = summary_of(votes_of(*pairs), subclasses=subclasses)
    assert 0 <= summary["subclass_entropy"] <= summary["vote_entropy"] + 1e-12
    if subclasses == "each":
        assert summary["subclass_entropy"] == pytest.approx(summary["vote_entropy"], abs=1e-12)


def test_a_hundred_thousand_rows_are_read_in_a_moment():
    random = np.random.default_rng(0)
    annotators = random.integers(3, 30, 100_000)
    found = resolve(Votes(random.integers(0, annotators + 1), annotators), config.Votes(), MHIST)
    assert len(found.subclasses) == 100_000
