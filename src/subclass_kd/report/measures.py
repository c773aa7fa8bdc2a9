"""Numbers that a report adds to results.json: predictive values, curves, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.counts import Interval, share_interval

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float | None, float | None]:
    """Positive and negative predictive value at a prevalence, by Bayes; None where nobody is called so.

    >>> [round(value, 3) for value in predictive_values(0.9, 0.9, 0.1)]
    [0.5, 0.988]
    """
    called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    ppv = sensitivity * prevalence / called if called > 0 else None
    npv = specificity * (1 - prevalence) / (1 - called) if called < 1 else None
    return ppv, npv


LEVEL_OF_BOTH = math.sqrt(0.95)  # so that two independent intervals hold together in 95 % of samples


def predictive_intervals(
    sensitivity: Interval | None, specificity: Interval | None, prevalence: float
) -> list[Interval | None]:
    """95 % intervals of both predictive values at a prevalence, from those of sensitivity and specificity.

    Predictive values grow with both, so their ends are those at the ends of both. The level is at least 95 %: the
    interval is a wide one.

    Args:
        sensitivity: its interval at ``LEVEL_OF_BOTH``; None where there is none.
        specificity: likewise.
        prevalence: share of positives.

    >>> from subclass_kd.counts import wilson
    >>> both = wilson(90, 100, LEVEL_OF_BOTH)
    >>> [[round(end, 3) for end in ends] for ends in predictive_intervals(both, both, 0.1)]
    [[0.325, 0.675], [0.975, 0.994]]
    """
    if sensitivity is None or specificity is None:
        return [None, None]
    ends = zip(sensitivity, specificity, strict=True)
    low, high = (predictive_values(sens, spec, prevalence) for sens, spec in ends)
    return [None if a is None or b is None else (a, b) for a, b in zip(low, high, strict=True)]


GRID = np.linspace(0, 1, 101)


def roc(scores: Scores, truth: Truth) -> Scores:
    """Sensitivity at each share of false alarms of ``GRID``, straight between the points."""
    from sklearn.metrics import roc_curve

    alarms, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    line: Scores = np.interp(GRID, alarms, found)
    return line


def precision_recall(scores: Scores, truth: Truth) -> tuple[Scores, float]:
    """Precision at each sensitivity of ``GRID`` or the next higher one reached, and the average precision."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    precision, recall = precision[::-1][1:], recall[::-1][1:]  # rising recall, without the point (0, 1) nobody measured
    place = np.searchsorted(recall, GRID - 1e-12)
    return precision[place], float(average_precision_score(truth, scores))


@dataclass(frozen=True)
class Bin:
    """Answers of like probability: their mean, how often they are right to say positive, and how many they are."""

    predicted: float
    observed: float
    images: int
    ci95: Interval | None


def reliability(
    scores: Scores, truth: Truth, groups: NDArray[Any] | None = None, answers: int = 1, bins: int = 10
) -> list[Bin]:
    """Sort probabilities into bins of equal width and hold each against what came true; empty bins are left out.

    Args:
        scores: (n,) from 0 to 1.
        truth: (n,) whether each is positive.
        groups: (n,) whom each image belongs to, for the intervals of the shares that came true.
        answers: how many of the n are of one image.
        bins: how many.

    >>> found = reliability(np.array([0.05, 0.95, 0.97]), np.array([False, True, False]))
    >>> [(row.predicted, row.observed, row.images) for row in found]
    [(0.05, 0.0, 1), (0.96, 0.5, 2)]
    """
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    found = []
    for b in np.unique(place).tolist():
        here = place == b
        ends = share_interval(truth[here], None if groups is None else groups[here], answers=answers)
        found.append(Bin(float(scores[here].mean()), float(truth[here].mean()), int(here.sum()), ends))
    return found
