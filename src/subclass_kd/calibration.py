"""What is fitted on validation images for a student in use: temperature and decision threshold. It needs no torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from subclass_kd.errors import UserError

RULES = (
    "youden, f1, specificity=S or sensitivity=S with S between 0 and 1, cost=C with C above 0, "
    "or a threshold between 0 and 1"
)
TEMPERATURES = (0.05, 20.0)  # beyond these, validation images are too few or all right


def calibrated(class_log_probs: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    r"""Divide class log-probabilities by a temperature and normalise them again.

    .. math:: q_c = p_c^{1/T} / \sum_j p_j^{1/T}

    The order of the classes stays, and with two classes the order of the images: decisions by the highest probability
    and AUROC do not change.

    Args:
        class_log_probs: (N, C), in nats.
        temperature: T > 0; above 1 the answers become less sure.

    Returns:
        (N, C) probabilities.

    >>> calibrated(np.log([[0.8, 0.2]]), temperature=2.0).round(4)
    array([[0.6667, 0.3333]])
    """
    scaled = class_log_probs.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probs


def log_loss(class_log_probs: NDArray[np.floating], class_labels: NDArray[np.integer], temperature: float) -> float:
    r"""Mean negative log-probability of the true class, in nats, at a temperature.

    .. math:: \frac{1}{N} \sum_n -\log q_{n, y_n}

    >>> round(log_loss(np.log([[0.8, 0.2]]), np.array([0]), temperature=1.0), 4)
    0.2231
    """
    scaled = class_log_probs.astype(np.float64) / temperature
    highest = scaled.max(axis=1)
    normaliser = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    return float((normaliser - scaled[np.arange(len(scaled)), class_labels]).mean())


def fit_temperature(class_log_probs: NDArray[np.floating], class_labels: NDArray[np.integer]) -> float:
    r"""Find the temperature of the least log loss (Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599).

    The log loss is convex in 1/T, so that the one minimum is found, or the bound that is nearest to it. At the lower
    bound images are too few, or all right, to say how sure an answer may be: 1 is given, which changes nothing.

    Args:
        class_log_probs: (N, C) of validation images, N >= 1.
        class_labels: (N,) integers from 0 to C-1.

    Returns:
        1, or T above 0.05 and up to 20.

    >>> surest = np.log([[0.9, 0.1]] * 10)  # nine in ten is said, and six in ten are right
    >>> temperature = fit_temperature(surest, np.array([0] * 6 + [1] * 4))
    >>> calibrated(surest[:1], temperature).round(3)
    array([[0.6, 0.4]])
    """
    from scipy import optimize

    low, high = (math.log(bound) for bound in TEMPERATURES)
    found = optimize.minimize_scalar(
        lambda log_temperature: log_loss(class_log_probs, class_labels, math.exp(log_temperature)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = math.exp(float(found.x))
    return 1.0 if temperature < 1.01 * TEMPERATURES[0] else temperature


def threshold_for(
    rule: str, positive_probs: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[float, dict[str, float]]:
    r"""Choose the threshold t of the decision "positive if its probability is at least t" on validation images.

    Candidates lie halfway between neighbouring probabilities, where rounding turns no decision; of those that a rule
    finds equally good, the nearest to 0.5 is taken.

    - ``youden``: highest sensitivity + specificity - 1 (Youden 1950,
      https://doi.org/10.1002/1097-0142(1950)3:1%3C32::AID-CNCR2820030106%3E3.0.CO;2-3).
    - ``f1``: highest 2 tp / (2 tp + fp + fn).
    - ``specificity=S``: highest sensitivity where specificity is at least S, and of those the highest specificity;
      ``sensitivity=S`` likewise.
    - ``cost=C``: least C fn + fp, a miss costing C false alarms.
    - a number: that threshold.

    Args:
        rule: one of these, as text.
        positive_probs: (N,) in [0, 1], of validation images.
        positive: (N,) whether each image is of the positive class; both kinds are there.

    Returns:
        The threshold, and ``sensitivity``, ``specificity`` and ``f1`` at it on these images.

    Raises:
        UserError: the rule is none of these, or no threshold reaches the rate that it names.

    >>> probs, truth = np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, True, False, True])
    >>> round(threshold_for("specificity=0.9", probs, truth)[0], 6)
    0.7
    >>> threshold_for("cost=5", probs, truth)[1]["sensitivity"]
    1.0
    """
    name, wanted = parse_rule(rule)
    positive_probs = positive_probs.astype(np.float32)  # as a student in use gives them
    candidates = np.array([wanted]) if name == "fixed" else halfway(positive_probs)
    # Positives and negatives below each candidate, by sorting once.
    ones, zeros = np.sort(positive_probs[positive]), np.sort(positive_probs[~positive])
    fn, tn = np.searchsorted(ones, candidates), np.searchsorted(zeros, candidates)
    tp, fp = len(ones) - fn, len(zeros) - tn
    sensitivity, specificity = tp / len(ones), tn / len(zeros)
    f1 = 2 * tp / (2 * tp + fp + fn)
    none = np.zeros(len(candidates))
    # What is to be highest, and what of equals
    scores, second = {
        "youden": (sensitivity + specificity, none),
        "f1": (f1, none),
        "specificity": (np.where(specificity >= wanted, sensitivity, -math.inf), specificity),
        "sensitivity": (np.where(sensitivity >= wanted, specificity, -math.inf), sensitivity),
        "cost": (-(wanted * fn + fp) / (wanted * len(ones) + len(zeros)), none),
        "fixed": (none, none),
    }[name]
    if scores.max() == -math.inf:
        found, expected = f"{rule}, which no threshold reaches on validation images", "a rate that can be had"
        raise UserError("the threshold's rule", found, expected, "Ask for less.")
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    best = best[second[best] >= second[best].max() - 1e-12]
    chosen = best[np.argmin(abs(candidates[best] - 0.5))]
    reached = {"sensitivity": sensitivity, "specificity": specificity, "f1": f1}
    return float(candidates[chosen]), {key: float(values[chosen]) for key, values in reached.items()}


def halfway(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the thresholds (T,) that part probabilities (N,) differently, halfway between neighbours, 0 and 1.

    >>> halfway(np.array([0.5, 0.25, 0.5]))
    array([0.125, 0.375, 0.75 ])
    """
    distinct = np.unique(probs.astype(np.float64))
    return np.concatenate([[distinct[0] / 2], (distinct[1:] + distinct[:-1]) / 2, [(1 + distinct[-1]) / 2]])


def parse_rule(rule: str) -> tuple[str, float]:
    """Read a rule for a threshold: its name, and the number that it names (0 where it names none).

    Raises:
        UserError: it is none that is known.

    >>> parse_rule("specificity=0.95"), parse_rule("cost=5"), parse_rule("0.3")
    (('specificity', 0.95), ('cost', 5.0), ('fixed', 0.3))
    """
    name, equals, number = rule.partition("=")
    if name in ("youden", "f1") and not equals:
        return name, 0.0
    try:
        wanted = float(number if equals else rule)
    except ValueError:
        wanted = math.nan
    if (name in ("specificity", "sensitivity") or not equals) and 0 < wanted < 1:
        return (name if equals else "fixed"), wanted
    if name == "cost" and 0 < wanted < math.inf:
        return name, wanted
    raise UserError("--threshold", f'"{rule}"', RULES)
