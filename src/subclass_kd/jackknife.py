"""What leaving out one test image, or one patient, after the other says of the spread of F1 and of AUROC."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def f1_left_out(predicted: NDArray[np.bool_], actual: NDArray[np.bool_], units: NDArray[Any]) -> NDArray[np.float64]:
    """F1 for each seed, of all images and then with each of the G units left out.

    F1 = 2 tp / (2 tp + fp + fn) needs three counts only, so leaving a unit out subtracts its counts, and no loop
    over images is needed.

    Args:
        predicted: (S, N) whether the positive class is predicted.
        actual: (N,) whether it is true.
        units: (N,) the unit of each image, G different values.

    Returns:
        (S, 1 + G) in [0, 1], units in sorted order; 0 where nothing is positive or called so.

    >>> f1_left_out(np.array([[True, True, False]]), np.array([True, False, True]), units=np.arange(3))
    array([[0.5       , 0.        , 0.6666..., 0.6666...]])
    """
    order = np.argsort(units, kind="stable")
    starts = np.unique(units[order], return_index=True)[1]  # (G,) where each unit begins
    outcomes = np.stack([predicted & actual, predicted & ~actual, ~predicted & actual]).astype(int)  # (3, S, N)
    counts = np.add.reduceat(outcomes[:, :, order], starts, axis=2)  # (3, S, G)
    whole = counts.sum(axis=2, keepdims=True)  # (3, S, 1)
    true_positives, false_positives, false_negatives = np.concatenate([whole, whole - counts], axis=2)
    size = 2 * true_positives + false_positives + false_negatives  # (S, 1 + G)
    f1: NDArray[np.float64] = 2 * true_positives / np.maximum(size, 1)
    return f1


def auroc_left_out(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], units: NDArray[np.int64], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the AUROC of each seed, of all images and then with each of the G units left out: (S, 1 + G).

    Scores of two folds' networks are of two scales, so that it is the mean of the folds' areas, as in results.json.

    Args:
        scores: (S, N), higher where the positive class is more likely.
        positive: (N,) whether it is the true one.
        units: (N,) whom each image belongs to.
        folds: (N,) which network was asked.

    >>> scores, positive = np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([False, False, True, True])
    >>> auroc_left_out(scores, positive, np.arange(4), np.zeros(4, int))
    array([[0.75, 0.5 , 1.  , 1.  , 0.5 ]])
    """
    names, numbers = np.unique(units, return_inverse=True)
    areas = [
        [
            _of_one_fold(row[folds == fold], positive[folds == fold], numbers[folds == fold], len(names))
            for fold in np.unique(folds)
        ]
        for row in scores
    ]  # (S, F, 1 + G)
    mean: NDArray[np.float64] = np.array(areas).mean(1)
    return mean


def left_out_variance(left_out: NDArray[np.float64]) -> float:
    r"""Jackknife variance of one value over units (Quenouille 1956, https://doi.org/10.1093/biomet/43.3-4.353).

    .. math:: \frac{G-1}{G} \sum_g (D_{(g)} - \bar D_{(\cdot)})^2

    Args:
        left_out: (G,) the value with unit g left out, G >= 2.

    >>> left_out_variance(np.array([0.0, 0.5]))
    0.0625
    """
    return float((len(left_out) - 1) * left_out.var())


def variance_parts(differences: NDArray[np.float64], left_out: NDArray[np.float64]) -> tuple[float, float]:
    r"""Variance of the mean difference over seeds, in two parts: of the seeds, and of the images that all seeds share.

    .. math::

        a = \frac{s_D^2}{S}, \quad b = \max(c, 0), \quad
        c = \frac{1}{S (S-1)} \sum_{j \ne k} \widehat{\mathrm{Cov}}(D_j, D_k), \quad
        \widehat{\mathrm{Cov}}(D_j, D_k) =
        \frac{G-1}{G} \sum_g (D_{j(g)} - \bar D_{j(\cdot)}) (D_{k(g)} - \bar D_{k(\cdot)})

    with :math:`s_D^2` the variance of the differences over seeds and :math:`D_{j(g)}` the difference of seed j without
    unit g: the jackknife over units. Part a also holds what each seed gets from the images by itself.

    This is Obuchowski & Rockette's variance for two arms, :math:`a + b = \frac{2}{r} [MS(TR) + \max(r (Cov_2 - Cov_3),
    0)]` with r = S readers, since :math:`MS(TR) = s_D^2 / 2` and :math:`c = 2 (Cov_2 - Cov_3)`, where :math:`Cov_2` is
    the covariance between readers within a technique and :math:`Cov_3` that across techniques (1995,
    https://doi.org/10.1080/03610919508813243). Only the two arms compared enter, so arms need not be equally variable.

    Args:
        differences: (S,), S >= 2.
        left_out: (S, G), G >= 2.

    Returns:
        a and b, each >= 0, in squared units of the differences.

    >>> variance_parts(np.array([0.25, 0.75]), np.array([[0.0, 0.5], [0.5, 1.0]]))
    (0.0625, 0.0625)
    """
    of_seeds = float(differences.var(ddof=1)) / len(differences)
    if of_seeds < 1e-24:  # what rounding leaves of equal differences
        of_seeds = 0.0
    return of_seeds, max(_jackknife(left_out)[1], 0.0)


