"""Paired comparison of arms: is one better than another on new seeds **and** new test images?

Every arm is trained from the same S seeds and tested on the same N images, as radiologists (seeds) who read the same
cases (images) with several techniques (arms). So the analysis is radiology's own for multiple readers and multiple
cases: Obuchowski & Rockette 1995, https://doi.org/10.1080/03610919508813243, with the degrees of freedom of
Hillis 2007, https://doi.org/10.1002/sim.2532. docs/statistics.md tells how often it errs.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

REFERENCES = ("scratch", "kd")
SIGNIFICANCE = 0.05


def pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The (arm, reference) pairs of a study: each arm against ``scratch`` and against ``kd``, where these are present.

    ``kd`` against ``scratch`` comes once, and no arm meets itself.

    >>> pairs(["scratch", "kd", "skd"])
    [('kd', 'scratch'), ('skd', 'scratch'), ('skd', 'kd')]
    """
    return [
        (arm, reference)
        for position, reference in enumerate(REFERENCES)
        for arm in arms
        if reference in arms and arm not in REFERENCES[: position + 1]
    ]


def compare(
    predictions: Mapping[str, NDArray[np.integer]],
    class_labels: NDArray[np.integer],
    positive: int,
    arm_pairs: Sequence[tuple[str, str]],
    groups: NDArray[Any] | None = None,
) -> list[dict[str, Any]]:
    """F1 of each arm minus that of its reference, with interval, p-values and a verdict.

    The statistics are those of :func:`paired_difference`. A verdict is "better" or "worse" only if the p-value is below
    0.05 after Holm's correction for all of ``arm_pairs``; everything else is "inconclusive". ``ci95`` is the interval
    of the pair alone, not widened for the number of pairs: it may exclude zero where the verdict is "inconclusive".

    Args:
        predictions: arm -> (S, N) predicted classes; row j of every arm comes from the same seed, column n from the
            same test image.
        class_labels: (N,) true classes.
        positive: the class whose F1 is compared, against the rest.
        arm_pairs: (arm, reference), all of them keys of ``predictions``; usually :func:`pairs`.
        groups: (N,) whom each image belongs to, when images of one patient are not independent; the patient is then
            what is sampled. ``None``: each image by itself.

    Returns:
        One dict for each pair, in order: ``arm``, ``reference``, ``metric`` ("f1"), ``difference`` in [-1, 1], ``ci95``
        [low, high], ``p_value``, ``p_holm``, ``verdict``, ``seeds``, ``test_images``. Where no interval can be had
        ``ci95``, ``p_value`` and ``p_holm`` are ``None`` and ``reason`` says why; such a pair still counts in Holm's
        correction.

    Raises:
        ValueError: shapes disagree, or a pair names an arm that has no predictions.

    >>> labels = np.arange(100) % 2
    >>> wrong = lambda *images: np.where(np.isin(np.arange(100), images), 1 - labels, labels)
    >>> kd = np.stack([wrong(*range(30)), wrong(*range(31)), wrong(*range(29))])
    >>> skd = np.stack([wrong(*range(10)), wrong(*range(12)), wrong(*range(9))])
    >>> [result] = compare({"skd": skd, "kd": kd}, labels, positive=1, arm_pairs=[("skd", "kd")])
    >>> round(result["difference"], 3), [round(end, 3) for end in result["ci95"]], result["verdict"]
    (0.195, [0.114, 0.276], 'better')
    """
    predictions = {arm: np.asarray(predicted) for arm, predicted in predictions.items()}
    units = np.arange(len(class_labels)) if groups is None else np.asarray(groups)
    _check(predictions, class_labels, arm_pairs, units)
    f1 = {
        arm: _f1(predictions[arm] == positive, class_labels == positive, units)  # (S, 1 + G)
        for arm in {arm for pair in arm_pairs for arm in pair}
    }
    differences = [f1[arm] - f1[reference] for arm, reference in arm_pairs]
    tests = [paired_difference(difference[:, 0], difference[:, 1:]) for difference in differences]
    # A pair without a p-value was a question too: p = 1 keeps it in the count
    adjusted = holm([1.0 if test["p_value"] is None else test["p_value"] for test in tests])
    return [
        {"arm": arm, "reference": reference, "metric": "f1"}
        | test
        | {
            "p_holm": None if test["p_value"] is None else p_holm,
            "verdict": _verdict(test["difference"], p_holm),
            "seeds": len(predictions[arm]),
            "test_images": len(class_labels),
        }
        for (arm, reference), test, p_holm in zip(arm_pairs, tests, adjusted, strict=True)
    ]


