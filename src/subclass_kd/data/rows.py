"""What a study's samples are: rows of a table with labels and splits, and their pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data.index import Index
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.table import SampleTable
from subclass_kd.data.votes import positive_shares, vote_summary
from subclass_kd.hierarchy import SubclassHierarchy

SPLITS = ("train", "validation", "test")
# (N, C, H, W): in memory, mapped from disk, or files that are decoded for the rows that are asked for.
Images = NDArray[np.uint8] | OnDemand


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Everything about a study's samples but their pixels, split once for the whole study; not to be changed.

    Args:
        table: the rows that are used, as their owner describes them; those dropped for a tied vote are not among them.
        subclass_labels: (N,) int64 into ``hierarchy.subclasses``.
        train, validation, test: sorted row numbers, (n,) int64 each; no row is in two.
        hierarchy: subclasses and their classes.
        positive: number of the class that F1 speaks of.
        groups: (N,) int64, the patient or slide of each row; None where each image stands for itself.
        stage: (N,) int64, the stage of a curriculum in which a training image enters; None without one.
        ties: how many rows a tied vote dropped.
        unlabelled: (u,) int64, the training images whose labels nothing may use; None where there are none.
        nameless: how many rows, the last, have no label at all.
    """

    table: SampleTable
    subclass_labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    hierarchy: SubclassHierarchy
    positive: int
    groups: NDArray[np.int64] | None = None
    stage: NDArray[np.int64] | None = None
    ties: int = 0
    unlabelled: NDArray[np.int64] | None = None
    nameless: int = 0

    @cached_property
    def class_labels(self) -> NDArray[np.int64]:
        """(N,) int64 into ``hierarchy.classes``."""
        return np.asarray(self.hierarchy.parent_indices, dtype=np.int64)[self.subclass_labels]

    @property
    def named(self) -> int:
        """How many rows, the first, have a label."""
        return len(self.table) - self.nameless

    @property
    def positive_votes(self) -> NDArray[np.float64] | None:
        """(N,) share of the annotators who voted for the positive class; None without votes."""
        return None if self.table.votes is None else positive_shares(self.table.votes)

    def describe(self) -> dict[str, Any]:
        """Give names, counts by split, groups and what tells them, and a summary of the votes."""
        hierarchy = self.hierarchy
        counts = {
            split: np.bincount(self.subclass_labels[getattr(self, split)], minlength=hierarchy.num_subclasses)
            for split in SPLITS
        }
        subclasses = [
            {"name": name, "class": hierarchy.classes[parent], **{split: int(counts[split][k]) for split in SPLITS}}
            for k, (name, parent) in enumerate(zip(hierarchy.subclasses, hierarchy.parent_indices, strict=True))
        ]
        return {
            "classes": list(hierarchy.classes),
            "positive": hierarchy.classes[self.positive],
            "subclasses": subclasses,
            "groups": None if self.groups is None else {s: len(set(self.groups[getattr(self, s)])) for s in SPLITS},
            "group_source": None if self.groups is None else self.table.group_source,
            "votes": self._describe_votes(),
            "unlabelled": 0 if self.unlabelled is None else len(self.unlabelled),
        }

    def without_test(self) -> Rows:
        """Give the rows but those of the test split, which then has none: whoever has these cannot look at it."""
        kept = np.setdiff1d(np.arange(len(self.table)), self.test)
        place = np.full(len(self.table), -1)
        place[kept] = np.arange(len(kept))
        return replace(
            self,
            table=self.table.take(kept),
            subclass_labels=self.subclass_labels[kept],
            train=place[self.train],
            validation=place[self.validation],
            test=self.test[:0],
            groups=None if self.groups is None else self.groups[kept],
            stage=None if self.stage is None else self.stage[kept],
            unlabelled=None if self.unlabelled is None else place[self.unlabelled],
        )

    def _describe_votes(self) -> dict[str, Any] | None:
        votes, hierarchy = self.table.votes, self.hierarchy
        if votes is None:
            return None
        names = hierarchy.classes, hierarchy.subclasses
        train = self.train
        taught = vote_summary(votes[train], self.class_labels[train], self.subclass_labels[train], *names)
        summary = vote_summary(votes, self.class_labels, self.subclass_labels, *names)
        return summary | {"dropped_ties": self.ties, "ceiling": taught["subclass_entropy"]}

    def listing(self) -> list[list[str]]:
        """Give every sample as text, one row each under a row of column names, for samples.csv."""
        table, hierarchy = self.table, self.hierarchy
        split_of = np.full(len(table), "unused", dtype="<U10")
        for split in SPLITS:
            split_of[getattr(self, split)] = split
        if self.unlabelled is not None:
            split_of[self.unlabelled] = "unlabelled"
        columns: dict[str, list[str]] = {
            "sample": table.names,
            "class": [hierarchy.classes[label] for label in self.class_labels[: self.named]] + [""] * self.nameless,
            "subclass": [hierarchy.subclasses[label] for label in self.subclass_labels[: self.named]]
            + [""] * self.nameless,
            "split": split_of.tolist(),
        }
        if table.groups is not None:
            columns["group"] = table.groups
        if table.votes is not None:
            columns["positive_votes"] = [str(count) for count in table.votes.positive]
            columns["annotators"] = [str(count) for count in table.votes.annotators]
        if table.weights is not None:
            columns["weight"] = [str(weight) for weight in table.weights]
        return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples(Rows):
    """Rows with their pixels, decoded.

    Args:
        images: (N, C, H, W) uint8.
        index: what is known of the images without reading them.
        fingerprint: changes when any pixel, label, split, group, vote, weight or name does.
    """

    images: Images
    index: Index
    fingerprint: str

    @cached_property
    def mean_and_std(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and spread (C,) of the training images' pixels in [0, 1]; the spread is at least 1e-3."""
        return self.index.mean_and_std(self.train)

    def describe(self) -> dict[str, Any]:
        """Give results.json's "data": what the rows are, the images' shape, the fingerprint."""
        return super().describe() | {"image_shape": list(self.images.shape[1:]), "fingerprint": self.fingerprint}
