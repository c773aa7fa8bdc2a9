"""How the learning rate goes."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(steps: int) -> Callable[[int], float]:
    """Give the share of the peak rate at each step: rising over the first 5 % of the steps, then half a cosine to zero.

    Args:
        steps: of the whole training, at least 1.

    >>> rate = warmup_cosine(100)
    >>> [round(rate(step), 2) for step in (0, 4, 5, 52, 99)]
    [0.2, 1.0, 1.0, 0.51, 0.0]
    """
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor
