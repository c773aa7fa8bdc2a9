"""Operating points: thresholds chosen on validation by a stated rule, and what they do on the test images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.errors import UserError
from subclass_kd.report.folder import Run
from subclass_kd.report.measures import (
    Counts,
    choose_threshold,
    count,
    predictive_intervals,
    predictive_values,
    wilson,
)

RULES = ("highest", "youden", "specificity", "cost")


@dataclass(frozen=True)
class Choices:
    """What only the reader can know.

    Args:
        specificity: that the rule of this name demands, between 0 and 1.
        miss_cost: what a miss costs, in false alarms, above 0.
        prevalences: shares of positives where the student may be used, each between 0 and 1.

    Raises:
        UserError: one is out of range.
    """

    specificity: float = 0.9
    miss_cost: float = 5.0
    prevalences: tuple[float, ...] = (0.01, 0.05, 0.2, 0.5)

    def __post_init__(self) -> None:
        if not 0 < self.specificity < 1:
            raise UserError("--specificity", f"{self.specificity:g}", "a share between 0 and 1")
        if not 0 < self.miss_cost < math.inf:
            raise UserError("--miss-cost", f"{self.miss_cost:g}", "a number above 0")
        for prevalence in self.prevalences:
            if not 0 < prevalence < 1:
                raise UserError("--prevalence", f"{prevalence:g}", "a share between 0 and 1")


def operating_points(run: Run, arm: str, choices: Choices) -> list[dict[str, Any]]:
    """Describe the student of the best seed at the threshold of each rule, with the other seeds' range.

    Thresholds are chosen on the validation images; of folds each network has its own, and test images are pooled.

    Returns:
        For each rule: ``rule``, ``thresholds`` (one a fold), ``counts``, ``sensitivity`` and ``specificity`` with their
        ``..._ci95`` (Wilson) and ``..._seeds`` (lowest and highest of all seeds), and ``predictive``: for the test
        split's and each other prevalence ``prevalence``, ``ppv``, ``ppv_ci95``, ``npv``, ``npv_ci95``.
    """
    found = []
    for rule in RULES:
        of_seed = {seed: _at(run, arm, seed, rule, choices) for seed in run.seeds}
        thresholds, counts = of_seed[run.best_seed]
        row: dict[str, Any] = {"rule": rule, "thresholds": thresholds, "counts": counts}
        for name, right, of in (
            ("sensitivity", counts.true_positives, counts.positives),
            ("specificity", counts.true_negatives, counts.negatives),
        ):
            each = [getattr(other, name) for _, other in of_seed.values()]
            row |= {name: right / of, f"{name}_ci95": wilson(right, of), f"{name}_seeds": (min(each), max(each))}
        here = counts.positives / (counts.positives + counts.negatives)
        others = [prevalence for prevalence in choices.prevalences if abs(prevalence - here) > 0.0005]  # 50.0 % once
        row["predictive"] = [_predictive(counts, prevalence) for prevalence in (here, *others)]
        found.append(row)
    return found


def _predictive(counts: Counts, prevalence: float) -> dict[str, Any]:
    ppv, npv = predictive_values(counts.sensitivity, counts.specificity, prevalence)
    of_ppv, of_npv = predictive_intervals(counts, prevalence)
    return {"prevalence": prevalence, "ppv": ppv, "ppv_ci95": of_ppv, "npv": npv, "npv_ci95": of_npv}


def _at(run: Run, arm: str, seed: int, rule: str, choices: Choices) -> tuple[list[float | None], Counts]:
    """Give the threshold of each part, None where the highest probability decides, and the counts of all."""
    thresholds: list[float | None] = []
    total = Counts(0, 0, 0, 0)
    on_validation = run.class_probs("students", arm, seed, "validation")
    on_test = run.class_probs("students", arm, seed, "test")
    for listed, chosen_on, judged_on in zip(run.listed, on_validation, on_test, strict=True):
        truth = {split: run.parent[rows.subclasses] == run.positive for split, rows in listed.items()}
        if rule == "highest":
            thresholds.append(None)
            called: NDArray[np.bool_] = judged_on.argmax(-1) == run.positive
        else:
            scores = chosen_on[:, run.positive]
            at = choose_threshold(scores, truth["validation"], rule, choices.specificity, choices.miss_cost)
            thresholds.append(at)
            called = judged_on[:, run.positive] >= at
        total = total + count(called, truth["test"])
    return thresholds, total
