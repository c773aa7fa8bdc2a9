"""Operating points: thresholds chosen on validation by a stated rule, and what they do on the test images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.counts import Counts, Interval, share_interval
from subclass_kd.errors import UserError
from subclass_kd.report.folder import Run
from subclass_kd.report.measures import LEVEL_OF_BOTH, choose_threshold, predictive_intervals, predictive_values

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
        ``..._ci95`` (over patients where these are known, else images) and ``..._seeds`` (lowest and highest of all
        seeds), and ``predictive``: for the test split's and each other prevalence ``prevalence``, ``ppv``,
        ``ppv_ci95``, ``npv``, ``npv_ci95``.
    """
    truth, groups = run.parent[run.labels("test")] == run.positive, run.groups("test")
    sides = {"sensitivity": truth, "specificity": ~truth}
    found = []
    for rule in RULES:
        of_seed = {seed: _at(run, arm, seed, rule, choices) for seed in run.seeds}
        thresholds, called = of_seed[run.best_seed]
        all_counts = [Counts.of(truth, other) for _, other in of_seed.values()]
        counts = Counts.of(truth, called)
        row: dict[str, Any] = {"rule": rule, "thresholds": thresholds, "counts": counts}
        wide: dict[str, Interval | None] = {}
        for name, side in sides.items():
            right, of = (called == truth)[side], None if groups is None else groups[side]
            each = [getattr(other, name) for other in all_counts]
            row |= {name: getattr(counts, name), f"{name}_ci95": share_interval(right, of)}
            row[f"{name}_seeds"] = (min(each), max(each))
            wide[name] = share_interval(right, of, LEVEL_OF_BOTH)
        here = counts.positives / len(truth)
        others = [prevalence for prevalence in choices.prevalences if abs(prevalence - here) > 0.0005]  # 50.0 % once
        row["predictive"] = [_predictive(counts, wide, prevalence) for prevalence in (here, *others)]
        found.append(row)
    return found


def _predictive(counts: Counts, wide: dict[str, Interval | None], prevalence: float) -> dict[str, Any]:
    ppv, npv = predictive_values(counts.sensitivity, counts.specificity, prevalence)
    of_ppv, of_npv = predictive_intervals(wide["sensitivity"], wide["specificity"], prevalence)
    return {"prevalence": prevalence, "ppv": ppv, "ppv_ci95": of_ppv, "npv": npv, "npv_ci95": of_npv}


def _at(run: Run, arm: str, seed: int, rule: str, choices: Choices) -> tuple[list[float | None], NDArray[np.bool_]]:
    """Give the threshold of each part, None where the highest probability decides, and (N,) which are called."""
    thresholds: list[float | None] = []
    called: list[NDArray[np.bool_]] = []
    on_validation = run.class_probs("students", arm, seed, "validation")
    on_test = run.class_probs("students", arm, seed, "test")
    for listed, chosen_on, judged_on in zip(run.listed, on_validation, on_test, strict=True):
        if rule == "highest":
            thresholds.append(None)
            called.append(judged_on.argmax(-1) == run.positive)
        else:
            truth = run.parent[listed["validation"].subclasses] == run.positive
            scores = chosen_on[:, run.positive]
            at = choose_threshold(scores, truth, rule, choices.specificity, choices.miss_cost)
            thresholds.append(at)
            called.append(judged_on[:, run.positive] >= at)
    return thresholds, np.concatenate(called)
