"""The area under the ROC curve of each seed, and what it would be without each patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    return np.array(areas).mean(1)


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