def paired_difference(differences: NDArray[np.float64], left_out: NDArray[np.float64]) -> dict[str, Any]:
    r"""Mean difference over seeds, with the interval and test that hold for new seeds and new images.

    With :math:`D_j` the difference of seed j, :math:`\bar D` and :math:`s_D^2` their mean and variance,

    .. math::

        V = \frac{s_D^2}{S} + \max(c, 0), \quad
        c = \frac{1}{S (S-1)} \sum_{j \ne k} \widehat{\mathrm{Cov}}(D_j, D_k), \quad
        \nu = \frac{V^2}{(s_D^2 / S)^2 / (S - 1)}

    :math:`\bar D / \sqrt V` is held against Student's t with :math:`\nu` degrees of freedom (the normal, if
    :math:`s_D = 0`). The covariances, of what the seeds share by being tested on the same images, are the jackknife's,
    leaving out one image (or patient) g of G at a time:

    .. math::

        \widehat{\mathrm{Cov}}(D_j, D_k) =
        \frac{G-1}{G} \sum_g (D_{j(g)} - \bar D_{j(\cdot)}) (D_{k(g)} - \bar D_{k(\cdot)})

    This is Obuchowski & Rockette's F test for two arms written as a t test. There, with t = 2 arms and r = S seeds,
    :math:`F = MS(T) / [MS(TR) + \max(r (Cov_2 - Cov_3), 0)]`, and here :math:`MS(T) = S \bar D^2 / 2`,
    :math:`MS(TR) = s_D^2 / 2` and :math:`c = 2 (Cov_2 - Cov_3)`, so that :math:`F = \bar D^2 / V` and
    :math:`\nu` is Hillis's :math:`[MS(TR) + \max(r (Cov_2 - Cov_3), 0)]^2 / \{MS(TR)^2 / [(t-1)(r-1)]\}`
    (Obuchowski & Rockette 1995, https://doi.org/10.1080/03610919508813243; Hillis 2007,
    https://doi.org/10.1002/sim.2532). Only the two arms compared enter; other arms' spread is not pooled.

    Args:
        differences: (S,) metric of the arm minus metric of the reference, seed by seed.
        left_out: (S, G) the same with unit g left out.

    Returns:
        ``difference``, ``ci95`` [low, high] and ``p_value`` (two-sided). Both are ``None``, with a ``reason``, for one
        seed, for one unit, and where the differences are all equal and no variance is found although the predictions
        differ. Identical predictions give [0, 0] and p = 1.

    >>> paired_difference(np.array([0.01, 0.02, 0.03]), np.array([[0.01, 0.01], [0.02, 0.02], [0.03, 0.03]]))
    {'difference': 0.02, 'ci95': [-0.0048..., 0.0448...], 'p_value': 0.0741...}
    """
    seeds, units = left_out.shape
    mean = float(differences.mean())
    result = {"difference": mean, "ci95": None, "p_value": None}
    if seeds < 2:
        return result | {"reason": "One seed cannot tell how far another seed would differ; run at least two."}
    if units < 2:
        return result | {"reason": "All test images belong to one group; test on at least two."}
    if not differences.any() and not left_out.any():
        return result | {"ci95": [0.0, 0.0], "p_value": 1.0}

    seed_variance = float(differences.var(ddof=1)) / seeds
    if seed_variance < 1e-24:  # what rounding leaves of equal differences
        seed_variance = 0.0
    variance = seed_variance + max(_shared_covariance(left_out), 0.0)
    if variance == 0:
        return result | {
            "reason": "All seeds differ by the same amount, so no spread can be estimated; run more seeds."
        }
    freedom = variance**2 / (seed_variance**2 / (seeds - 1)) if seed_variance else math.inf
    error = math.sqrt(variance)
    half_width = float(stats.t.ppf(0.975, freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return result | {"ci95": [mean - half_width, mean + half_width], "p_value": p_value}


def holm(p_values: Sequence[float]) -> list[float]:
    r"""P-values corrected for their number, so that the chance of any false claim among them stays below the level.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) \, p_{(j)}), \quad p_{(1)} \le \dots \le p_{(m)}

    Holds however the m tests depend on each other (Holm 1979, https://www.jstor.org/stable/4615733).

    Args:
        p_values: m values in [0, 1], any order.

    Returns:
        m values in [0, 1], same order, none smaller than it was.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)  # (m,)
    factors = np.arange(len(order), 0, -1)  # (m,): m, m - 1, ..., 1
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.minimum(factors * np.asarray(p_values)[order], 1.0))
    return [float(value) for value in adjusted]


def _f1(predicted: NDArray[np.bool_], actual: NDArray[np.bool_], units: NDArray[Any]) -> NDArray[np.float64]:
    """F1 for each seed, (S, 1 + G): of all images in column 0, then with each of the G units left out.

    F1 needs three counts only, so leaving a unit out subtracts its counts: no loop over images.
    """
    order = np.argsort(units, kind="stable")
    starts = np.unique(units[order], return_index=True)[1]  # (G,) where each unit begins
    outcomes = np.stack([predicted & actual, predicted & ~actual, ~predicted & actual]).astype(int)  # (3, S, N)
    counts = np.add.reduceat(outcomes[:, :, order], starts, axis=2)  # (3, S, G)
    whole = counts.sum(axis=2, keepdims=True)  # (3, S, 1)
    true_positives, false_positives, false_negatives = np.concatenate([whole, whole - counts], axis=2)
    size = 2 * true_positives + false_positives + false_negatives  # (S, 1 + G)
    f1: NDArray[np.float64] = 2 * true_positives / np.maximum(size, 1)  # 0 where nothing is positive or called so
    return f1


def _shared_covariance(left_out: NDArray[np.float64]) -> float:
    """Mean jackknife covariance between the differences of two seeds, from (S, G) leave-one-out differences."""
    seeds, units = left_out.shape
    deviations = left_out - left_out.mean(axis=1, keepdims=True)  # (S, G)
    # The sum over pairs j != k is the square of the sum less the sum of the squares: no (S, S) matrix
    products = np.square(deviations.sum(axis=0)) - np.square(deviations).sum(axis=0)  # (G,)
    return float(products.sum() * (units - 1) / units) / (seeds * (seeds - 1))


def _verdict(difference: float, p_holm: float) -> str:
    if p_holm >= SIGNIFICANCE:
        return "inconclusive"
    return "better" if difference > 0 else "worse"


def _check(
    predictions: Mapping[str, NDArray[np.integer]],
    class_labels: NDArray[np.integer],
    arm_pairs: Sequence[tuple[str, str]],
    units: NDArray[Any],
) -> None:
    """Refuse predictions, labels, pairs and groups that do not belong together."""
    missing = sorted({arm for pair in arm_pairs for arm in pair} - set(predictions))
    if missing:
        raise ValueError(f"arm_pairs: found {', '.join(missing)}, expected arms among {', '.join(predictions)}.")
    shapes = {arm: predicted.shape for arm, predicted in predictions.items()}
    for (first, shape), (second, other) in pairwise(shapes.items()):
        if shape != other:
            raise ValueError(f"predictions: found {first} {shape} but {second} {other}, expected the same (S, N).")
    for name, array in (("class_labels", class_labels), ("groups", units)):
        for arm, shape in shapes.items():
            if len(shape) != 2 or 0 in shape or array.shape != shape[1:]:
                raise ValueError(
                    f"{name}: found {array.shape} beside predictions {arm} {shape}, expected (N,) and (S, N)."
                )
