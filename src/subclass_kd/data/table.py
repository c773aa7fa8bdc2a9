"""The samples table: one row an image, as its owner describes it, before labels are resolved and pixels decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd import config
from subclass_kd.config import Study
from subclass_kd.data.members import Member, Root, locate
from subclass_kd.errors import UserError

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Votes:
    """How many annotators looked at each image, and how many voted for the positive class.

    Args:
        positive: (N,) int64, 0 to ``annotators``.
        annotators: (N,) int64, at least 1.
    """

    positive: NDArray[np.int64]
    annotators: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positive)

    def __getitem__(self, rows: NDArray[Any]) -> Votes:
        return Votes(self.positive[rows], self.annotators[rows])


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Rows of a study's data, in the order of the file or of sorted paths; every column that is there has N rows.

    A reader puts into it what its source says and nothing else; what is wrong goes to Findings, and rows with an error
    are left out.

    Args:
        where: the file or folder that messages name.
        names: one a row, each once: the image's path under ``root`` in POSIX form, or "image 17" of an embedded set.
        root: the folder that the images lie in, or the URL of that of shards; None where ``images`` holds them.
        spans: (N, 2) int64: where in a shard each image begins and how long it is, -1 of one that is a file; a name
            is that of the shard and, behind "/", that of the member. None where all are files.
        images: (N, C, H, W) uint8 of data that come decoded; None where they are files.
        classes: the class of each row; None where votes or the study's hierarchy decide it.
        subclasses: the subclass of each row, unique over the classes; None where votes decide it or nothing is known.
        votes: annotators' votes.
        splits: "train", "validation" or "test" of each row; None where splits are to be made.
        groups: the patient or slide of each row, "" for an image that belongs to none; None where nothing is known.
        group_source: what tells the groups, for a reader; "" where there are none.
        weights: (N,) float64, >= 0 and finite: how much each counts in training.
        difficulty: (N,) float64, finite: larger is harder; for a curriculum.
        rows: (N,) int64: the row of the file that each came from, counted as a spreadsheet does; None for folders.
    """

    where: str
    names: list[str]
    root: Root | None = None
    spans: NDArray[np.int64] | None = None
    images: NDArray[np.uint8] | None = None
    classes: list[str] | None = None
    subclasses: list[str] | None = None
    votes: Votes | None = None
    splits: list[str] | None = None
    groups: list[str] | None = None
    group_source: str = ""
    weights: NDArray[np.float64] | None = None
    difficulty: NDArray[np.float64] | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def place(self, row: int) -> str:
        """Say where a row stands, for a message: ``labels.csv, row 812`` or the image's own path."""
        if self.rows is not None and self.rows[row] >= 0:
            return f"{self.where}, row {self.rows[row]}"
        return str(self.path(row)) if self.root is not None else f"{self.where}, {self.names[row]}"

    def path(self, row: int) -> Path | Member:
        """Give what an image is read from: a file, or a member of a shard."""
        return locate(self.root, self.names[row], None if self.spans is None else self.spans[row])

    def take(self, rows: NDArray[np.int64]) -> SampleTable:
        """Give the table of some rows, in the order given."""

        def taken(column: Any) -> Any:
            if isinstance(column, list):
                return [column[row] for row in rows.tolist()]
            return column[rows] if isinstance(column, np.ndarray | Votes) else column

        return SampleTable(**{field.name: taken(getattr(self, field.name)) for field in fields(self)})

    def extended(self, names: list[str]) -> SampleTable:
        """Give the table with rows of further images, of which nothing is known."""

        def more(column: Any, blank: Any) -> Any:
            if isinstance(column, list):
                return column + [blank] * len(names)
            return column if column is None else np.concatenate([column, np.full(len(names), blank, column.dtype)])

        return replace(
            self,
            names=self.names + names,
            spans=None if self.spans is None else np.concatenate([self.spans, np.full((len(names), 2), -1)]),
            classes=more(self.classes, ""),
            subclasses=more(self.subclasses, ""),
            splits=more(self.splits, ""),
            groups=more(self.groups, ""),
            weights=more(self.weights, 1.0),
            difficulty=more(self.difficulty, 0.0),
            rows=more(self.rows, -1),
        )


def number(values: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Number values in the order of their sorted names.

    >>> codes, names = number(["virus", "bacteria", "virus"])
    >>> codes.tolist(), names
    ([1, 0, 1], ['bacteria', 'virus'])
    """
    names = sorted(set(values))
    codes = {name: code for code, name in enumerate(names)}
    return np.array([codes[value] for value in values], dtype=np.int64), names


def refuse_keys(study: Study, *keys: str) -> None:
    """Refuse keys that this kind of data would pass over in silence.

    Args:
        study: as the user wrote it.
        keys: of ``data``; "votes" for the whole section; "counting" for those of its keys that say which votes there
            are, all but ``tie`` and ``subclasses``, where the data bring their own.

    Raises:
        UserError: one of them is set.
    """
    usual, fields = config.Votes(), config.Votes.model_fields.keys() - {"tie", "subclasses"}
    counting = {name for name in fields if study.votes and getattr(study.votes, name) != getattr(usual, name)}
    for key in keys:
        if key == "counting":
            given = [f"votes.{name}" for name in sorted(counting)]
        elif key == "votes":
            given = ["votes"] if study.votes else []
        else:
            given = [f"data.{key}"] if getattr(study.data, key) else []
        for name in given:
            remedy = "Remove it. Images of your own are of kind folder, table or webdataset."
            raise UserError(f'key "{name}"', f"a value, and data.kind: {study.data.kind}", "no such key there", remedy)
