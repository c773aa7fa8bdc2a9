"""What every kind of data is turned into before hierarchy and split are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """Images with the labels that their owner gave them.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 into ``names``: the subclass of each image.
        is_test: (N,) bool: the images that the owner set apart for the test.
        names: the subclasses' names.
        where: what error messages call this data.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    names: tuple[str, ...]
    where: str
