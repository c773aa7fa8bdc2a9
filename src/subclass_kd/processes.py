"""Processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
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
