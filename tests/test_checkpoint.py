"""Checkpoints: a training that is stopped at any step ends as one that never was; what is damaged is not believed."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import nn

from subclass_kd import SubclassHierarchy, checkpoint, store
from subclass_kd.augment import Views
from subclass_kd.checkpoint import Checkpoint, restore, state_of
from subclass_kd.config import Augment, Student
from subclass_kd.errors import UserError
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.training import Lesson, Pixels, train_together

HIERARCHY = SubclassHierarchy.from_parent([0, 0, 1, 1])
LABELS = torch.arange(48) % 4
TARGETS = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(5))
NETWORK = Student(model="small:convnet", epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.1)
VIEWS = Views(seed=3, count=2, augment=Augment(flip=True, shift=0.1))


class GoneError(Exception):
    """A process that is gone."""


class StopsAfter(Checkpoint):
    """Writes one at each step, and is gone after so many."""

    def __init__(self, path, recipe, writes):
        super().__init__(path, recipe, seconds=0.0)
        self.left = writes

    def write(self, tensors, place):
        if self.left == 0:
            raise GoneError
        super().write(tensors, place)
        self.left -= 1


@pytest.fixture
def pixels():
    images = np.random.default_rng(0).integers(0, 256, (48, 1, 8, 8), dtype=np.uint8)
    return Pixels(images, torch.arange(30), torch.arange(30, 48), positive=1)


def model(dropout):
    """Convolution, batch normalisation and dropout: strides, buffers and random state all count."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(64, 4),
    )  # fmt: skip


def fit(pixels, kept=None, count=1, layout=torch.channels_last, heard=None):
    lessons = [Lesson(HIERARCHY, LABELS, TARGETS * (1 + number), alpha=0.9) for number in range(count)]
    models = [copy.deepcopy(model(dropout=0.3 if count == 1 else 0.0)) for _ in range(count)]
    listen = (lambda member, epoch: heard.append((member, epoch.epoch))) if heard is not None else lambda *_: None
    fabric = Fabric(accelerator="cpu", devices=1)
    return train_together(models, lessons, pixels, VIEWS, NETWORK, fabric, 1, listen, layout, kept)


def plain(trained):
    """Give weights as bytes, and histories without their times."""
    weights = [{name: tensor.numpy().tobytes() for name, tensor in own.items()} for own, _ in trained]
    return weights, [[asdict(replace(epoch, seconds=0.0)) for epoch in history] for _, history in trained]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 2])
def test_a_training_stopped_after_any_step_ends_as_one_that_never_was(pixels, tmp_path, layout, count):
    layout = torch.contiguous_format if count == 2 else layout  # of an ensemble
    whole = plain(fit(pixels, count=count, layout=layout))
    writes = 11  # 3 epochs of 4 steps; none after the last
    for stop in range(1, writes):
        path = tmp_path / f"{stop}.safetensors"
        with pytest.raises(GoneError):
            fit(pixels, StopsAfter(path, "r", stop), count, layout)
        assert plain(fit(pixels, Checkpoint(path, "r"), count, layout)) == whole, stop
    assert StopsAfter(tmp_path / "x", "r", writes).left == writes
    fit(pixels, StopsAfter(tmp_path / "all.safetensors", "r", writes), count, layout)  # does not stop: 11 are all


