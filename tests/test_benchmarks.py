"""What the benchmarks compute beside time: losses that agree, the views of the plain loop, ratios, command lines."""

import argparse
import itertools

import numpy as np
import pytest
import torch
from benchmarks import inference, peers, peers_common, peers_loader, peers_online, peers_ours, peers_setup
from safetensors.torch import save_file

from subclass_kd import SubclassHierarchy, losses


@pytest.fixture
def task(tmp_path):
    """A tiny task whose arrays and weights are written: 24 images of 16 pixels, three subclasses, batches of 8."""
    random = np.random.default_rng(0)
    arrays = {}
    for name, count in zip(peers_common.SPLITS, (24, 10, 12), strict=True):
        arrays[f"{name}_images"] = random.integers(0, 256, (count, 1, 16, 16), np.uint8)
        arrays[f"{name}_labels"] = random.integers(0, 3, count)
    np.savez(tmp_path / "arrays.npz", **arrays)
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("small:resnet", "small:convnet")}
    for name, path in paths.items():
        torch.manual_seed(1)
        save_file(peers_common.build(name, 3, 1).state_dict(), path)
    return peers_common.Task(
        arrays=str(tmp_path / "arrays.npz"),
        teacher="small:resnet",
        teacher_weights=paths["small:resnet"],
        student="small:convnet",
        student_weights=paths["small:convnet"],
        outputs=3,
        images=24,
        epochs=3,
        batch_size=8,
        views=2,
        shift=2,
    )


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.9), (2.0, 1.0), (2.0, 0.0)])
def test_loss_of_the_plain_loop_is_ours(temperature, alpha):
    torch.manual_seed(0)
    logits, teacher, labels = torch.randn(32, 5, requires_grad=True), torch.randn(32, 5), torch.randint(5, (32,))
    total, soft = peers_online.distillation_loss(logits, teacher, labels, temperature, alpha)
    ours = losses.subclass_distillation(
        logits, teacher, labels, SubclassHierarchy.identity("abcde"), temperature=temperature, alpha=alpha
    )
    assert total.item() == pytest.approx(ours.total.mean().item(), rel=1e-6)
    assert soft.item() == pytest.approx(ours.soft.mean().item(), rel=1e-6)
    [gradient] = torch.autograd.grad(total, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(ours.total.mean(), logits)[0])


def test_ours_and_the_plain_loop_take_the_same_steps(task):
    """Order, learning rate, loss and optimiser agree over 9 steps of 3 epochs."""
    task = peers_common.without_augmentation(task)
    ours, online = (contender(task, *peers_common.read(task)) for contender in (peers_ours.train, peers_online.train))
    assert len(ours.history) == 3
    assert peers.largest_difference(ours.history, online.history) < 1e-5


def test_both_train_with_augmentation_and_give_weights_of_the_student(task):
    student = peers_common.read(task)[2]
    for contender in (peers_ours.train, peers_online.train):
        trained = contender(task, *peers_common.read(task))
        student.load_state_dict(trained.weights)
        accuracy, log_loss = peers_common.score(student, peers_common.read(task)[0]["held_out"])
        assert 0 <= accuracy <= 1
        assert 0 < log_loss < 5


def test_views_of_the_plain_loop_are_moved_and_mirrored_images():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 6, 6), dtype=torch.uint8)
    assert (peers_online.Augmented(images, 0).batch(torch.tensor([1, 0])) * 255).round().equal(images.flip(0).float())
    possible = []
    padded = np.pad(images[1, 0].numpy(), 2, mode="edge")
    for down, right in itertools.product(range(5), repeat=2):
        window = padded[down : down + 6, right : right + 6]
        possible += [window.tolist(), window[:, ::-1].tolist()]
    drawn = (peers_online.Augmented(images, 2).batch(torch.ones(400, dtype=torch.int64)) * 255).round().int()
    seen = [view[0].tolist() for view in drawn]
    assert all(view in possible for view in seen)
    assert sum(view in seen for view in possible) > 45  # of 50


def test_soft_part_is_found_from_a_total():
    torch.manual_seed(0)
    student, images, labels = torch.nn.Linear(4, 3), torch.randn(8, 4), torch.randint(3, (8,))
    found = peers_loader.SoftPart(student, argparse.Namespace(alpha=0.7))
    total, soft = peers_online.distillation_loss(student(images), torch.randn(8, 3), labels, 2.0, 0.7)
    assert found.of(total, labels).item() == pytest.approx(soft.item(), rel=1e-5)


