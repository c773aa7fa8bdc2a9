"""What every job of a study needs at hand: what a training may see, its labels and weights, networks at their start."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subclass_kd.arithmetic import Choices
from subclass_kd.augment import Views
from subclass_kd.build import derived_seed, seeded_model
from subclass_kd.config import Network, Study
from subclass_kd.data.cross_fit import cross_fit_parts
from subclass_kd.data.rows import Samples
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.training import Pixels

Outputs = Literal["class", "subclass"]


class Bench:
    """Study, samples, device and seed at hand while one job is done.

    Args:
        study: what to run.
        samples: its data.
        out: the run folder.
        choices: how the networks compute.
        seed: the job's.
    """

    def __init__(self, study: Study, samples: Samples, out: Path, choices: Choices, seed: int) -> None:
        self.study, self.samples, self.out, self.choices, self.seed = study, samples, out, choices, seed
        self.views = Views(derived_seed(seed, "views"), study.distillation.stored, study.augment)

    @cached_property
    def pixels(self) -> Pixels:
        """What a training may see."""
        samples = self.samples
        train, validation = torch.from_numpy(samples.train), torch.from_numpy(samples.validation)
        return Pixels(samples.images, train, validation, samples.positive)

    @cached_property
    def taught(self) -> Pixels:
        """What a student of a teacher may see: the same, and images without labels if the study has any."""
        rest = self.samples.unlabelled
        return self.pixels if rest is None else replace(self.pixels, unlabelled=torch.from_numpy(rest))

    @cached_property
    def part_of(self) -> Tensor | None:
        """(n,) int64: the member of a cross-fitted teacher that trains without each image, and so answers for it.

        No member has trained on the images without labels: they take turns to answer for them.
        """
        teacher, rest = self.study.teacher, self.samples.unlabelled
        if not teacher.cross_fit:
            return None
        parts = torch.from_numpy(cross_fit_parts(self.samples, teacher.members))
        return parts if rest is None else torch.cat([parts, torch.arange(len(rest)) % teacher.members])

    def pixels_of(self, member: int | None) -> Pixels:
        """Give what a member of a teacher may see: all, or with cross-fitting all training images but its part."""
        if self.part_of is None:
            return self.pixels
        train = self.pixels.train
        return replace(self.pixels, train=train[self.part_of[: len(train)] != member])

    @cached_property
    def weights(self) -> Tensor | None:
        """Sample weights (N,) with a mean of 1 over the training images, which keeps the learning rate's meaning."""
        weights, rest = self.samples.table.weights, self.samples.unlabelled
        if weights is None:
            return None
        relative = weights / weights[self.samples.train].mean()
        if rest is not None:  # a weight may tell what the label is
            relative[rest] = 1
        return torch.from_numpy(relative).float()

    def stage(self, role: Literal["teacher", "student"]) -> NDArray[np.int64] | None:
        """Give the curriculum's stages (N,) if this role follows it."""
        return self.samples.stage if getattr(self.study.curriculum, role) else None

    def hierarchy(self, outputs: Outputs) -> SubclassHierarchy:
        """Give the hierarchy of a network's outputs."""
        hierarchy = self.samples.hierarchy
        return SubclassHierarchy.identity(hierarchy.classes) if outputs == "class" else hierarchy

    def labels(self, outputs: Outputs, shuffled: bool = False) -> Tensor:
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

    def vote_targets(self) -> Tensor:
        """Give logits (V, n, 2) whose softmax is the share of votes for each class, alike in every view."""
        shares = self.samples.positive_votes
        if shares is None:
            raise ValueError("soft-votes without votes, which resolve_rows refuses")
        share = torch.from_numpy(shares[self.samples.train])  # (n,)
        # exp(-1e4) is zero, as the share of a class for which nobody voted.
        logits = torch.stack([1 - share, share], dim=-1).log().clamp(min=-1e4).float()  # (n, 2)
        views = self.study.student.epochs if self.views.count is None else self.views.count
        return logits.expand(views, -1, -1)

    def model(
        self, network: Network, role: Literal["teacher", "student"], outputs: Outputs, member: int = 0
    ) -> nn.Module:
        """Build a network whose body starts alike in every arm of the seed, whatever the size of its head.

        Args:
            network: the study's teacher or student.
            role: which of the two.
            outputs: what it is to predict.
            member: which of a teacher's networks; each starts from weights of its own.
        """
        hierarchy, seed = self.samples.hierarchy, self.seed_of(role, "weights", member)
        widest = seeded_model(network, hierarchy.num_subclasses, self.samples, seed)
        if outputs == "subclass":
            return widest
        model = seeded_model(network, hierarchy.num_classes, self.samples, seed)
        start, own = widest.state_dict(), model.state_dict()
        alike = {name: start[name] for name in own if name in start and start[name].shape == own[name].shape}
        model.load_state_dict(alike, strict=False)
        return model

    def seed_of(self, role: str, use: str, member: int = 0) -> int:
        """Derive a generator's seed; a teacher's first member has that of a teacher alone."""
        return derived_seed(self.seed, role, use, *([member] if member else []))
