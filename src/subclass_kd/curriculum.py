"""Easy images first: cumulative stages, at the plain schedule's number of steps.

Training starts on the easiest stage and adds one stage after another; with votes, the images that all annotators agree
on come first (Wei et al. 2020, Learn like a Pathologist: Curriculum Learning by Annotator Agreement for Histopathology
Image Classification, https://arxiv.org/abs/2009.13698).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stages(difficulty: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Give the stage in which each training image enters.

    Up to ``most`` distinct values have one stage each. More are cut at quantiles into groups of nearly equal size;
    equal values are never parted, so that many of them make a stage larger, or the stages fewer.

    Args:
        difficulty: (n,), finite: larger is harder.
        most: at most so many stages, at least 2.

    Returns:
        (n,) int64 from 0, the easiest; no number is left out.

    >>> stages(np.array([0.5, 0.0, 0.25, 0.0]), 4).tolist()
    [2, 0, 1, 0]
    >>> stages(np.arange(8) / 8, 2).tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    values, rank, counts = np.unique(difficulty, return_inverse=True, return_counts=True)
    if len(values) <= most:
        return np.asarray(rank, dtype=np.int64)
    # The quantile that the middle of a value's images lies in. In whole numbers: twice the middle, of twice n.
    twice_middle = 2 * np.cumsum(counts) - counts
    quantile = twice_middle * most // (2 * len(difficulty))
    return np.asarray(np.unique(quantile, return_inverse=True)[1][rank], dtype=np.int64)


def admitted(stage: NDArray[np.int64], epoch: int, epochs: int) -> NDArray[np.bool_]:
    """Tell which images an epoch may show: those of its part's stage and of the easier ones.

    Epochs are divided into as many equal parts as there are stages. Where that leaves a remainder, the last part is
    not the one that is cut short; where epochs are fewer than stages, several stages enter at once. The last epoch
    always admits every image.

    Args:
        stage: (n,) of :func:`stages`.
        epoch: from 0 to ``epochs`` - 1.
        epochs: of the whole training.

    Returns:
        (n,) bool.

    >>> stage = np.array([0, 1, 1, 2])
    >>> [int(admitted(stage, epoch, 6).sum()) for epoch in range(6)]
    [1, 1, 3, 3, 4, 4]
    """
    count = int(stage.max(initial=0)) + 1
    part = ((epoch + 1) * count - 1) // epochs  # rounded up, so that the last stage has its full part
    return np.asarray(stage <= part)


def order(admitted: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Give the order of an epoch's images: shuffles of the admitted ones, one after another, n in all.

    An epoch thus has as many steps as in the plain schedule, whatever it admits, and shows each admitted image equally
    often, give or take one. With all n admitted it is one permutation.

    Args:
        admitted: (n,) bool, at least one True.
        seed: fixes the shuffles.

    Returns:
        (n,) int64 from 0 to n - 1.

    Raises:
        ValueError: nothing is admitted.

    >>> shown = order(np.array([True, False, True, False]), seed=0)
    >>> sorted(shown[:2].tolist()), sorted(shown[2:].tolist())
    ([0, 2], [0, 2])
    """
    rows = np.flatnonzero(admitted)
    if not len(rows):
        raise ValueError("found no image admitted, but at least one was expected. Stage 0 is never empty.")
    random = np.random.Generator(np.random.Philox(seed))
    rounds = -(-len(admitted) // len(rows))
    return np.concatenate([random.permutation(rows) for _ in range(rounds)])[: len(admitted)]