def test_the_peers_environment_is_made_once_with_our_torch(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(peers_setup.venv, "create", lambda folder, with_pip: folder.mkdir())
    monkeypatch.setattr(peers_setup.subprocess, "run", lambda command, check: calls.append(command))
    for _ in range(2):
        assert peers_setup.environment(tmp_path / "venv") == tmp_path / "venv/bin/python"
    [install] = calls  # torch, torchvision and the peers together, so that pip settles on versions once
    assert f"torch=={torch.__version__.partition('+')[0]}" in install
    assert {"torchdistill==1.1.5", "timm==1.0.31"} < set(install)


@pytest.mark.parametrize("there", [True, False])
def test_images_are_split_and_noise_stands_in_for_absent_ones(there, monkeypatch, tmp_path):
    if not there:
        monkeypatch.setattr(peers_setup, "XRAYS", tmp_path / "absent")
    elif not peers_setup.XRAYS.exists():
        pytest.skip("no chest X-rays at ../shared/data/chest_xray")
    arrays, source = peers_setup.load_images(16)
    assert ("noise" in source) is not there
    shapes = [arrays[f"{name}_images"].shape for name in peers_common.SPLITS]
    assert shapes == [(16, 1, 64, 64), (4, 1, 64, 64), (16, 1, 64, 64)]
    assert arrays["train_images"].dtype == np.uint8
    assert set(arrays["train_labels"].tolist()) <= {0, 1, 2}


def test_largest_difference_is_relative():
    assert peers.largest_difference([(2.0, 1.0), (4.0, 1.0)], [(2.0, 1.0), (3.0, 1.1)]) == pytest.approx(0.25)


class TimedField:
    """Trains in as many seconds as it was told."""

    def __init__(self):
        self.left = {"ours": [2.0, 4.0, 2.0], "torchdistill": [8.0, 8.0, 9.0], "timm": [6.0] * 3, "online": [5.0] * 3}
        self.first = []

    def train(self, name, task):
        self.first.append(name)
        kept = {"accuracy": 0.8, "log_loss": 0.5, "history": [[1.0, None]], "targets_seconds": 1.0}
        seconds = self.left[name].pop(0)
        return kept | {"seconds": seconds, "cpu_seconds": seconds / 2 if name == "online" else seconds}


def test_table_has_a_row_and_a_ratio_for_each_contender(task, capsys):
    field = TimedField()
    measured = peers.measure(field, task, repeats=3)
    assert field.first[::4] == ["ours", "torchdistill", "timm"]  # each turn begins with another
    rows = measured["contenders"]
    assert list(rows) == ["ours", "torchdistill", "timm", "online"]
    assert rows["ours"]["over_ours"] == 1
    assert rows["torchdistill"]["over_ours"] == 4.0  # of 4, 2 and 4.5
    assert rows["torchdistill"]["over_ours_range"] == [2.0, 4.5]
    assert rows["online"]["over_ours"] == 2 * rows["online"]["cpu_over_ours"] == 2.5
    assert rows["ours"]["targets_seconds"] == 1.0
    assert measured["setting"]["epochs"] == 3
    peers.print_main(measured)
    peers.print_sweep_row(measured)
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [7] * 6 + [12]
    assert "4.00 (2.00-4.50)" in lines[3]


def test_command_line_of_peers(capsys):
    assert peers.arguments([]).epochs == 30
    with pytest.raises(SystemExit):
        peers.arguments(["--images", "100"])
    assert "multiples of --batch" in capsys.readouterr().err
    assert [changes.get("epochs") for changes in peers.settings(peers.arguments([]))[:2]] == [10, 100]
    assert peers.settings(peers.arguments(["--sweep-images", "0"])) == []


def test_inference_measures_every_way(monkeypatch):
    monkeypatch.setattr(inference, "SECONDS", 0.001)
    monkeypatch.setattr(inference, "BATCHES", (1, 4))
    row = inference.measure(inference.SETTINGS[0], repeats=2, compiled=False)
    assert row["parameters"] == 6274
    assert row["best_batch"] in (1, 4)
    for part in ("latency", "throughput"):
        assert list(row[part]) == ["contiguous", "channels_last"]
        assert all(times["least_ms"] <= times["median_ms"] <= times["most_ms"] for times in row[part].values())
    assert inference.table_row(row).count("|") == 12
