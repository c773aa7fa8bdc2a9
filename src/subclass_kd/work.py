"""How each job of a study is done: train a teacher, store its targets, train a student, predict the test split."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from subclass_kd import store, targets, training
from subclass_kd.arms import ARMS
from subclass_kd.augment import Views
from subclass_kd.config import Network, Study
from subclass_kd.data.rows import Samples
from subclass_kd.device import check_device, make_fabric
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, write_json
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.models import build_model
from subclass_kd.plan import Job
from subclass_kd.training import Lesson, Pixels


def make(study: Study, samples: Samples, out: Path, job: Job, on_epoch: Callable[[Epoch], None]) -> None:
    """Make one job's file.

    Args:
        study: what to run.
        samples: its data.
        out: the run folder.
        job: which file.
        on_epoch: called after each epoch of a training.

    Raises:
        UserError: a file that the job needs is damaged or stale, the model cannot be built, or the disk refuses.
    """
    try:
        _make(_Bench(study, samples, out, job.seed), job, on_epoch)
    except OSError as error:
        where, found = str(error.filename or out / job.path), error.strerror or str(error)
        raise UserError(where, found, "a disk to read from and write to", "Mend that and run again.") from error


def _make(bench: _Bench, job: Job, on_epoch: Callable[[Epoch], None]) -> None:
    if job.kind == "teachers":
        bench.train_teacher(job, on_epoch)
    elif job.kind == "targets":
        bench.make_targets(job)
    elif job.kind == "students":
        bench.train_student(job, on_epoch)
    elif job.kind == "predictions":
        bench.predict(job)
    else:
        from subclass_kd.results import assemble  # its metrics and statistics take seconds to load: once, at the end

        write_json(bench.out / job.path, assemble(bench.study, bench.samples, bench.out))


def check(study: Study, samples: Samples) -> str:
    """Check device and models before any work is done, and give the kind of device: "cpu", "cuda" or "mps".

    Raises:
        UserError: the device is not there, or a model cannot be built, run or trained, or gives other outputs.
    """
    check_device(study)
    for key, network in (("teacher", study.teacher), ("student", study.student)):
        for outputs in sorted({samples.hierarchy.num_subclasses, samples.hierarchy.num_classes}):
            _check_model(network, key, outputs, samples)
    return make_fabric(study).device.type


def _check_model(network: Network, key: str, outputs: int, samples: Samples) -> None:
    """Build a model and pass images through it, forward and backward."""
    model = _seeded_model(network, outputs, samples, seed=0)
    layout = training.memory_format(network, model)
    image_shape = samples.images.shape[1:]
    images = torch.zeros(4, *image_shape).to(memory_format=layout)
    try:
        logits = model.to(memory_format=layout)(images)
        shape = tuple(logits.shape)
        if shape == (4, outputs):
            logits.sum().backward()
            model.eval()(images)
    except Exception as error:  # the user's model may raise anything, and timm's assert their image size
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = f"a model that fails on images of shape {image_shape} ({reason})"
        expected = "a model for this image size"
        raise UserError(f'key "{key}.model"', found, expected, "Set data.size or choose another.") from None
    if shape != (4, outputs):
        expected = f"logits of shape (4, {outputs}) for 4 images and {outputs} outputs"
        remedy = "The model must heed num_classes."
        raise UserError(f'key "{key}.model"', f"an output of shape {shape}", expected, remedy)


def derived_seed(*parts: Any) -> int:
    """Derive a generator's seed, 0 to 2^31 - 1, from what it is for, so that no two uses share a stream."""
    return int(fingerprint(*parts), 16) % 2**31


