"""What a report needs of a run folder, read from its files alone: no torch, no images."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.comparison import HEADLINES
from subclass_kd.errors import UserError
from subclass_kd.files import require_json
from subclass_kd.spreadsheet import plain
from subclass_kd.store import notes

Split = str  # "validation" or "test"
Probabilities = NDArray[np.float64]
RUN_AGAIN = "Give the folder of a finished run: skd run STUDY.yaml makes one."


@dataclass(frozen=True, eq=False)
class Listed:
    """The rows of a split in a part of a run: names of the samples, (n,) numbers of their subclasses, (n,) groups."""

    names: list[str]
    subclasses: NDArray[np.int64]
    groups: NDArray[np.str_] | None


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its results, and on demand its labels and probabilities.

    Args:
        folder: the run folder.
        results: of its results.json.
        parts: the folder itself, or those of its folds.
    """

    folder: Path
    results: Mapping[str, Any]
    parts: tuple[Path, ...]

    @cached_property
    def classes(self) -> list[str]:
        """Names of the C classes."""
        return list(self.results["data"]["classes"])

    @cached_property
    def subclasses(self) -> list[str]:
        """Names of the K subclasses."""
        return [row["name"] for row in self.results["data"]["subclasses"]]

    @cached_property
    def parent(self) -> NDArray[np.int64]:
        """(K,) class number of each subclass."""
        rows = self.results["data"]["subclasses"]
        return np.array([self.classes.index(row["class"]) for row in rows], dtype=np.int64)

    @cached_property
    def positive(self) -> int:
        """Number of the class that F1 speaks of."""
        return self.classes.index(self.results["data"]["positive"])

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of the study."""
        return list(self.results["study"]["seeds"])

    @cached_property
    def pair(self) -> tuple[str, str | None]:
        """The arm that the report looks at closely, and what it is held against."""
        asked = {(row["arm"], row["reference"]) for row in self.results["comparisons"]}
        return next((pair for pair in HEADLINES if pair in asked), (list(self.results["arms"])[-1], None))

    @cached_property
    def best_seed(self) -> int:
        """The seed whose student of the first arm of the pair is best: the one that ``skd export`` takes.

        It has the highest validation F1, mean over folds, then the least log loss, both noted while it trained.
        """

        def merit(seed: int) -> tuple[float, float, int]:
            noted = [notes(part / f"students/{self.pair[0]}-seed{seed}.safetensors")["best"] for part in self.parts]
            return (
                -statistics.mean(best["validation_f1"] for best in noted),
                statistics.mean(best["validation_log_loss"] for best in noted),
                seed,
            )

        return min(self.seeds, key=merit)

    @cached_property
    def listed(self) -> list[dict[Split, Listed]]:
        """What samples.csv of each part lists of validation and test, in the order of the predictions."""
        return [_listed(part / "samples.csv", self.subclasses) for part in self.parts]

    def names(self, split: Split) -> list[str]:
        """Names of a split's samples, part after part."""
        return [name for part in self.listed for name in part[split].names]

    def labels(self, split: Split) -> NDArray[np.int64]:
        """(N,) subclass numbers of a split, part after part."""
        return np.concatenate([part[split].subclasses for part in self.listed])

    def groups(self, split: Split) -> NDArray[np.str_] | None:
        """(N,) whom each image of a split belongs to, part after part; None where that is not known."""
        each = [groups for part in self.listed if (groups := part[split].groups) is not None]
        known = self.results["data"].get("groups") is not None and len(each) == len(self.parts)
        return np.concatenate(each) if known else None

    def subclass_log_probs(self, role: str, name: str, seed: int, split: Split) -> list[Probabilities]:
        """What a seed's network answers, part by part: (n, K), or (n, C) of one that knows classes alone.

        Raises:
            UserError: a file of predictions is missing, damaged, or not of these samples.
        """
        found = []
        for part, listed in zip(self.parts, self.listed, strict=True):
            path = part / f"predictions/{role}/{name}-seed{seed}.safetensors"
            logits = _logits(path, split)
            rows = len(listed[split].names)
            if logits.ndim != 2 or len(logits) != rows or logits.shape[1] not in (len(self.classes), len(self.parent)):
                expected = f"{rows} rows, as samples.csv lists"
                raise UserError(str(path), f"predictions of shape {logits.shape}", expected, "Run the study again.")
            highest = logits.max(-1, keepdims=True)
            found.append(logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True)))
        return found

    def subclass_probs(self, role: str, name: str, seed: int, split: Split) -> list[Probabilities]:
        """The same as probabilities."""
        return [np.exp(rows) for rows in self.subclass_log_probs(role, name, seed, split)]

    def class_probs(self, role: str, name: str, seed: int, split: Split) -> list[Probabilities]:
        """Class probabilities (n, C), part by part: those of a class's subclasses together."""
        return [np.exp(rows) for rows in self.class_log_probs(role, name, seed, split)]

    def class_log_probs(self, role: str, name: str, seed: int, split: Split) -> list[Probabilities]:
        """Logarithms of the class probabilities (n, C), part by part."""
        members = [self.parent == c for c in range(len(self.classes))]
        each = self.subclass_log_probs(role, name, seed, split)
        return [
            np.stack([np.logaddexp.reduce(rows[:, of], axis=1) for of in members], axis=1)
            if rows.shape[1] == len(self.parent)
            else rows
            for rows in each
        ]

    def histories(self, role: str, name: str) -> list[list[dict[str, float]]]:
        """What each training of an arm or a teacher noted of its epochs: all seeds, parts and members."""
        patterns = [
            f"{role}/{name}-seed{seed}{end}" for seed in self.seeds for end in (".safetensors", "-*.safetensors")
        ]
        paths = [path for part in self.parts for pattern in patterns for path in sorted(part.glob(pattern))]
        return [notes(path).get("history", []) for path in paths]


