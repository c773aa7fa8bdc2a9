"""Paired comparison of arms: is one better than another on new seeds **and** new test images?

Every arm is trained from the same S seeds and tested on the same N images, as radiologists (seeds) read the same cases
(images) with several techniques (arms). So the variance is radiology's own for multiple readers and multiple cases
(Obuchowski & Rockette 1995, https://doi.org/10.1080/03610919508813243). The interval around it is one that also holds
for few seeds and small p-values (Banerjee 1960). docs/statistics.md tells why, and how often the verdict errs.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from subclass_kd.jackknife import describe_variance, f1_left_out, variance_parts

REFERENCES = ("scratch", "kd")
HEADLINES = (("skd", "kd"), ("skd", "scratch"), ("kd", "scratch"))  # the questions of a study, most wanted first
SIGNIFICANCE = 0.05
SMALLEST_P = 1e-20  # reported for anything below it, where quantiles of Student's t are no longer computed reliably


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
        [low, high], ``p_value``, ``p_holm``, ``verdict``, ``seeds``, ``test_images``, ``test_groups`` (None without
        groups), ``variance`` (:func:`subclass_kd.jackknife.describe_variance`). Where no interval can be had ``ci95``,
        ``p_value`` and ``p_holm`` are ``None`` and ``reason`` says why; such a pair still counts in Holm's correction.

    Raises:
        ValueError: shapes disagree, or a pair names an arm that has no predictions.

    >>> labels = np.arange(100) % 2
    >>> wrong = lambda *images: np.where(np.isin(np.arange(100), images), 1 - labels, labels)
    >>> kd = np.stack([wrong(*range(30)), wrong(*range(31)), wrong(*range(29))])
    >>> skd = np.stack([wrong(*range(10)), wrong(*range(12)), wrong(*range(9))])
    >>> [result] = compare({"skd": skd, "kd": kd}, labels, positive=1, arm_pairs=[("skd", "kd")])
    >>> round(result["difference"], 3), [round(end, 3) for end in result["ci95"]], result["verdict"]
    (0.195, [0.112, 0.278], 'better')
    """
    predictions = {arm: np.asarray(predicted) for arm, predicted in predictions.items()}
    units = np.arange(len(class_labels)) if groups is None else np.asarray(groups)
    _check(predictions, class_labels, arm_pairs, units)
    f1 = {
        arm: f1_left_out(predictions[arm] == positive, class_labels == positive, units)  # (S, 1 + G)
        for arm in {arm for pair in arm_pairs for arm in pair}
    }
    differences = [f1[arm] - f1[reference] for arm, reference in arm_pairs]
    tests = [paired_difference(each[:, 0], each[:, 1:], few_units=groups is not None) for each in differences]
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
            "test_groups": None if groups is None else len(np.unique(units)),
            "variance": describe_variance(each[:, 0], each[:, 1:]),
        }
        for (arm, reference), each, test, p_holm in zip(arm_pairs, differences, tests, adjusted, strict=True)
    ]


def paired_difference(
    differences: NDArray[np.float64], left_out: NDArray[np.float64], few_units: bool = False
) -> dict[str, Any]:
    r"""Mean difference over seeds, with an interval and a test that hold for new seeds and new images.

    With :math:`\bar D` the mean of the S differences and a, b the two parts of its variance
    (:func:`subclass_kd.jackknife.variance_parts`),

    .. math:: \bar D \pm h(0.05), \quad h(p) = \sqrt{t_{1-p/2,\, S-1}^2 \, a + z_{1-p/2}^2 \, b}

    where t and z are quantiles of Student's t and of the normal, and the p-value solves :math:`h(p) = |\bar D|`. The
    part that few seeds tell about pays Student's price, the part that many images tell about pays the normal one.

    For normal differences and a known b the error is at most p at **every** level: with Z standard normal,
    :math:`w = \mathrm{E}[a] / (\mathrm{E}[a] + b)` and :math:`G(u) = P(Z^2 \le u)`, which is concave, coverage is
    :math:`\mathrm{E}\, G(w t^2 \chi^2_{S-1} / (S-1) + (1-w) z^2) \ge w (1-p) + (1-w) (1-p) = 1-p` (S. K. Banerjee 1960,
    Sankhyā 22, 357-358; on such bounds Ruben 2002, http://sankhya.isical.ac.in/search/64a1/8174fnl.html). The usual t
    test on :math:`\bar D / \sqrt{a + b}` with the degrees of freedom of Hillis 2007, https://doi.org/10.1002/sim.2532,
    has no such bound: with few seeds it errs too often, most of all at the small p that Holm's correction asks for.

    Units that are patients may be few, and then b is an estimate as a is: with ``few_units`` its quantile is Student's
    too, with G - 1 degrees of freedom, which is Banerjee's interval for two estimated variances.

    Args:
        differences: (S,) metric of the arm minus metric of the reference, seed by seed.
        left_out: (S, G) the same with unit g left out.
        few_units: units are groups of images, not single ones.

    Returns:
        ``difference``, ``ci95`` [low, high] and ``p_value`` (two-sided, never below 1e-20). The last two are ``None``,
        with a ``reason``, for one seed, for one unit, and where all differences are equal and no variance is found
        although the predictions differ. Identical predictions give [0, 0] and p = 1.

    >>> paired_difference(np.array([0.01, 0.02, 0.03]), np.array([[0.01, 0.01], [0.02, 0.02], [0.03, 0.03]]))
    {'difference': 0.02, 'ci95': [-0.0048..., 0.0448...], 'p_value': 0.0741...}
    """
    seeds, units = left_out.shape
    mean = float(differences.mean())
    result = {"difference": mean, "ci95": None, "p_value": None}
    if seeds < 2:
        return result | {"reason": "One seed cannot tell how far another would differ; run at least two."}
    if units < 2:
        return result | {"reason": "All test images belong to one group; test on at least two."}
    if not differences.any() and not left_out.any():
        return result | {"ci95": [0.0, 0.0], "p_value": 1.0}
    of_seeds, of_images = variance_parts(differences, left_out)
    if of_seeds + of_images == 0:
        return result | {
            "reason": "All seeds differ by the same amount, so no spread can be estimated; run more seeds."
        }

    def half_width(p: float) -> float:
        student = float(special.stdtrit(seeds - 1, p / 2))  # the lower tail: exact where 1 - p / 2 rounds to 1
        by_images = float(special.stdtrit(units - 1, p / 2) if few_units else special.ndtri(p / 2))
        return math.hypot(student * math.sqrt(of_seeds), by_images * math.sqrt(of_images))

    p_value = SMALLEST_P
    if half_width(SMALLEST_P) > abs(mean):
        # In log p, so that small p-values are as exact as large ones
        p_value = math.exp(
            optimize.brentq(lambda log_p: half_width(math.exp(log_p)) - abs(mean), math.log(SMALLEST_P), 0)
        )
    return result | {"ci95": [mean - half_width(0.05), mean + half_width(0.05)], "p_value": p_value}


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