class _Bench:
    """Study, samples, device and seed at hand while one job is done."""

    def __init__(self, study: Study, samples: Samples, out: Path, seed: int) -> None:
        self.study, self.samples, self.out, self.seed = study, samples, out, seed
        self.fabric = make_fabric(study)
        augment = study.augment
        self.views = Views(derived_seed(seed, "views"), study.distillation.views, augment.flip, augment.shift)

    @cached_property
    def pixels(self) -> Pixels:
        """What a training may see."""
        samples = self.samples
        train, validation = torch.from_numpy(samples.train), torch.from_numpy(samples.validation)
        return Pixels(torch.from_numpy(samples.images), train, validation, samples.positive)

    def train_teacher(self, job: Job, on_epoch: Callable[[Epoch], None]) -> None:
        """Train on class labels, subclass labels, or subclass labels shuffled inside each class."""
        outputs = "class" if job.name == "class" else "subclass"
        labels = self._labels(outputs, shuffled=job.name == "subclass-shuffled")
        lesson = Lesson(
            self._hierarchy(outputs), labels, weights=self._weights, stage=self._stage("teacher"), select_by="log_loss"
        )
        self._train(self.study.teacher, "teacher", lesson, job, on_epoch)

    def make_targets(self, job: Job) -> None:
        """Store a teacher's logits for every view of every training image."""
        weights = self._teacher_weights(job.name)
        teacher = self._model(self.study.teacher, "teacher", "class" if job.name == "class" else "subclass")
        teacher.load_state_dict(weights)
        teacher = self.fabric.setup_module(teacher)
        logits = targets.compute(teacher, self.pixels.images, self.pixels.train, self.views, self.fabric)
        targets.write(self.out / job.path, logits, self._origin(weights), job.recipe)

    def train_student(self, job: Job, on_epoch: Callable[[Epoch], None]) -> None:
        """Train one arm."""
        arm, distillation = ARMS[job.name], self.study.distillation
        hierarchy, labels = self._hierarchy(arm.outputs), self._labels(arm.outputs, arm.shuffled)
        lesson = Lesson(hierarchy, labels, weights=self._weights, stage=self._stage("student"))
        if arm.votes:
            lesson = replace(lesson, targets=self._vote_targets(), temperature=1.0, alpha=1.0)
        if arm.teacher is not None:
            origin = self._origin(self._teacher_weights(arm.teacher))
            logits = targets.read(self.out / job.needs[0], origin)  # (V, n, K)
            if arm.collapse:
                logits = self.samples.hierarchy.class_log_probs(logits)  # (V, n, C)
            temperature, alpha, hard_target = distillation.temperature, distillation.alpha, distillation.hard_target
            lesson = replace(lesson, targets=logits, temperature=temperature, alpha=alpha, hard_target=hard_target)
        self._train(self.study.student, "student", lesson, job, on_epoch)

    def _vote_targets(self) -> Tensor:
        """Give logits (V, n, 2) whose softmax is the share of votes for each class, alike in every view."""
        shares = self.samples.positive_votes
        if shares is None:
            raise ValueError("soft-votes without votes, which resolve_rows refuses")
        share = torch.from_numpy(shares[self.samples.train])  # (n,)
        # exp(-1e4) is zero, as the share of a class for which nobody voted.
        logits = torch.stack([1 - share, share], dim=-1).log().clamp(min=-1e4).float()  # (n, 2)
        return logits.expand(self.views.count, -1, -1)

    @cached_property
    def _weights(self) -> Tensor | None:
        """Sample weights (N,) with a mean of 1 over the training images, which keeps the learning rate's meaning."""
        weights = self.samples.table.weights
        return None if weights is None else torch.from_numpy(weights / weights[self.samples.train].mean()).float()

    def _stage(self, role: Literal["teacher", "student"]) -> NDArray[np.int64] | None:
        """Give the curriculum's stages (N,) if this role follows it."""
        return self.samples.stage if getattr(self.study.curriculum, role) else None

    def predict(self, job: Job) -> None:
        """Store a trained network's logits on validation and test images, and what it costs to run."""
        role, name = job.name.split("/")  # "students/skd"
        outputs = ARMS[name].outputs if role == "students" else "class" if name == "class" else "subclass"
        network = self.study.student if role == "students" else self.study.teacher
        model = self._model(network, role, outputs)
        model.load_state_dict(store.load(self.out / f"{job.name}-seed{self.seed}.safetensors"))
        cost = network_cost(model, self.samples.images.shape[1:])
        model = self.fabric.setup_module(model)
        rows = {"validation": self.pixels.validation, "test": torch.from_numpy(self.samples.test)}
        logits = {
            split: training.predict(model, self.pixels.images, rows[split], self.fabric)  # (n, outputs)
            for split in rows
        }
        store.save(self.out / job.path, logits, job.recipe, cost)

    def _train(self, network: Network, role: str, lesson: Lesson, job: Job, on_epoch: Callable[[Epoch], None]) -> None:
        started = time.perf_counter()
        outputs = "class" if lesson.hierarchy.num_subclasses == self.samples.hierarchy.num_classes else "subclass"
        model = self._model(network, role, outputs)
        seed = derived_seed(self.seed, role, "order")
        weights, history = training.train(model, lesson, self.pixels, self.views, network, self.fabric, seed, on_epoch)
        notes = {
            "best": asdict(training.best_epoch(history, lesson)),
            "history": [asdict(epoch) for epoch in history],
            "train_seconds": time.perf_counter() - started,
        }
        store.save(self.out / job.path, weights, job.recipe, notes)

    def _origin(self, weights: dict[str, Tensor]) -> targets.Origin:
        """Say what targets that a teacher of these weights makes now would come from."""
        marks = store.weights_fingerprint(weights), self.samples.fingerprint, fingerprint(asdict(self.views))
        return targets.Origin(*marks)

    def _teacher_weights(self, name: str) -> dict[str, Tensor]:
        return store.load(self.out / f"teachers/{name}-seed{self.seed}.safetensors")

    def _model(self, network: Network, role: str, outputs: str) -> nn.Module:
        """Build a network whose body starts alike in every arm of the seed, whatever the size of its head."""
        hierarchy, seed = self.samples.hierarchy, derived_seed(self.seed, role.removesuffix("s"), "weights")
        widest = _seeded_model(network, hierarchy.num_subclasses, self.samples, seed)
        if outputs == "subclass":
            return widest
        model = _seeded_model(network, hierarchy.num_classes, self.samples, seed)
        start, own = widest.state_dict(), model.state_dict()
        alike = {name: start[name] for name in own if name in start and start[name].shape == own[name].shape}
        model.load_state_dict(alike, strict=False)
        return model

    def _labels(self, outputs: str, shuffled: bool = False) -> Tensor:
        """Give the hard labels (N,) that a network's outputs stand for; shuffled ones never reach the test split."""
        samples = self.samples
        if outputs == "class":
            return torch.from_numpy(samples.class_labels)
        labels = samples.subclass_labels.copy()
        if shuffled:
            random = np.random.Generator(np.random.Philox(derived_seed(self.seed, "shuffle")))
            for rows in (samples.train, samples.validation):
                for number in range(samples.hierarchy.num_classes):
                    members = rows[samples.class_labels[rows] == number]
                    labels[members] = random.permutation(labels[members])
        return torch.from_numpy(labels)

    def _hierarchy(self, outputs: str) -> SubclassHierarchy:
        hierarchy = self.samples.hierarchy
        return SubclassHierarchy.identity(hierarchy.classes) if outputs == "class" else hierarchy


def _seeded_model(network: Network, outputs: int, samples: Samples, seed: int) -> nn.Module:
    mean, std = (torch.from_numpy(statistic) for statistic in samples.mean_and_std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(network, outputs, samples.images.shape[1], mean, std)


def network_cost(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Count a network's parameters, and its multiply-adds for one image.

    Args:
        model: takes (1, C, H, W) on the CPU; left in evaluation mode.
        image_shape: (C, H, W).

    Returns:
        ``parameters`` and ``multiply_adds``: of convolutions and matrix products, as torch counts them.
    """
    counter = FlopCounterMode(display=False)
    model.eval()
    with torch.no_grad(), counter:
        model(torch.zeros(1, *image_shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "multiply_adds": counter.get_total_flops() // 2}
