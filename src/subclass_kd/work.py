"""How each job of a study is done: train a teacher, store its targets, train a student, predict the test split."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subclass_kd import store, targets, training
from subclass_kd.arithmetic import Choices
from subclass_kd.arms import ARMS
from subclass_kd.augment import Views
from subclass_kd.build import derived_seed, network_cost, seeded_model
from subclass_kd.config import Network, Study
from subclass_kd.data.rows import Samples
from subclass_kd.device import make_fabric
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.feeding import Feed
from subclass_kd.files import fingerprint, write_json
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.plan import Job
from subclass_kd.training import Lesson, Pixels

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    choices: Choices,
    on_epoch: Callable[[Job, Epoch], None],
) -> None:
    """Make the files of one job, or of students that train as one.

    Args:
        study: what to run.
        samples: its data.
        out: the run folder.
        jobs: which files, as :func:`subclass_kd.plan.grouped` puts them together.
        choices: how the networks compute, as :func:`check` chose.
        on_epoch: called after each epoch of each job's training.

    Raises:
        UserError: a file that the job needs is damaged or stale, the model cannot be built, or the disk refuses.
    """
    try:
        _make(_Bench(study, samples, out, choices, jobs[0].seed), jobs, on_epoch)
    except torch.OutOfMemoryError as error:
        expected = "a batch that fits, beside what else computes there"
        remedy = "Lower its batch_size, data.size or --workers."
        raise UserError(jobs[0].path, "too little memory on the device", expected, remedy) from error
    except OSError as error:
        where, found = str(error.filename or out / jobs[0].path), error.strerror or str(error)
        raise UserError(where, found, "a disk to read from and write to", "Mend that and run again.") from error


def _make(bench: _Bench, jobs: Sequence[Job], on_epoch: Callable[[Job, Epoch], None]) -> None:
    job = jobs[0]
    if job.kind == "teachers":
        bench.train_teacher(job, on_epoch)
    elif job.kind == "targets":
        bench.make_targets(job)
    elif job.kind == "students":
        bench.train_students(jobs, on_epoch)
    elif job.kind == "predictions":
        bench.predict(job)
    else:
        from subclass_kd.results import assemble  # its metrics and statistics take seconds to load: once, at the end

        write_json(bench.out / job.path, assemble(bench.study, bench.samples, bench.out, bench.choices))


class _Bench:
    """Study, samples, device and seed at hand while one job is done."""

    def __init__(self, study: Study, samples: Samples, out: Path, choices: Choices, seed: int) -> None:
        self.study, self.samples, self.out, self.choices, self.seed = study, samples, out, choices, seed
        self.views = Views(derived_seed(seed, "views"), study.distillation.stored, study.augment)

    @cached_property
    def pixels(self) -> Pixels:
        """What a training may see."""
        samples = self.samples
        train, validation = torch.from_numpy(samples.train), torch.from_numpy(samples.validation)
        return Pixels(samples.images, train, validation, samples.positive)

    def train_teacher(self, job: Job, on_epoch: Callable[[Job, Epoch], None]) -> None:
        """Train on class labels, subclass labels, or subclass labels shuffled inside each class."""
        outputs = "class" if job.name == "class" else "subclass"
        labels = self._labels(outputs, shuffled=job.name == "subclass-shuffled")
        lesson = Lesson(
            self._hierarchy(outputs), labels, weights=self._weights, stage=self._stage("teacher"), select_by="log_loss"
        )
        self._train(self.study.teacher, "teacher", [lesson], [job], on_epoch)

    def make_targets(self, job: Job) -> None:
        """Store a teacher's logits for every view of every training image."""
        weights = self._teacher_weights(job.name)
        origin = self._origin(weights)
        teacher, fabric, notes = self._answering(job.name, weights)
        arithmetic = self.choices.targets.chosen
        parts = targets.Parts(self.out / job.path, fingerprint(job.recipe, asdict(origin), asdict(arithmetic), notes))
        feed = Feed(self.pixels.images, self.pixels.train, fabric)
        logits = targets.compute(
            teacher, feed, self.views, fabric, arithmetic.batch_size, arithmetic.memory_format, parts
        )
        targets.write(self.out / job.path, logits, origin, job.recipe, notes)
        parts.remove()

    def _answering(self, name: str, weights: dict[str, Tensor]) -> tuple[nn.Module, Fabric, dict[str, Any]]:
        """Give a trained teacher on its device, in bfloat16 only if that is accurate enough, and how accurate it is."""
        teacher = self._model(self.study.teacher, "teacher", "class" if name == "class" else "subclass")
        teacher.load_state_dict(weights)
        arithmetic = self.choices.targets.chosen
        notes: dict[str, Any] = {"precision": "float32"}
        teacher.to(memory_format=arithmetic.memory_format)
        exact = make_fabric(self.study)
        if arithmetic.precision == "float32":
            return exact.setup_module(teacher).eval(), exact, notes
        coarse = make_fabric(self.study, "bfloat16")
        difference = targets.largest_difference(
            teacher,
            Feed(self.pixels.images, self.pixels.train, exact),
            exact,
            coarse,
            arithmetic.memory_format,
        )
        accurate = difference <= targets.MOST_DIFFERENCE
        notes = {"precision": "bfloat16" if accurate else "float32", "bfloat16_difference": difference}
        fabric = coarse if accurate else exact
        return fabric.setup_module(teacher).eval(), fabric, notes

    def train_students(self, jobs: Sequence[Job], on_epoch: Callable[[Job, Epoch], None]) -> None:
        """Train one arm, or several with as many outputs as one."""
        self._train(self.study.student, "student", [self._lesson(job) for job in jobs], jobs, on_epoch)

    def _lesson(self, job: Job) -> Lesson:
        """Say what an arm's student is taught."""
        arm, distillation = ARMS[job.name], self.study.distillation
        hierarchy, labels = self._hierarchy(arm.outputs), self._labels(arm.outputs, arm.shuffled)
        lesson = Lesson(hierarchy, labels, weights=self._weights, stage=self._stage("student"))
        if arm.votes:
            lesson = replace(lesson, targets=self._vote_targets(), temperature=1.0, alpha=1.0)
        if arm.teacher is not None:
            temperature, alpha, hard_target = distillation.temperature, distillation.alpha, distillation.hard_target
            lesson = replace(lesson, temperature=temperature, alpha=alpha, hard_target=hard_target)
            taught = self._taught_by(arm.teacher, self.out / job.needs[0], arm.collapse)
            lesson = replace(lesson, targets=taught)
        return lesson

    def _taught_by(self, name: str, path: Path, collapse: bool) -> Tensor | Callable[[Tensor], Tensor]:
        """Give a teacher's stored targets (V, n, K), or what answers online; collapsed, with C columns."""
        weights, hierarchy = self._teacher_weights(name), self.samples.hierarchy
        if self.views.count is not None:
            logits = targets.read(path, self._origin(weights))
            return hierarchy.class_log_probs(logits) if collapse else logits
        teacher, _, _ = self._answering(name, weights)

        @torch.no_grad()
        def answer(images: Tensor) -> Tensor:
            logits = teacher(images).float()
            return hierarchy.class_log_probs(logits) if collapse else logits

        return answer

    def _vote_targets(self) -> Tensor:
        """Give logits (V, n, 2) whose softmax is the share of votes for each class, alike in every view."""
        shares = self.samples.positive_votes
        if shares is None:
            raise ValueError("soft-votes without votes, which resolve_rows refuses")
        share = torch.from_numpy(shares[self.samples.train])  # (n,)
        # exp(-1e4) is zero, as the share of a class for which nobody voted.
        logits = torch.stack([1 - share, share], dim=-1).log().clamp(min=-1e4).float()  # (n, 2)
        views = self.study.student.epochs if self.views.count is None else self.views.count
        return logits.expand(views, -1, -1)

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
        choice = self.choices.student if role == "students" else self.choices.teacher
        layout = choice.chosen.memory_format
        fabric = make_fabric(self.study)  # float32, as in use
        model = fabric.setup_module(model.to(memory_format=layout))
        rows = {"validation": self.pixels.validation, "test": torch.from_numpy(self.samples.test)}
        logits = {
            split: training.predict(model, Feed(self.pixels.images, rows[split], fabric), fabric, layout=layout)
            for split in rows
        }  # (n, outputs) each
        store.save(self.out / job.path, logits, job.recipe, cost)

    def _train(
        self,
        network: Network,
        role: str,
        lessons: Sequence[Lesson],
        jobs: Sequence[Job],
        on_epoch: Callable[[Job, Epoch], None],
    ) -> None:
        started = time.perf_counter()
        of_classes = lessons[0].hierarchy.num_subclasses == self.samples.hierarchy.num_classes
        models = [self._model(network, role, "class" if of_classes else "subclass") for _ in jobs]
        chosen = (self.choices.teacher if role == "teacher" else self.choices.student).chosen
        trained = training.train_together(
            models,
            lessons,
            self.pixels,
            self.views,
            network,
            make_fabric(self.study, chosen.precision),
            derived_seed(self.seed, role, "order"),
            lambda number, epoch: on_epoch(jobs[number], epoch),
            chosen.memory_format,
        )
        seconds = (time.perf_counter() - started) / len(jobs)
        for job, lesson, (weights, history) in zip(jobs, lessons, trained, strict=True):
            notes = {
                "best": asdict(training.best_epoch(history, lesson)),
                "history": [asdict(epoch) for epoch in history],
                "train_seconds": seconds,
            }
            store.save(self.out / job.path, weights, job.recipe, notes)

    def _origin(self, weights: dict[str, Tensor]) -> targets.Origin:
        """Say what targets that a teacher of these weights makes now would come from."""
        marks = store.weights_fingerprint(weights), self.samples.fingerprint, fingerprint(self.views.describe())
        return targets.Origin(*marks)

    def _teacher_weights(self, name: str) -> dict[str, Tensor]:
        return store.load(self.out / f"teachers/{name}-seed{self.seed}.safetensors")

    def _model(self, network: Network, role: str, outputs: str) -> nn.Module:
        """Build a network whose body starts alike in every arm of the seed, whatever the size of its head."""
        hierarchy, seed = self.samples.hierarchy, derived_seed(self.seed, role.removesuffix("s"), "weights")
        widest = seeded_model(network, hierarchy.num_subclasses, self.samples, seed)
        if outputs == "subclass":
            return widest
        model = seeded_model(network, hierarchy.num_classes, self.samples, seed)
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