def test_tied_weights_and_any_device_can_be_kept(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

    network = Tied()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network.second(network.first(torch.ones(2, 3))).sum().backward()
    optimizer.step()
    kept = Checkpoint(tmp_path / "a.safetensors", "r")
    kept.write(state_of(network, optimizer, torch.device("cpu")), {"epoch": 1})
    tensors, place = kept.read()
    assert place == {"epoch": 1}
    other = Tied()
    restore(tensors, other, torch.optim.AdamW(other.parameters()), torch.device("cpu"))
    assert other.first.weight.equal(network.first.weight)
    assert other.second.weight is other.first.weight


def test_a_worker_that_is_asked_to_stop_ends_though_its_checkpoint_fails(monkeypatch):
    monkeypatch.setattr(checkpoint._stopping, "asked", signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, checkpoint.no_stop_but_at_a_checkpoint():
        raise OSError(28, "No space left on device")
    assert caught.value.code == 143
    assert not checkpoint._stopping.waits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_training_on_a_gpu_goes_on(pixels, tmp_path):
    path = tmp_path / "a.safetensors"
    lesson = Lesson(HIERARCHY, LABELS, TARGETS, alpha=0.9)
    fabric = Fabric(accelerator="cuda", devices=1)
    arguments = [lesson], pixels, VIEWS, NETWORK, fabric, 1, lambda *_: None, torch.contiguous_format
    with pytest.raises(GoneError):
        train_together([model(0.3)], *arguments, StopsAfter(path, "r", 5))
    [(weights, history)] = train_together([model(0.3)], *arguments, Checkpoint(path, "r"))
    [(whole, undisturbed)] = train_together([model(0.3)], *arguments)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert history[-1].loss == pytest.approx(undisturbed[-1].loss, rel=1e-3)
    assert all(torch.allclose(weights[name].float(), whole[name].float(), atol=1e-3) for name in whole)


def test_a_training_stopped_again_and_again_ends_too(pixels, tmp_path):
    whole, path = plain(fit(pixels)), tmp_path / "a.safetensors"
    for _ in range(5):
        with pytest.raises(GoneError):
            fit(pixels, StopsAfter(path, "r", 2))
    heard = []
    assert plain(fit(pixels, Checkpoint(path, "r"), heard=heard)) == whole
    assert heard == [(0, 1), (0, 2), (0, 3)]  # epochs that were over before are told again


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_passed_over(pixels, tmp_path):
    whole, path = plain(fit(pixels)), tmp_path / "a.safetensors"
    with pytest.raises(GoneError):
        fit(pixels, StopsAfter(path, "another", 5))
    [file] = tmp_path.iterdir()
    assert file.name == ".a.checkpoint"
    assert Checkpoint(path, "r").read() is None
    assert plain(fit(pixels, Checkpoint(path, "r"))) == whole
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    assert Checkpoint(path, "another").read() is None
    file.write_bytes(content[: len(content) // 2])
    assert Checkpoint(path, "another").read() is None
    Checkpoint(path, "another").remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="copies a process")
def test_a_little_torture():
    """What benchmarks.torture does a hundred times."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture", "--kills", "2", "--faults", "1", "--workers", "1"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same results" in done.stdout


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_stored_file_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("store") / "weights.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    store.save(path, tensors, "recipe", {"best": {"epoch": 3}, "history": [1.5, None]})
    assert store.is_valid(path, "recipe")
    assert not store.is_damaged(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert not store.is_valid(path, "recipe")
    with pytest.raises(UserError, match=r"a file that cannot be read"):
        store.load(path)
    assert store.is_damaged(path)


STUDY = {
    "data": {"train_images": 400},
    "teacher": {"options": {"width": 4}, "epochs": 2},
    "student": {"options": {"width": 4}, "epochs": 20},
    "distillation": {"views": 2},
    "arms": ["scratch", "skd"],
    "seeds": 1,
    "device": "cpu",
}
SCRIPT = f"""
import signal
import sys
from pathlib import Path
from subclass_kd.study import run_study
from subclass_kd.watching import Silent
from subclass_kd.study_file import make_study

class Telling(Silent):
    def event(self, job, event, content):
        print(job.path, event, flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    run_study(make_study({STUDY} | {{"workers": 2}}), Path(sys.argv[1]), Telling())
"""


def without_times(value):
    if isinstance(value, dict):
        return {name: without_times(own) for name, own in value.items() if not name.endswith("seconds")}
    return [without_times(own) for own in value] if isinstance(value, list) else value


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_a_study_that_is_asked_to_stop_in_a_training_goes_on_from_that_step(popen, tmp_path):
    """The main process ends by Ctrl-C; its worker keeps the step that it is in."""
    script, out = tmp_path / "study.py", tmp_path / "run"
    script.write_text(SCRIPT)
    process = popen([sys.executable, str(script), str(out)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("students/scratch-seed0.safetensors epoch"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    [student] = [path for path in out.rglob(".*.checkpoint") if "scratch" in path.name]
    assert 1 <= store.notes(student)["epoch"] < 20
    went_on = run_study(make_study(STUDY | {"workers": 1}), out)
    assert not list(out.rglob(".*.checkpoint"))
    whole = run_study(make_study(STUDY | {"workers": 1}), tmp_path / "whole")
    assert without_times(went_on) == without_times(whole)
