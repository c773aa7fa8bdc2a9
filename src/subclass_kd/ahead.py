"""Work that threads do ahead of who needs it, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")


def in_order(pool: Executor, work: Callable[[int], T], count: int, ahead: int) -> Iterator[T]:
    """Give ``work(0)``, ``work(1)``, ..., each started shortly before it is needed, so that few results wait.

    Args:
        pool: whose threads work.
        work: called with 0 to ``count`` - 1.
        count: how many results there are.
        ahead: at most so many are started beyond the one that is waited for.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(pool, lambda number: number**2, count=5, ahead=2))
    [0, 1, 4, 9, 16]
    """
    waiting: deque[Future[T]] = deque()
    try:
        for number in range(count):
            waiting.append(pool.submit(work, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:  # who asked has gone: an error, or an interrupt
            future.cancel()
