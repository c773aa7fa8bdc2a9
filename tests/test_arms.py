"""The table of arms is design's, row by row."""

import typing

from subclass_kd.arms import ARMS, teachers_of
from subclass_kd.config import ArmName


def test_the_arms_are_those_of_the_design_and_the_control_for_votes():
    rows = {name: (arm.outputs, arm.teacher, arm.collapse, arm.shuffled, arm.votes) for name, arm in ARMS.items()}
    assert rows == {
        "scratch": ("class", None, False, False, False),
        "subclass-labels": ("subclass", None, False, False, False),
        "soft-votes": ("class", None, False, False, True),
        "kd": ("class", "class", False, False, False),
        "kd-collapsed": ("class", "subclass", True, False, False),
        "skd": ("subclass", "subclass", False, False, False),
        "skd-shuffled": ("subclass", "subclass-shuffled", False, True, False),
    }


def test_the_study_file_knows_these_arms_and_no_other_in_this_order():
    assert list(typing.get_args(ArmName)) == list(ARMS)


def test_only_the_collapsed_arm_has_other_outputs_than_its_teacher():
    for arm in ARMS.values():
        teaches = None if arm.teacher is None else arm.teacher.partition("-")[0]
        assert arm.collapse == (teaches not in (None, arm.outputs))


def test_each_teacher_is_named_once_and_none_where_none_teaches():
    assert teachers_of(list(ARMS)) == ["class", "subclass", "subclass-shuffled"]
    assert teachers_of(["skd", "kd-collapsed"]) == ["subclass"]
    assert teachers_of(["scratch", "subclass-labels"]) == []
