"""What was chosen, as data: it survives JSON, and says itself."""

import json

import pytest

from subclass_kd.arithmetic import Arithmetic, Choice, Choices, from_dict

CHOICES = Choices(
    device="cpu some",
    teacher=Choice(
        Arithmetic("contiguous", "bfloat16", 32),
        {"channels_last float32": 75.2, "contiguous float32": 80.3, "contiguous bfloat16": 48.8},
    ),
    student=Choice(Arithmetic("channels_last", "float32", 64, members=3), {}),
    targets=Choice(Arithmetic("channels_last", "float32", 128), {}),
)


def test_choices_survive_json():
    assert from_dict(json.loads(json.dumps(CHOICES.as_dict()))) == CHOICES


def test_choices_say_what_was_chosen_and_against_what():
    assert CHOICES.describe() == {
        "teacher": "contiguous bfloat16 (48.8 ms a step; channels_last float32 75.2, contiguous float32 80.3)",
        "student": "channels_last float32, 3 students as one",
        "targets": "channels_last float32, 128 images at once",
    }
    assert CHOICES.describe(timings=False)["teacher"] == "contiguous bfloat16"


@pytest.mark.parametrize("change", [{"layout": "nchw"}, {"precision": "half"}, {"other": 1}])
def test_choices_of_another_kind_are_refused(change):
    plain = json.loads(json.dumps(CHOICES.as_dict()))
    plain["student"]["chosen"] |= change
    with pytest.raises((ValueError, TypeError)):
        from_dict(plain)
    with pytest.raises(TypeError):
        from_dict(None)
