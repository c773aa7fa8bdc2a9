"""Numbers that a report adds to results.json: intervals of shares, thresholds, curves, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from subclass_kd.calibration import threshold_for

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval of a share.

    .. math:: \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    E. B. Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    Args:
        successes: from 0 to n; a mean over seeds need not be whole.
        n: how many, above 0.
        level: of confidence, between 0 and 1.

    Returns:
        Both ends, from 0 to 1.

    Raises:
        ValueError: n or successes out of range.

    >>> [round(end, 4) for end in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"found {successes} of {n}, but 0 to n of n > 0 were expected.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((share + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding alone passes the ends


@dataclass(frozen=True)
class Counts:
    """Right and wrong decisions: called positive of the positives, called negative of the negatives."""

    true_positives: int
    positives: int
    true_negatives: int
    negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are called so."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> float:
        """Share of the negatives that are called so."""
        return self.true_negatives / self.negatives

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.true_positives + other.true_positives,
            self.positives + other.positives,
            self.true_negatives + other.true_negatives,
            self.negatives + other.negatives,
        )


def count(called: Truth, truth: Truth) -> Counts:
    """Count decisions.

    >>> count(np.array([True, False, True]), np.array([True, True, False]))
    Counts(true_positives=1, positives=2, true_negatives=0, negatives=1)
    """
    return Counts(int((called & truth).sum()), int(truth.sum()), int((~called & ~truth).sum()), int((~truth).sum()))


def choose_threshold(scores: Scores, truth: Truth, rule: str, specificity: float = 0.9, miss_cost: float = 5) -> float:
    r"""Threshold t of the decision "score >= t is positive" by a rule, as a bundle's is chosen.

    ``youden`` and ``specificity`` as :func:`subclass_kd.calibration.threshold_for`; ``cost`` has the least
    miss_cost x misses + false alarms. Halfway between two scores; of equally good ones, the nearest to 0.5.

    Args:
        scores: (n,), from 0 to 1.
        truth: (n,), whether each is positive; both kinds are there.
        rule: one of the three.
        specificity: at least this, between 0 and 1.
        miss_cost: of a miss, in false alarms, above 0.

    Raises:
        ValueError: an unknown rule, or no positive or no negative.

    >>> choose_threshold(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True]), "cost")
    0.25
    """
    if rule not in ("youden", "specificity", "cost"):
        raise ValueError(f'found rule {rule!r}; expected "youden", "specificity" or "cost".')
    if truth.all() or not truth.any():
        raise ValueError(f"found {truth.sum()} positives of {len(truth)}; expected some of both kinds.")
    if rule != "cost":
        return threshold_for(rule if rule == "youden" else f"specificity={specificity}", scores, truth)[0]
    distinct = np.unique(scores)
    candidates = np.concatenate([[distinct[0] / 2], (distinct[1:] + distinct[:-1]) / 2, [(1 + distinct[-1]) / 2]])
    misses = np.searchsorted(np.sort(scores[truth]), candidates)
    alarms = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), candidates)
    costs = miss_cost * misses + alarms
    best = candidates[costs <= costs.min() * (1 + 1e-12)]
    return float(best[np.argmin(abs(best - 0.5))])


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float | None, float | None]:
    """Positive and negative predictive value at a prevalence, by Bayes; None where nobody is called so.

    >>> [round(value, 3) for value in predictive_values(0.9, 0.9, 0.1)]
    [0.5, 0.988]
    """
    called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    ppv = sensitivity * prevalence / called if called > 0 else None
    npv = specificity * (1 - prevalence) / (1 - called) if called < 1 else None
    return ppv, npv


def predictive_intervals(counts: Counts, prevalence: float) -> list[tuple[float, float] | None]:
    """95 % intervals of both predictive values at a prevalence, from Wilson's of sensitivity and specificity.

    Each of the two at the level sqrt(0.95), so that both hold in 95 % of samples; predictive values grow with both, so
    their ends are those at the ends of both. The level is at least 95 %: the interval is a wide one.

    >>> [[round(end, 3) for end in ends] for ends in predictive_intervals(Counts(90, 100, 90, 100), 0.1)]
    [[0.325, 0.675], [0.975, 0.994]]
    """
    level = math.sqrt(0.95)
    ends_of = (
        wilson(counts.true_positives, counts.positives, level),
        wilson(counts.true_negatives, counts.negatives, level),
    )
    low, high = (predictive_values(sens, spec, prevalence) for sens, spec in zip(*ends_of, strict=True))
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


def reliability(scores: Scores, truth: Truth, bins: int = 10) -> list[Bin]:
    """Sort probabilities into bins of equal width and hold each against what came true; empty bins are left out.

    >>> reliability(np.array([0.05, 0.95, 0.97]), np.array([False, True, False]))
    [Bin(predicted=0.05, observed=0.0, images=1), Bin(predicted=0.96, observed=0.5, images=2)]
    """
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return [
        Bin(float(scores[place == b].mean()), float(truth[place == b].mean()), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]