def describe_variance(differences: NDArray[np.float64], left_out: NDArray[np.float64]) -> dict[str, float] | None:
    r"""The parts of :func:`variance_parts` by name, and how much of the seeds' part more test images would take away.

    Each seed is right on images of its own, too, and that part of a shrinks with the number of images as b does. With
    V the mean over seeds of each seed's own jackknife variance, and c the covariance of two seeds, it is

    .. math:: w = \frac{V - c}{S}, \quad V = \frac{G-1}{S G} \sum_j \sum_g (D_{j(g)} - \bar D_{j(\cdot)})^2

    or 0 if negative. Hillis, Obuchowski, Berbaum 2011 take it from the reader's variance before they plan for another
    number of cases (https://pmc.ncbi.nlm.nih.gov/articles/PMC3053069). It may be above a, where a few seeds happened to
    agree more than their images allow; cut to a, it would hide that from who plans.

    Args:
        differences: (S,).
        left_out: (S, G).

    Returns:
        ``seeds`` (a), ``images`` (b) and ``seed_images`` (w, of which a is an estimate too, with what else differs
        between seeds), each >= 0, in squared units of the differences; ``None`` for one seed or one unit.

    >>> describe_variance(np.array([0.25, 0.75]), np.array([[0.0, 0.5], [0.5, 1.0]]))
    {'seeds': 0.0625, 'images': 0.0625, 'seed_images': 0.0}
    """
    if min(left_out.shape) < 2:
        return None
    of_seeds, of_images = variance_parts(differences, left_out)
    own, shared = _jackknife(left_out)
    return {
        "seeds": of_seeds,
        "images": of_images,
        "seed_images": max((own - shared) / len(differences), 0.0),
    }


def _jackknife(left_out: NDArray[np.float64]) -> tuple[float, float]:
    """Mean variance of a seed, and mean covariance of two, from the images: left_out (S, G), S and G >= 2."""
    seeds, units = left_out.shape
    deviations = left_out - left_out.mean(axis=1, keepdims=True)  # (S, G)
    squares = float(np.square(deviations).sum())
    # The sum over pairs j != k is the square of the sum less the sum of the squares: no (S, S) matrix
    products = float(np.square(deviations.sum(axis=0)).sum()) - squares
    scale = (units - 1) / (units * seeds)
    return scale * squares, scale * products / (seeds - 1)


def _of_one_fold(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], numbers: NDArray[np.int64], units: int
) -> NDArray[np.float64]:
    """Count pairs won: a unit left out takes those of its positive images, of its negative ones, and both but once."""
    ours, others = scores[positive], scores[~positive]
    won = _below(ours, others)  # (P,) negative images that each positive one is above
    lost = len(ours) - _below(others, ours)  # (N,) positive images that are above each negative one
    of_ours = np.bincount(numbers[positive], won, units)  # (G,)
    of_others = np.bincount(numbers[~positive], lost, units)
    both = np.zeros(units)
    for unit in np.intersect1d(numbers[positive], numbers[~positive]):
        both[unit] = _below(ours[numbers[positive] == unit], others[numbers[~positive] == unit]).sum()
    left = np.concatenate([[won.sum()], won.sum() - of_ours - of_others + both])
    counts = [np.bincount(numbers[each], minlength=units) for each in (positive, ~positive)]
    pairs = [np.concatenate([[n], n - out]) for n, out in zip((len(ours), len(others)), counts, strict=True)]
    area: NDArray[np.float64] = left / (pairs[0] * pairs[1])
    return area


def _below(of: NDArray[np.floating], among: NDArray[np.floating]) -> NDArray[np.float64]:
    """Count for each value how many others are below it; equal ones count half."""
    ordered = np.sort(among)
    return (np.searchsorted(ordered, of, "left") + np.searchsorted(ordered, of, "right")) / 2
