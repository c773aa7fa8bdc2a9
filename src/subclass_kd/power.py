"""How many seeds and test images a verdict needs, from what a finished study says of its own spread.

The interval is Banerjee's (:func:`subclass_kd.comparison.paired_difference`); its variance in a larger study is that of
Hillis, Obuchowski, Berbaum 2011, https://pmc.ncbi.nlm.nih.gov/articles/PMC3053069. docs/statistics.md tells what is
assumed, and how often a prediction came true.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from subclass_kd.comparison import HEADLINES, SIGNIFICANCE
from subclass_kd.config import MOST_SEEDS

POWER = 0.8
DIFFERENCES = (0.01, 0.015, 0.02)  # of F1: half of, about, and a little more than what the papers report
MOST_TIMES = 1000  # as many test images as at present; what needs more is called "never"
Count = int | Literal["never"]


def chance(
    difference: float, of_seeds: float, of_images: float, seeds: int, level: float, units: int | None = None
) -> float:
    r"""The power: the chance that an arm that is truly better by so much reads "better".

    The mean difference :math:`\bar D` is normal with variance A + B. The part of the seeds is estimated from S of them,
    as a, independently of the mean; that of the images is taken as known. So

    .. math:: P(\bar D > h) = \mathrm{E}_a \, \Phi\left(\frac{\Delta - h(a)}{\sqrt{A + B}}\right), \quad
        h(a) = \sqrt{t_{1-p/2,\, S-1}^2 \, a + z_{1-p/2}^2 \, B}, \quad a \sim A \, \chi^2_{S-1} / (S-1)

    with p the level, integrated over the chi distribution by Gauss and Legendre's rule. Without B it is the power of
    the t test, without A that of the normal one.

    Args:
        difference: the true one, >= 0.
        of_seeds: A, the expected part of the seeds in the variance of the mean over seeds, >= 0.
        of_images: B, that of the images, >= 0.
        seeds: S, >= 2.
        level: p, two-sided, in (0, 1); with Holm's correction that of its first step, 0.05 / number of comparisons.
        units: patients, where these are few: the images then pay Student's price too.

    Returns:
        0 to 1.

    >>> round(chance(0.02, of_seeds=0.0042**2, of_images=0.0035**2, seeds=10, level=0.05 / 9), 2)
    0.64
    """
    if of_seeds + of_images == 0:
        return float(difference > 0)
    root, weight = _chi(seeds - 1)  # (Q,) each
    student = special.stdtrit(seeds - 1, level / 2)
    by_images = special.ndtri(level / 2) if units is None else special.stdtrit(units - 1, level / 2)
    estimated = of_seeds * root**2 / (seeds - 1)  # (Q,) values of a
    half_width = np.sqrt(student**2 * estimated + by_images**2 * of_images)  # (Q,)
    found = special.ndtr((difference - half_width) / math.sqrt(of_seeds + of_images))  # (Q,)
    return float((weight * found).sum())


@dataclass(frozen=True)
class Spread:
    """What the variance of one pair's mean difference is made of, and in how large a study that was found.

    Args:
        seeds, images: S and N of the study.
        units: patients that the N images come from; None where each stands for itself.
        level: at which the pair must be told apart.
        of_seed: variance between seeds that more test images leave, for one seed.
        of_seed_images: variance of one seed from the images by itself, with N images.
        of_images: variance that all seeds share, with N images.
    """

    seeds: int
    images: int
    units: int | None
    level: float
    of_seed: float
    of_seed_images: float
    of_images: float

    def chance(self, difference: float, seeds: int, images: float) -> float:
        """Give the power in a study of another size; ``images`` may be infinite."""
        shrinks = self.images / images
        units = None if self.units is None else round(max(2.0, min(self.units * images / self.images, 1e9)))
        of_seeds = (self.of_seed + self.of_seed_images * shrinks) / seeds
        return chance(difference, of_seeds, self.of_images * shrinks, seeds, self.level, units)

    def detectable(self, power: float = POWER) -> float | None:
        """Give the smallest difference that such a study sees with this power; None where even 1 is too small."""

        def excess(difference: float) -> float:
            return self.chance(difference, self.seeds, self.images) - power

        return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-7)) if excess(1.0) > 0 else None

    def seeds_needed(self, difference: float, power: float = POWER) -> Count:
        """Give the fewest seeds at the present images, or "never" where the images alone hide the difference."""
        return _smallest(lambda seeds: self.chance(difference, seeds, self.images) >= power, 2, MOST_SEEDS)

    def images_needed(self, difference: float, seeds: int, power: float = POWER) -> Count:
        """Give the fewest test images, no fewer than at present, or "never" where so many seeds hide the difference.

        What so few seeds say of the images is too little to do with fewer of them.
        """
        if self.chance(difference, seeds, math.inf) < power:
            return "never"
        return _smallest(
            lambda images: self.chance(difference, seeds, images) >= power, self.images, MOST_TIMES * self.images
        )

    def plan(self, difference: float, power: float = POWER) -> tuple[int, int] | None:
        """Give seeds and images, no fewer than at present, that do and whose product is the smallest.

        At the smallest product seeds and images hide the difference about equally, so that neither is wasted.
        """
        least = self.images_needed(difference, MOST_SEEDS, power)
        if least == "never":
            return None
        best: tuple[int, int] | None = None
        for seeds in range(max(2, self.seeds), MOST_SEEDS + 1):
            if best and seeds * least >= best[0] * best[1]:
                break
            images = self.images_needed(difference, seeds, power)
            if images != "never" and (best is None or seeds * images < best[0] * best[1]):
                best = seeds, images
        return best


def needed(
    comparisons: Sequence[Mapping[str, Any]], differences: Sequence[float] = DIFFERENCES, power: float = POWER
) -> list[dict[str, Any]]:
    r"""What results.json says of power: for a study's first two questions, what was to be seen, what it would take.

    Args:
        comparisons: the study's, as of :func:`subclass_kd.comparison.compare`; all of them count in the correction.
        differences: of F1, for which to plan.
        power: wanted.

    Returns:
        A dict for ``skd`` against ``kd`` and against ``scratch`` (``kd`` against ``scratch`` where one is absent):
        ``arm``, ``reference``, ``power``, ``level`` (Holm's first step), ``seeds``, ``test_images``, ``test_groups``,
        ``detectable`` (the smallest difference that the study sees with this power; None if there is none),
        ``detectable_ci95`` [low, high] (high None if none), and ``needed``: for each difference ``seeds`` at the
        present images and ``test_images`` at the present seeds, no fewer than there are, "never" where these alone do
        not do, each with its ``_ci95``, and a ``plan`` of both, or None. Without a variance ``needed`` is empty and
        ``reason`` says why.

    The intervals tell how well S seeds know the spread over seeds: it is replaced by the ends of its 95 % interval,
    :math:`A (S-1) / \chi^2_{S-1}` (normal differences); that of the images is taken as known.

    >>> variance = {"seeds": 4e-5, "images": 1e-5, "seed_images": 2e-5}
    >>> row = {"arm": "skd", "reference": "kd", "seeds": 5, "test_images": 1000, "test_groups": None}
    >>> [found] = needed([row | {"variance": variance}])
    >>> round(found["detectable"], 3), found["needed"][1]["seeds"], found["needed"][1]["plan"]
    (0.025, 13, {'seeds': 12, 'test_images': 1071})
    """
    rows = {(row["arm"], row["reference"]): row for row in comparisons}
    chosen = [rows[pair] for pair in HEADLINES if pair in rows][:2]
    return [_of_pair(row, SIGNIFICANCE / len(comparisons), differences, power) for row in chosen]


def spread_of(row: Mapping[str, Any], level: float, times: float = 1.0) -> Spread | None:
    """Read the spread from a row of results.json's comparisons; None where it has no variance, or none was found.

    Few seeds may agree more than their images allow: a below w. The part of the seeds is then w, which comes from
    many images and is known better.

    Args:
        row: of a pair.
        level: at which the pair must be told apart.
        times: what the part of the seeds is multiplied by, for the ends of its interval.
    """
    variance, seeds = row.get("variance"), row["seeds"]
    if variance is None or variance["seeds"] + variance["images"] == 0:
        return None
    total = times * max(variance["seeds"], variance["seed_images"])
    by_images = min(variance["seed_images"], total)
    return Spread(
        seeds=seeds,
        images=row["test_images"],
        units=row["test_groups"],
        level=level,
        of_seed=seeds * (total - by_images),
        of_seed_images=seeds * by_images,
        of_images=variance["images"],
    )


def _of_pair(row: Mapping[str, Any], level: float, differences: Sequence[float], power: float) -> dict[str, Any]:
    names = ("arm", "reference", "seeds", "test_images", "test_groups")
    result: dict[str, Any] = {name: row[name] for name in names} | {"power": power, "level": level}
    spread = spread_of(row, level)
    if spread is None:
        reason = row.get("reason", "No spread was found to plan from.")
        return result | {"detectable": None, "detectable_ci95": None, "needed": [], "reason": reason}
    # From the least spread over seeds that fits what was seen to the largest
    ends = [(row["seeds"] - 1) / special.chdtri(row["seeds"] - 1, tail) for tail in (0.025, 0.975)]
    limits = [limit for end in ends if (limit := spread_of(row, level, end))]
    return result | {
        "detectable": spread.detectable(power),
        "detectable_ci95": [limit.detectable(power) for limit in limits],
        "needed": [
            {
                "difference": difference,
                "seeds": spread.seeds_needed(difference, power),
                "seeds_ci95": [limit.seeds_needed(difference, power) for limit in limits],
                "test_images": spread.images_needed(difference, spread.seeds, power),
                "test_images_ci95": [limit.images_needed(difference, spread.seeds, power) for limit in limits],
                "plan": _named(spread.plan(difference, power)),
            }
            for difference in differences
        ],
    }


def _named(plan: tuple[int, int] | None) -> dict[str, int] | None:
    return None if plan is None else {"seeds": plan[0], "test_images": plan[1]}


def _smallest(does: Callable[[int], bool], low: int, high: int) -> Count:
    """Give the smallest number from low to high that does, by halving: what does, does when there is more of it."""
    if not does(high):
        return "never"
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle + 1, high)
    return low


@functools.lru_cache(maxsize=256)
def _chi(freedom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (Q,) of the square root of chi-square, and their weights (Q,), which sum to 1."""
    nodes, weights = _legendre()
    low, high = max(0.0, math.sqrt(freedom) - 9), math.sqrt(freedom) + 9  # its standard deviation is about 0.7
    root = low + (high - low) * (nodes + 1) / 2  # (Q,)
    log_density = (
        (freedom - 1) * np.log(root) - root**2 / 2 - (freedom / 2 - 1) * math.log(2) - special.gammaln(freedom / 2)
    )
    return root, weights * (high - low) / 2 * np.exp(log_density)


@functools.cache
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights
