"""Operating points: thresholds chosen on validation by a stated rule, and what they do on the test images.

They are of calibrated probabilities, as a bundle's: the number on the page is that of ``skd export --threshold``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.calibration import calibrated, fit_temperature, threshold_for
from subclass_kd.counts import Counts, Interval, share_interval
from subclass_kd.errors import UserError
from subclass_kd.report.folder import Run
from subclass_kd.report.measures import LEVEL_OF_BOTH, predictive_intervals, predictive_values

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
        For each rule: ``rule``, ``thresholds`` and ``temperatures`` (one a fold), ``counts``, ``sensitivity`` and
        ``specificity`` with their ``..._ci95`` (over patients where these are known, else images) and ``..._seeds``
        (lowest and highest of all seeds), and ``predictive``: for the test split's and each other prevalence
        ``prevalence``, ``ppv``, ``ppv_ci95``, ``npv``, ``npv_ci95``.
    """
    truth, groups = run.parent[run.labels("test")] == run.positive, run.groups("test")
    sides = {"sensitivity": truth, "specificity": ~truth}
    found = []
    texts = {"specificity": f"specificity={choices.specificity}", "cost": f"cost={choices.miss_cost}"}
    answers = {seed: _calibrated(run, arm, seed) for seed in run.seeds}
    temperatures = [answer.temperature for answer in answers[run.best_seed]]
    for rule in RULES:
        of_seed = {seed: _at(each, texts.get(rule, rule), run.positive) for seed, each in answers.items()}
        thresholds, called = of_seed[run.best_seed]
        all_counts = [Counts.of(truth, other) for _, other in of_seed.values()]
        counts = Counts.of(truth, called)
        row: dict[str, Any] = {"rule": rule, "thresholds": thresholds, "temperatures": temperatures, "counts": counts}
        wide: dict[str, Interval | None] = {}
        for name, side in sides.items():
            right, of = (called == truth)[side], None if groups is None else groups[side]
            each = [getattr(other, name) for other in all_counts]
            row |= {name: getattr(counts, name), f"{name}_ci95": share_interval(right, of)}
            row[f"{name}_seeds"] = (min(each), max(each))
            wide[name] = share_interval(right, of, LEVEL_OF_BOTH)
        here = counts.positives / len(truth)
        others = [
            prevalence for prevalence in choices.prevalences if f"{prevalence:.3f}" != f"{here:.3f}"
        ]  # 50.0 % once
        row["predictive"] = [_predictive(counts, wide, prevalence) for prevalence in (here, *others)]
        found.append(row)
    return found


def _predictive(counts: Counts, wide: dict[str, Interval | None], prevalence: float) -> dict[str, Any]:
    ppv, npv = predictive_values(counts.sensitivity, counts.specificity, prevalence)
    of_ppv, of_npv = predictive_intervals(wide["sensitivity"], wide["specificity"], prevalence)
    return {"prevalence": prevalence, "ppv": ppv, "ppv_ci95": of_ppv, "npv": npv, "npv_ci95": of_npv}


@dataclass(frozen=True, eq=False)
class _Answers:
    """A network's calibrated class probabilities of validation (n, C) and test images, and the validation's truth."""

    temperature: float
    validation: NDArray[np.float64]
    truth: NDArray[np.bool_]
    test: NDArray[np.float64]


def _calibrated(run: Run, arm: str, seed: int) -> list[_Answers]:
    """Calibrate a seed's network of each part on its validation images."""
    found = []
    on_validation = run.class_log_probs("students", arm, seed, "validation")
    on_test = run.class_log_probs("students", arm, seed, "test")
    for listed, chosen_on, judged_on in zip(run.listed, on_validation, on_test, strict=True):
        labels = run.parent[listed["validation"].subclasses]
        temperature = fit_temperature(chosen_on, labels)
        probs = calibrated(chosen_on, temperature), calibrated(judged_on, temperature)
        found.append(_Answers(temperature, probs[0], labels == run.positive, probs[1]))
    return found


def _at(answers: list[_Answers], rule: str, positive: int) -> tuple[list[float | None], NDArray[np.bool_]]:
    """Give the threshold of each part, None where the highest probability decides, and (N,) which are called."""
    thresholds: list[float | None] = []
    called: list[NDArray[np.bool_]] = []
    for each in answers:
        if rule == "highest":
            thresholds.append(None)
            called.append(each.test.argmax(-1) == positive)
        else:
            at = threshold_for(rule, each.validation[:, positive], each.truth)[0]
            thresholds.append(at)
            called.append(each.test[:, positive] >= at)
    return thresholds, np.concatenate(called)
