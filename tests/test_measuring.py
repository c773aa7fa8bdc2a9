"""Which arithmetic is chosen: the fastest by a margin, once for a device, and never one that is not safe."""

import json

import pytest
import torch
from torch import nn

from subclass_kd import measuring
from subclass_kd.arithmetic import Arithmetic
from subclass_kd.cache import cache_folder
from subclass_kd.config import Student, Study, Teacher
from subclass_kd.device import computes_bfloat16
from subclass_kd.measuring import choose, layouts, precisions
from subclass_kd.networks import SmallConvNet

SHAPE = (1, 16, 16)
STUDY = Study(device="cpu", student=Student(batch_size=8), teacher=Teacher(model="small:convnet", batch_size=8))
FIRST, SECOND = Arithmetic("channels_last", "float32", 8), Arithmetic("contiguous", "float32", 8)


def build(role):
    torch.manual_seed(0)
    return SmallConvNet(4, 1, width=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBCLASS_KD_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [((10.0, 10.5), FIRST), ((10.0, 9.2), FIRST), ((10.0, 9.0), SECOND), ((10.0, 2.0), SECOND)],
)
def test_another_than_the_first_must_be_ten_percent_faster(milliseconds, chosen):
    times = dict(zip(map(str, (FIRST, SECOND)), milliseconds, strict=True))
    assert measuring._fastest([FIRST, SECOND], times).chosen == chosen


def test_every_candidate_is_timed_and_the_choice_is_one_of_them():
    choices = choose(STUDY, build, SHAPE)
    assert choices.device.startswith("cpu")
    for choice, batch_size in ((choices.teacher, 8), (choices.student, 8)):
        assert {"channels_last float32", "contiguous float32"} <= set(choice.milliseconds)
        assert min(choice.milliseconds.values()) > 0
        assert choice.chosen.batch_size == batch_size
        assert choice.chosen.members == 1  # on a CPU one at a time is faster
    assert choices.targets.chosen.batch_size in measuring.PREDICTION_BATCHES["cpu"]


def test_what_was_measured_is_kept_and_a_run_that_goes_on_keeps_its_own(monkeypatch):
    first = choose(STUDY, build, SHAPE)
    monkeypatch.setattr(measuring, "_time", lambda steps: pytest.fail("it measured again"))
    assert choose(STUDY, build, SHAPE) == first
    for path in (cache_folder() / "arithmetic").iterdir():
        kept = json.loads(path.read_text())
        kept["chosen"]["batch_size"] = 4
        path.write_text(json.dumps(kept))
    assert choose(STUDY, build, SHAPE).student.chosen.batch_size == 4
    assert choose(STUDY, build, SHAPE, first.as_dict()) == first
    elsewhere = first.as_dict() | {"device": "another"}
    assert choose(STUDY, build, SHAPE, elsewhere).student.chosen.batch_size == 4


def test_another_network_size_or_batch_is_measured_anew(monkeypatch):
    choose(STUDY, build, SHAPE)
    measured = []
    monkeypatch.setattr(measuring, "_time", lambda steps: measured.append(1) or dict.fromkeys(steps, 1.0))
    choose(STUDY, build, SHAPE)
    assert not measured
    choose(STUDY, build, (1, 24, 24))
    assert measured
    measured.clear()
    choose(STUDY.model_copy(update={"student": Student(batch_size=16)}), build, SHAPE)
    assert measured
    measured.clear()
    choose(STUDY.model_copy(update={"student": Student(batch_size=8, size=8)}), build, SHAPE)
    assert len(measured) == 1  # the student's alone


def test_a_damaged_or_unwritable_cache_costs_a_measurement_and_no_more(tmp_path, monkeypatch):
    choose(STUDY, build, SHAPE)
    for path in (cache_folder() / "arithmetic").iterdir():
        path.write_text("{")
    assert choose(STUDY, build, SHAPE).student.milliseconds
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("SUBCLASS_KD_CACHE", str(file))
    assert choose(STUDY, build, SHAPE).student.milliseconds


def test_the_users_own_network_keeps_the_usual_layout_and_the_users_precision_rules():
    assert layouts(Student(model="module:callable"), nn.Conv2d(16, 32, 3)) == ("contiguous",)
    assert layouts(Student(model="small:convnet"), build("student")) == ("channels_last", "contiguous")
    assert precisions(Study(device="cpu", precision="float32")) == ("float32",)
    assert precisions(Study(device="cpu", precision="bfloat16")) == ("bfloat16",)
    assert precisions(Study(device="cpu"))[0] == "float32"


def test_tests_are_run_in_float32():
    assert not computes_bfloat16(Study(device="cpu"))


def test_bfloat16_is_a_candidate_where_the_device_computes_in_it(monkeypatch):
    monkeypatch.setattr(measuring, "computes_bfloat16", lambda study: True)
    choices = choose(STUDY, build, SHAPE)
    four = {
        f"{layout} {precision}" for layout in ("channels_last", "contiguous") for precision in ("float32", "bfloat16")
    }
    assert set(choices.student.milliseconds) == four
    assert set(choices.targets.milliseconds) == four


@pytest.mark.parametrize(
    ("an_image", "size"),
    [((1.0, 1.0, 1.0), 64), ((1.0, 0.92, 0.88), 128), ((1.0, 0.8, 0.5), 256), ((1.0, 2.0, 3.0), 64)],
)
def test_targets_are_made_in_the_smallest_batch_within_a_tenth_of_the_fastest(monkeypatch, an_image, size):
    of_size = dict(zip((64, 128, 256), an_image, strict=True))

    def time(steps):
        sizes = {name: int(name.partition(" ")[0]) if name[0].isdigit() else 64 for name in steps}
        return {name: of_size[size] * size for name, size in sizes.items()}

    monkeypatch.setattr(measuring, "_time", time)
    monkeypatch.setitem(measuring.PREDICTION_BATCHES, "cpu", (64, 128, 256))
    assert choose(STUDY, build, SHAPE).targets.chosen.batch_size == size


def test_a_batch_that_does_not_fit_ends_the_search(monkeypatch):
    def time(steps):
        if any(name.startswith("128") for name in steps):
            raise torch.OutOfMemoryError
        return dict.fromkeys(steps, 1.0)

    monkeypatch.setattr(measuring, "_time", time)
    monkeypatch.setitem(measuring.PREDICTION_BATCHES, "cpu", (64, 128, 256))
    assert choose(STUDY, build, SHAPE).targets.chosen.batch_size == 64


def test_channels_last_is_unsafe_on_a_cpu_alone():
    strided = nn.Conv2d(8, 16, 1, stride=2)
    assert layouts(Student(model="timm:resnet18"), strided, "cpu") == ("contiguous",)
    assert layouts(Student(model="timm:resnet18"), strided, "cuda") == ("channels_last", "contiguous")
