"""Processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path

# What tells a graphics card on Linux: NVIDIA's, AMD's, that of a Windows host.
CARDS = ("nvidiactl", "kfd", "dxg")


def worker_context(device: str) -> BaseContext:
    """Give what starts the processes of a run.

    A forked copy of a process that has computed can hang, and cannot use a GPU. So on Linux without a GPU they are
    copies of one that has loaded torch and computed nothing, which saves each the loading; elsewhere they begin anew.

    Args:
        device: ``Study.device``.
    """
    has_card = any(Path("/dev", card).exists() for card in CARDS)
    if sys.platform != "linux" or (device != "cpu" and has_card):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["subclass_kd.build", "subclass_kd.work"])
    return context


@contextmanager
def no_main() -> Iterator[None]:
    """Let processes that start meanwhile know nothing of the user's script.

    Python would run it in each of them to find what it defines, of which a worker needs nothing; and a script without
    ``if __name__ == "__main__":`` would begin its study anew in every worker.
    """
    users = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = users


def end_with_parent() -> None:
    """End this process as soon as its parent has ended without a word, as after kill -9; returns at once."""
    threading.Thread(target=_watch, daemon=True).start()


def may_have_children() -> None:
    """Let this worker process start processes of its own, while its parent still ends it when it exits itself.

    A process that multiprocessing calls daemonic may not have children, lest they outlive it; those that begin with
    :func:`end_with_parent` do not.
    """
    multiprocessing.current_process().daemon = False


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
