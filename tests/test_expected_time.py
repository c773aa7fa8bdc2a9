"""The expected time of teachers of several members, counted by hand from the rates of one network."""

import pytest

from subclass_kd import SubclassHierarchy, expected_time
from subclass_kd.expected_time import expected_seconds
from subclass_kd.study_file import make_study

COUNTS = {"train": 100, "validation": 20, "test": 30}
CONTENT = {
    "arms": ["scratch", "kd", "skd"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
    "student": {"epochs": 10},
}


@pytest.fixture(autouse=True)
def rates(monkeypatch):
    """Seconds an image for training and for prediction: 0.01 and 0.002 of a teacher, a tenth of that of a student."""
    by_model = {"small:resnet": (0.01, 0.002), "small:convnet": (0.001, 0.0002)}
    monkeypatch.setattr(expected_time, "_rates", lambda study, network, *_: by_model[network.model])


def seconds(teacher, views):
    study = make_study({**CONTENT, "teacher": {"epochs": 5, **teacher}, "distillation": {"views": views}})
    return expected_seconds(study, SubclassHierarchy.from_parent([0, 0, 1]), COUNTS, (1, 28, 28))


def by_hand(trained, images, answered, heard=0.0):
    """Two teachers and three students of two seeds."""
    teachers = 4 * trained * 5 * (images * 0.01 + 20 * 0.002)
    targets = 4 * answered * 0.002
    students = 6 * 10 * (100 * 0.001 + 20 * 0.0002) + heard
    predictions = 50 * (4 * trained * 0.002 + 6 * 0.0002)
    return pytest.approx(expected_time.STARTING + teachers + targets + students + predictions)


def test_each_member_trains_and_answers():
    assert seconds({}, 4) == by_hand(1, 100, 4 * 100)
    assert seconds({"members": 5}, 4) == by_hand(5, 100, 5 * 4 * 100)


def test_a_member_of_a_cross_fitted_teacher_learns_without_its_part_and_answers_for_it():
    assert seconds({"members": 5, "cross_fit": True}, 4) == by_hand(5, 80, 4 * 100)


def test_online_every_member_answers_at_every_step_of_the_four_students_that_hear_it():
    assert seconds({"members": 3}, "online") == by_hand(3, 100, 3 * 100, heard=4 * 10 * 100 * 3 * 0.002)
