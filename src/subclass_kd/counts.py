"""Decisions counted, and shares of them with intervals: over images, or over patients where several are of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.jackknife import auroc_left_out, f1_left_out, left_out_variance

Interval = tuple[float, float]


@dataclass(frozen=True)
class Counts:
    """A binary decision against the truth, in images."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, positive: NDArray[np.bool_], called: NDArray[np.bool_]) -> Counts:
        """Count, from the truth (N,) and the decisions (N,).

        >>> Counts.of(np.array([True, True, False]), np.array([True, False, False]))
        Counts(tp=1, fp=0, fn=1, tn=1)
        """
        pairs = ((positive, called), (~positive, called), (positive, ~called), (~positive, ~called))
        return cls(*(int((truth & decision).sum()) for truth, decision in pairs))

    @property
    def positives(self) -> int:
        """How many are positive."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """How many are not."""
        return self.fp + self.tn

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are called so."""
        return self.tp / self.positives

    @property
    def specificity(self) -> float:
        """Share of the negatives that are not called positive."""
        return self.tn / self.negatives

    @property
    def f1(self) -> float | None:
        """2 tp / (2 tp + fp + fn); None where there is neither a positive nor a call."""
        of = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / of if of else None


def wilson(successes: float, n: float, level: float = 0.95, units: int | None = None) -> Interval:
    r"""Wilson's score interval of a share.

    .. math:: \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    E. B. Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    Args:
        successes: from 0 to n; a mean over seeds need not be whole.
        n: how many, above 0.
        level: of confidence, between 0 and 1.
        units: z is the quantile of Student's t with units - 1 degrees of freedom, of the normal if not given.

    Returns:
        Both ends, from 0 to 1.

    Raises:
        ValueError: n or successes out of range.

    >>> [round(end, 4) for end in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"found {successes} of {n}, but 0 to n of n > 0 were expected.")
    z = NormalDist().inv_cdf((1 + level) / 2) if units is None else _student((1 + level) / 2, units - 1)
    share = successes / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((share + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding alone passes the ends


def share_interval(
    right: NDArray[Any], groups: NDArray[Any] | None = None, level: float = 0.95, answers: int = 1
) -> Interval | None:
    r"""Interval of the share of images that are right: Wilson's, or for patients that are sampled, not images.

    With groups, leaving out one of the G groups after the other gives the share's variance v (the jackknife, as for
    the comparison of arms); the interval is Wilson's of as many independent images as have that variance,
    :math:`n = \hat p (1 - \hat p) / v`, but no more than there are, with Student's t of G - 1 degrees of freedom. That
    is Korn & Graubard's effective sample size (1998, Survey Methodology 24, 193-201) in Wilson's interval. Where all
    are right or none, nothing varies and each group counts as one.

    Args:
        right: (N,) whether each image is right; a mean over seeds need not be whole.
        groups: (N,) whom each image belongs to; None for independent images.
        level: of confidence.
        answers: how many of the N are of one image.

    Returns:
        Both ends, from 0 to 1; None without an image, or with one group.

    >>> [round(end, 3) for end in share_interval(np.array([1] * 9 + [0]))]
    [0.596, 0.982]
    >>> [round(end, 3) for end in share_interval(np.array([1] * 9 + [0]), groups=np.arange(10) // 2)]
    [0.441, 0.99]
    """
    if len(right) == 0:
        return None
    most = len(right) / answers
    value = float(right.mean())
    if groups is None:
        return wilson(value * most, most, level)
    number = np.unique(groups, return_inverse=True)[1]
    sizes, sums = np.bincount(number), np.bincount(number, weights=right)
    if len(sizes) < 2:
        return None
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    return _grouped(value, left_out, level, most)


def share(right: NDArray[Any], groups: NDArray[Any] | None = None) -> dict[str, Any]:
    """Give a share of images that are right as ``value``, ``ci95`` of :func:`share_interval` or None, and ``of``.

    >>> share(np.arange(10) < 8)["ci95"]
    [0.49016..., 0.94331...]
    """
    ends = share_interval(right, groups)
    value = float(right.mean()) if len(right) else None
    return {"value": value, "ci95": None if ends is None else list(ends), "of": len(right)}


def f1_interval(right: float, matter: float, level: float = 0.95) -> Interval:
    r"""Interval of F1 over images, each taken by itself.

    Of the m = tp + fp + fn images that are positive or called so, tp is binomial, given m, so that J = tp / m has
    Wilson's interval; :math:`F_1 = 2 J / (1 + J)` grows with J.

    Args:
        right: tp, from 0 to m; need not be whole.
        matter: m, above 0.
        level: of confidence, between 0 and 1.

    Returns:
        Both ends, from 0 to 1.

    Raises:
        ValueError: as :func:`wilson`.

    >>> [round(end, 3) for end in f1_interval(4, 5)]
    [0.546, 0.982]
    """
    low, high = wilson(right, matter, level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def f1_share(
    positive: NDArray[np.bool_], called: NDArray[np.bool_], groups: NDArray[Any] | None = None
) -> dict[str, Any]:
    r"""F1 as ``value``, ``ci95`` and ``of``, the number of images; no value without a positive or a call.

    Without groups the interval is that of :func:`f1_interval`; with groups that of :func:`share_interval`, of the
    groups that have a positive or a call.

    >>> found = f1_share(np.arange(10) < 5, np.arange(10) < 4)
    >>> round(found["value"], 3), [round(end, 3) for end in found["ci95"]]
    (0.889, [0.546, 0.982])
    """
    counts = Counts.of(positive, called)
    value, row = counts.f1, {"value": counts.f1, "ci95": None, "of": len(positive)}
    if value is None:
        return row
    if groups is None:
        return row | {"ci95": list(f1_interval(counts.tp, counts.tp + counts.fp + counts.fn))}
    matter = positive | called
    units = groups[matter]
    if len(np.unique(units)) < 2:
        return row
    left_out = f1_left_out(called[None, matter], positive[matter], units)[0, 1:]
    return row | {"ci95": list(_grouped(value, left_out, 0.95, math.inf))}


def auroc_interval(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    groups: NDArray[Any] | None = None,
    folds: NDArray[Any] | None = None,
) -> Interval | None:
    r"""95 % interval of an AUROC, for other images, or other patients where several images are of one.

    .. math:: \mathrm{logit}^{-1} \left( \mathrm{logit} A \pm t \frac{\sqrt v}{A (1 - A)} \right)

    with v the jackknife's variance over images or groups, and Student's t of one degree of freedom less than there are
    images, or groups, of the rarer kind (the logit: Pepe 2003, The Statistical Evaluation of Medical Tests, section
    5.2.4). Where all pairs are in order nothing varies: Wilson's interval, each of the rarer kind counting as one.

    Args:
        scores: (N,) higher where the positive class is more likely; (N, C) for the mean of C areas against the rest.
        positive: (N,) or (N, C) whether it is the true one.
        groups: (N,) whom each image belongs to; None for independent images.
        folds: (N,) which network was asked, if several were: the area is the mean of theirs.

    Returns:
        Both ends, from 0 to 1; None where one kind would be gone without one of the images or groups.

    >>> scores = np.concatenate([np.arange(50), np.arange(30, 80)])
    >>> [round(end, 2) for end in auroc_interval(scores, np.arange(100) >= 50)]  # 0.92
    [0.85, 0.96]
    """
    columns, truths = scores.reshape(len(scores), -1).T, positive.reshape(len(positive), -1).T  # (C, N) each
    units = np.unique(np.arange(len(scores)) if groups is None else groups, return_inverse=True)[1]
    asked = np.zeros(len(scores), dtype=np.int64) if folds is None else folds
    for fold in np.unique(asked):
        for kind in (*truths, *~truths):
            if len(np.unique(units[kind & (asked == fold)])) < 2:
                return None
    each = [auroc_left_out(own[None], truth, units, asked)[0] for own, truth in zip(columns, truths, strict=True)]
    areas = np.mean(each, axis=0)  # (1 + G,)
    rarer = min(len(np.unique(units[kind])) for kind in (*truths, *~truths))
    area, variance = float(areas[0]), left_out_variance(areas[1:])
    if variance < 1e-24 or not 0 < area < 1:
        return wilson(area * rarer, rarer, units=rarer)
    half = _student(0.975, rarer - 1) * math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(math.log(1 / area - 1) - side * half)) for side in (-1, 1))
    return low, high


def mean_interval(values: NDArray[np.floating], groups: NDArray[Any] | None = None) -> Interval | None:
    """95 % interval of a mean over images of what is not below 0: Student's t, over groups by the jackknife.

    Args:
        values: (N,), none below 0.
        groups: (N,) whom each image belongs to; None for independent images.

    Returns:
        Both ends, in units of the values; None with one image or one group.

    >>> [round(end, 2) for end in mean_interval(np.array([0.1, 0.2, 0.3, 0.4]))]
    [0.04, 0.46]
    """
    number = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)[1]
    sizes, sums = np.bincount(number), np.bincount(number, weights=values)
    if len(sizes) < 2:
        return None
    variance = left_out_variance((sums.sum() - sums) / (sizes.sum() - sizes))
    half = _student(0.975, len(sizes) - 1) * math.sqrt(variance)
    return max(0.0, float(values.mean()) - half), float(values.mean()) + half


def _grouped(value: float, left_out: NDArray[np.float64], level: float, most: float) -> Interval:
    """Give the interval of a value in [0, 1] of which one group after the other was left out (G,), G >= 2."""
    variance, units = left_out_variance(left_out), len(left_out)
    effective = float(units) if variance < 1e-24 else value * (1 - value) / variance
    effective = min(effective, most)
    return wilson(value * effective, effective, level, units)


def _student(probability: float, degrees: int) -> float:
    from scipy import special  # late: predictions need no intervals

    return float(special.stdtrit(degrees, probability))
