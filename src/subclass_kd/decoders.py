"""Processes that decode image files, batch after batch, where there is no store of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import signal
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from subclass_kd.data.on_demand import OnDemand
from subclass_kd.errors import UserError
from subclass_kd.processes import end_with_parent, no_main

Rows = NDArray[np.int64]  # (B,), of all images

# Processes that decode and wait for more to do, by what they decode; they end with the images.
_idle: WeakKeyDictionary[OnDemand, list[_Decoders]] = WeakKeyDictionary()


def decoded(images: OnDemand, order: list[Rows]) -> Iterator[NDArray[np.uint8]]:
    """Give the images (B, C, H, W) of each batch, decoded by ``images.processes`` processes.

    They are started by the first epoch and kept for the next, and for other feeds of the same images, until the images
    are forgotten or this process ends, however that comes about.

    Args:
        images: files.
        order: of each batch, (B,) int64 rows of ``images``.

    Raises:
        UserError: a file is gone, damaged or has changed.
    """
    waiting = _idle.setdefault(images, [])
    decoders = waiting.pop() if waiting else _Decoders(images)
    batches, batch = decoders.start(order), None
    try:
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except (GeneratorExit, UserError):  # who asked has had enough; what is under way will be passed over
        waiting.append(decoders)
        raise
    else:
        waiting.append(decoders)
    finally:
        del waiting, decoders, batches, batch  # an error's traceback must not keep the processes


class _Decoders:
    """Processes that decode batch after batch."""

    def __init__(self, images: OnDemand) -> None:
        self._order: list[Rows] = []
        self._loader: DataLoader[Any] = DataLoader(
            _Reader(images),  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._order,
            num_workers=images.processes,
            collate_fn=_unchanged,  # numpy arrays go through a pipe: shared memory is small in many containers
            multiprocessing_context=_context(),
            persistent_workers=True,
            worker_init_fn=_begin,
            generator=torch.Generator(),  # one of its own: it draws a number each epoch, and dropout's must stay
        )

    def start(self, order: list[Rows]) -> Iterator[NDArray[np.uint8] | UserError]:
        """Give the images of each batch, or why they cannot be read."""
        self._order[:] = order
        multiprocessing.resource_tracker.ensure_running()  # first: starting it lets Ctrl-C through again
        with (
            no_main(),
            _no_interrupt(),
        ):  # each process starts with what is blocked here: Ctrl-C is its parent's to handle
            return iter(self._loader)


class _Reader:
    """What a process does: decode the images of some rows; an error of the user's is given back, to be told well."""

    def __init__(self, images: OnDemand) -> None:
        self._images = images.copy()

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8] | UserError:
        try:
            return self._images[rows]
        except UserError as error:
            return error


def _context() -> BaseContext:
    """Say how a process that decodes begins: on Linux as a copy of one that has loaded torch already.

    Each that loads torch itself takes seconds and 0.2 GB. A copy of this process, which computes in threads, can hang.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "PIL.Image"])
    return context


def _unchanged(batch: Any) -> Any:
    return batch


def _begin(_: int) -> None:
    end_with_parent()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
