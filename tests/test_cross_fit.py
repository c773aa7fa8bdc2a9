"""Parts for cross-fitting: of like size and kind, patients whole, the same every time; refused where they cannot be."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subclass_kd import SubclassHierarchy
from subclass_kd.config import Study, Teacher
from subclass_kd.data.cross_fit import check_cross_fit, cross_fit_parts
from subclass_kd.errors import UserError


def rows_of(labels, groups=None, train=None):
    """Give what is read of a study's rows; the last of them are no training images."""
    labels = np.asarray(labels, np.int64)
    train = np.arange(len(labels)) if train is None else train
    hierarchy = SubclassHierarchy.identity([f"subclass {label}" for label in range(labels.max() + 1)])
    groups = None if groups is None else np.asarray(groups, np.int64)
    return SimpleNamespace(subclass_labels=labels, groups=groups, train=train, hierarchy=hierarchy)


def study(members):
    return Study(teacher=Teacher(members=members, cross_fit=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=80), st.integers(2, 20))
def test_without_groups_every_part_has_its_share_of_every_subclass_within_one_image(labels, members):
    rows = rows_of([0, 1, 2, 3, 4, *labels])
    parts = cross_fit_parts(rows, members)
    assert set(parts) == set(range(members))
    for label in range(5):
        counts = np.bincount(parts[rows.subclass_labels == label], minlength=members)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(parts, minlength=members)
    assert sizes.max() - sizes.min() <= 5  # as many as there are subclasses


def test_groups_are_whole_and_parts_of_like_size():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), random.integers(1, 8, 60))
    rows = rows_of(random.integers(0, 3, len(groups)), groups)
    parts = cross_fit_parts(rows, 4)
    assert all(len(set(parts[groups == group])) == 1 for group in range(60))
    sizes = np.bincount(parts, minlength=4)
    assert sizes.min() > 0.9 * len(groups) / 4


def test_parts_are_of_the_training_images_alone_and_the_same_every_time():
    labels, train = np.arange(60) % 3, np.arange(0, 60, 2)
    rows = rows_of(labels, train=train)
    parts = cross_fit_parts(rows, 5)
    assert parts.shape == train.shape
    assert np.array_equal(parts, cross_fit_parts(rows, 5))
    moved = rows_of(np.where(np.isin(np.arange(60), train), labels, 0), train=train)  # other labels elsewhere
    assert np.array_equal(parts, cross_fit_parts(moved, 5))


def test_what_can_be_parted_passes_and_without_cross_fitting_anything_does():
    check_cross_fit(study(2), rows_of([0, 0, 1, 1]))
    check_cross_fit(study(2), rows_of([0, 0, 1, 1, 0, 0], groups=[0, 1, 0, 1, 2, 3]))
    check_cross_fit(Study(teacher=Teacher(members=9)), rows_of([0, 0, 1, 1]))


@pytest.mark.parametrize(("groups", "count", "what"), [(None, 4, "images"), ([0, 1, 0, 1], 2, "groups")])
def test_more_members_than_there_is_to_part_are_refused(groups, count, what):
    with pytest.raises(UserError) as caught:
        check_cross_fit(study(5), rows_of([0, 0, 1, 1], groups))
    assert caught.value.where == 'key "teacher.members"'
    assert caught.value.found == "5, beside cross_fit"
    assert caught.value.expected == f"at most {count}, as many as there are training {what}"


def test_a_subclass_of_one_patient_is_refused_by_name():
    """The member that trains without that patient would never hear of the subclass, and answers for it."""
    with pytest.raises(UserError) as caught:
        check_cross_fit(study(2), rows_of([0, 0, 1, 1, 2, 2], groups=[0, 1, 0, 1, 2, 2]))
    assert caught.value.where == 'key "teacher.cross_fit"'
    assert caught.value.found == 'true, and all training images of subclass "subclass 2" in one of 2 parts'
    assert "set it to false" in caught.value.remedy
