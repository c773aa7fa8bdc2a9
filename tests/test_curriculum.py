"""Stages by difficulty, which of them an epoch admits, and the order of an epoch; numbers worked by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subclass_kd.curriculum import admitted, order, stages

# Stages


def test_each_distinct_value_is_a_stage_where_there_are_few():
    """Unanimous, 6/7, 5/7, 4/7 of seven annotators: the four stages of Wei et al."""
    difficulty = 1 - np.array([7, 4, 6, 5, 7, 6]) / 7
    found = stages(difficulty, 4)
    assert found.tolist() == [0, 3, 1, 2, 0, 1]
    assert found.dtype == np.int64
    assert stages(difficulty, 100).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("difficulty", "most", "expected"),
    [
        ([3, 1, 2, 0], 2, [1, 0, 1, 0]),
        (list(range(10)), 4, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),  # middles 0.5, 1.5, ... of 10, times 4
        ([0, 1, 1, 1, 1, 2], 2, [0, 1, 1, 1, 1, 1]),  # the ones' middle is the very half: with the harder
        ([0, 0, 0, 0, 1, 2], 2, [0, 0, 0, 0, 1, 1]),
        ([5, 5, 5], 3, [0, 0, 0]),
        ([0, *[1] * 98, 2], 3, [0, *[1] * 98, 2]),
        ([*[0] * 9, 1, 2, 3], 3, [*[0] * 9, 1, 1, 1]),  # the second quantile is all zeros: two stages are left
        ([-1.5, 1e300, -1e300], 2, [1, 1, 0]),
        ([], 4, []),
    ],
)
def test_more_values_are_cut_at_quantiles_that_part_no_equals(difficulty, most, expected):
    assert stages(np.array(difficulty, dtype=np.float64), most).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-5, 40).map(float), min_size=1, max_size=80), st.integers(2, 12))
def test_stages_follow_difficulty_and_none_is_empty(values, most):
    difficulty = np.array(values)
    found = stages(difficulty, most)
    by_value = np.array([found[difficulty == value] for value in np.unique(difficulty)], dtype=object)
    assert all(len(set(each)) == 1 for each in by_value)
    firsts = [each[0] for each in by_value]
    assert firsts == sorted(firsts)
    assert set(found.tolist()) == set(range(found.max() + 1))
    assert found.max() + 1 <= most
    if len(set(values)) > 1:
        assert found.max() >= 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(2, 12))
def test_stages_of_distinct_values_have_nearly_one_size(count, most):
    sizes = np.bincount(stages(np.random.default_rng(count).permutation(count) / 7, most))
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == min(count, most)


# Admission


@pytest.mark.parametrize(
    ("count", "epochs", "expected"),
    [
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (2, 5, [0, 0, 1, 1, 1]),
        (3, 4, [0, 1, 2, 2]),
        (1, 3, [0, 0, 0]),
        (4, 2, [1, 3]),
        (4, 1, [3]),
    ],
)
def test_epochs_are_divided_among_the_stages(count, epochs, expected):
    stage = np.repeat(np.arange(count), 3)
    hardest = [int(stage[admitted(stage, epoch, epochs)].max()) for epoch in range(epochs)]
    assert hardest == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10), st.integers(1, 60))
def test_admission_only_grows_and_ends_with_every_image(count, epochs):
    stage = np.arange(count)
    shown = [admitted(stage, epoch, epochs) for epoch in range(epochs)]
    assert shown[-1].all()
    assert all((early <= late).all() for early, late in pairwise(shown))
    assert all(each[0] for each in shown)
    if epochs >= count:
        parts = np.bincount([each.sum() - 1 for each in shown])
        assert len(parts) == count
        assert parts.max() - parts.min() <= 1


# Order


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any), st.integers(0, 2**63 - 1))
def test_an_epoch_is_as_long_as_ever_and_shows_each_admitted_image_equally_often(flags, seed):
    shown = order(np.array(flags), seed)
    assert shown.shape == (len(flags),)
    assert shown.dtype == np.int64
    times = np.bincount(shown, minlength=len(flags))
    assert not times[~np.array(flags)].any()
    rounds, rest = divmod(len(flags), sum(flags))
    assert sorted(times[flags]) == [rounds] * (sum(flags) - rest) + [rounds + 1] * rest
    for start in range(0, rounds * sum(flags), sum(flags)):
        assert sorted(shown[start : start + sum(flags)]) == np.flatnonzero(flags).tolist()
    assert np.array_equal(shown, order(np.array(flags), seed))


def test_all_admitted_is_one_permutation_and_each_round_is_shuffled_anew():
    assert sorted(order(np.ones(500, dtype=bool), 3)) == list(range(500))
    assert not np.array_equal(order(np.ones(500, dtype=bool), 3), order(np.ones(500, dtype=bool), 4))
    half = order(np.arange(500) < 250, 3)
    assert not np.array_equal(half[:250], half[250:])


def test_nothing_admitted_is_refused():
    with pytest.raises(ValueError, match="found no image admitted"):
        order(np.zeros(3, dtype=bool), 0)