def open_run(folder: Path) -> Run:
    """Read results.json and find the parts of a run.

    Raises:
        UserError: the folder is no finished run.
    """
    path = folder / "results.json"
    results = require_json(path, "the folder of a finished run", RUN_AGAIN, "Run the study again.")
    wanted = ("study", "environment", "data", "arms", "teachers", "comparisons")
    if results.get("schema") != 1 or any(key not in results for key in wanted):
        raise UserError(str(path), "no results of schema 1", "the results of a run", RUN_AGAIN)
    folds = len(results["data"].get("folds", ()))
    return Run(folder, results, tuple(folder / f"fold-{fold}" for fold in range(folds)) or (folder,))


def _listed(path: Path, subclasses: list[str]) -> dict[Split, Listed]:
    number = {name: k for k, name in enumerate(subclasses)}
    splits: dict[Split, tuple[list[str], list[int], list[str]]] = {"validation": ([], [], []), "test": ([], [], [])}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] in splits:
                    names, labels, groups = splits[row["split"]]
                    names.append(plain(row["sample"]))
                    labels.append(number[plain(row["subclass"])])
                    if "group" in row:
                        groups.append(row["group"] or f"\0{path} {len(groups)}")  # without one, by itself
    except OSError as error:
        raise UserError(str(path), error.strerror or str(error), "the samples of the run", RUN_AGAIN) from None
    except (KeyError, ValueError, csv.Error) as error:
        expected = "columns sample, class, subclass, split, with the subclasses of results.json"
        raise UserError(str(path), f"a listing of something else ({error})", expected, "Run the study again.") from None
    return {
        split: Listed(names, np.array(labels, dtype=np.int64), np.array(groups) if groups else None)
        for split, (names, labels, groups) in splits.items()
    }


@lru_cache(maxsize=8)
def _both(path: Path, changed: int) -> dict[str, NDArray[np.float32]]:
    """Read a file of predictions, once for both splits unless it changed since."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        found = f"a file that cannot be read ({error})"
        raise UserError(str(path), found, "a file of this run", "Delete it, run again.") from None


def _logits(path: Path, split: Split) -> NDArray[np.float64]:
    content = _both(path, path.stat().st_mtime_ns if path.exists() else 0)
    if split not in content:
        raise UserError(str(path), f"no {split} predictions", "those of validation and test", "Run the study again.")
    return content[split].astype(np.float64)
