"""How often the verdict claims a difference between equal arms, and how often it finds a true one.

Studies are simulated, not trained: each prediction is the sign of a score that sums crossed normal effects of image,
arm x image, seed x image, arm x seed x image, seed and arm x seed. Whole studies of six arms and nine comparisons go
through ``subclass_kd.comparison``. Run as ``python -m benchmarks.false_positives [--json FILE] [--studies N]``.
"""

import argparse
import functools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from subclass_kd.comparison import SIGNIFICANCE, compare, f1_left_out, holm, pairs, variance_parts

ARMS = ("scratch", "subclass-labels", "kd", "kd-collapsed", "skd", "skd-shuffled")
PREVALENCE = 0.37  # MHIST's test split
F1 = 0.85
# Variances of the score around its mean, together 1: two seeds of one arm then disagree on about 11 % of the images
IMAGE, ARM_IMAGE, SEED_IMAGE, ARM_SEED_IMAGE = 0.70, 0.05, 0.10, 0.15
# Standard deviations, in the same unit, of a run's skill and of its threshold: F1 varies by about 1 point over seeds
SKILL, ARM_SKILL = 0.03, 0.03
THRESHOLD, ARM_THRESHOLD = 0.10, 0.10


def simulate(
    random: np.random.Generator, seeds: int, images: int, gain: float = 0.0, arm_image: float = ARM_IMAGE
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Predictions, arm -> (seeds, images), and labels (images,) of one study in which skd's F1 is higher by ``gain``.

    All other arms are equal in the population of seeds and images, and so is ``skd`` if ``gain`` is 0. ``arm_image`` is
    the variance of what an arm does better on some images and worse on others, in all its seeds alike.
    """

    def normal(variance: float, *shape: int) -> NDArray[np.float64]:
        return math.sqrt(variance) * random.standard_normal(shape)

    arms = len(ARMS)
    labels = (random.random(images) < PREVALENCE).astype(int)  # (N,)
    side = 2 * labels - 1  # (N,): -1 or +1
    skill = np.array([_skill(F1 + gain if arm == "skd" else F1) for arm in ARMS])[:, None]  # (A, 1)
    skill = skill + normal(SKILL**2, seeds) + normal(ARM_SKILL**2, arms, seeds)  # (A, S)
    threshold = normal(THRESHOLD**2, seeds) + normal(ARM_THRESHOLD**2, arms, seeds)  # (A, S)
    score = (
        side * skill[:, :, None]
        - threshold[:, :, None]
        + normal(IMAGE + ARM_IMAGE - arm_image, images)
        + normal(arm_image, arms, 1, images)
        + normal(SEED_IMAGE, seeds, images)
        + normal(ARM_SEED_IMAGE, arms, seeds, images)
    )  # (A, S, N)
    return dict(zip(ARMS, (score > 0).astype(int), strict=True)), labels


def rates(studies: int, seeds: int, images: int, gain: float = 0.0, arm_image: float = ARM_IMAGE) -> dict[str, Any]:
    """Shares of simulated studies, each with its 95 % binomial (Clopper-Pearson) interval.

    ``p``: p < 0.05 for skd against kd. ``better``: that verdict is "better". ``any_claim``: any of the nine verdicts is
    not "inconclusive". ``hillis_p`` and ``hillis_any_claim``: the same two if the p-values were those of the t test
    with Hillis's degrees of freedom. ``seeds_p``: ``p`` of the paired t test over seeds, which takes the test images
    for the whole world.
    """
    random = np.random.default_rng([studies, seeds, images, round(1000 * gain), round(1000 * arm_image)])
    names = ("p", "better", "any_claim", "hillis_p", "hillis_any_claim", "seeds_p")
    found: dict[str, list[bool]] = {name: [] for name in names}
    scores = []  # (S, 2) of each study: F1 of skd and of kd
    for _ in range(studies):
        predictions, labels = simulate(random, seeds, images, gain, arm_image)
        results = compare(predictions, labels, positive=1, arm_pairs=pairs(ARMS))
        f1 = {arm: f1_left_out(row == 1, labels == 1, np.arange(images)) for arm, row in predictions.items()}
        differences = [f1[arm] - f1[reference] for arm, reference in pairs(ARMS)]
        hillis = [_hillis(difference[:, 0], difference[:, 1:]) for difference in differences]
        pair = pairs(ARMS).index(("skd", "kd"))
        seeds_only = _p_value(differences[pair][:, 0], 0.0, seeds - 1)
        for name, hit in zip(
            names,
            (
                results[pair]["p_value"] is not None and results[pair]["p_value"] < SIGNIFICANCE,
                results[pair]["verdict"] == "better",
                any(result["verdict"] != "inconclusive" for result in results),
                hillis[pair] < SIGNIFICANCE,
                min(holm(hillis)) < SIGNIFICANCE,
                seeds_only < SIGNIFICANCE,
            ),
            strict=True,
        ):
            found[name].append(hit)
        scores.append(np.stack([f1["skd"][:, 0], f1["kd"][:, 0]], axis=1))
    differences_of_seeds = np.diff(scores, axis=2)[:, :, 0]  # (studies, S), kd - skd
    return {
        "studies": studies,
        "seeds": seeds,
        "images": images,
        "gain": gain,
        "arm_image": arm_image,
        "f1_kd": float(np.mean(scores, axis=(0, 1))[1]),
        "difference": float(-differences_of_seeds.mean()),
        "difference_std_over_seeds": float(np.sqrt(differences_of_seeds.var(axis=1, ddof=1).mean())),
    } | {name: _rate(hits) for name, hits in found.items()}


def _hillis(differences: NDArray[np.float64], left_out: NDArray[np.float64]) -> float:
    """P-value of Obuchowski & Rockette's test with Hillis's (2007) degrees of freedom."""
    of_seeds, of_images = variance_parts(differences, left_out)
    spread = of_seeds**2 / (len(differences) - 1)
    return _p_value(differences, of_images, (of_seeds + of_images) ** 2 / spread if spread else math.inf)


def _p_value(differences: NDArray[np.float64], of_images: float, freedom: float) -> float:
    """Two-sided p-value of Student's t for the mean difference; 1 where there is no variance."""
    variance = differences.var(ddof=1) / len(differences) + of_images
    return float(2 * special.stdtr(freedom, -abs(differences.mean()) / math.sqrt(variance))) if variance else 1.0


@functools.cache
def _skill(f1: float) -> float:
    """Distance of each class's mean score from the threshold, in standard deviations, that gives this F1."""

    def excess(skill: float) -> float:
        hit, miss = stats.norm.cdf(skill), stats.norm.cdf(-skill)
        return float(2 * PREVALENCE * hit / (PREVALENCE * (hit + 1) + (1 - PREVALENCE) * miss) - f1)

    return float(optimize.brentq(excess, 0, 5))


def _rate(hits: list[bool]) -> dict[str, Any]:
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(0.95)
    return {"rate": sum(hits) / len(hits), "ci95": [float(interval.low), float(interval.high)]}


def _percent(rate: dict[str, Any]) -> str:
    return f"{100 * rate['rate']:.1f} ({100 * rate['ci95'][0]:.1f}-{100 * rate['ci95'][1]:.1f})"


def main() -> None:
    """Print the tables; write their rows as JSON too, if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies for each row")
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = []
    errors = ("p", "any_claim", "hillis_p", "hillis_any_claim", "seeds_p")
    for title, gain, arm_image, names in (
        ("Equal arms", 0.0, ARM_IMAGE, errors),
        ("Equal arms, image by image too", 0.0, 0.0, errors),
        ("Equal arms, but very unlike image by image", 0.0, 0.2, errors),
        ("skd better by 1 F1 point", 0.01, ARM_IMAGE, ("p", "better")),
        ("skd better by 2 F1 points", 0.02, ARM_IMAGE, ("p", "better")),
    ):
        print(f"\n{title}: {arguments.studies} studies a row, rates in % (95 % binomial interval)\n")
        print(f"| seeds | images | sd of skd - kd, points | {' | '.join(names)} |")
        print("|---" * (3 + len(names)) + "|")
        for seeds, images in [(seeds, images) for seeds in (2, 3, 5, 10) for images in (300, 1000, 4000)]:
            row = rates(arguments.studies, seeds, images, gain, arm_image)
            rows.append(row)
            spread = f"{100 * row['difference_std_over_seeds']:.1f}"
            print(
                f"| {seeds} | {images} | {spread} | {' | '.join(_percent(row[name]) for name in names)} |", flush=True
            )
    print(f"\n{time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
