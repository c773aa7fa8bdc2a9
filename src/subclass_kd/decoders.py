"""Processes that decode image files, batch after batch, where there is no store of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import signal
import sys
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from subclass_kd.ahead import in_order
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.errors import UserError
from subclass_kd.processes import end_with_parent, no_main

Rows = NDArray[np.int64]  # (B,), of all images
AHEAD = 2  # batches for each process, decoded before they are asked for; fewer, at least one, if they are large
MOST_AHEAD = 1 << 30  # bytes of all that wait
MOST = 32  # processes; each holds a batch and a list of all files
DESCRIPTORS = 4  # that each takes of this process: an end of two pipes, and two that tell of its end

# Processes that decode and wait for more to do, by what they decode; they end with the images.
_idle: WeakKeyDictionary[OnDemand, list[_Decoders]] = WeakKeyDictionary()


def decoded(images: OnDemand, order: list[Rows]) -> Iterator[NDArray[np.uint8]]:
    """Give the images (B, C, H, W) of each batch, decoded by up to ``images.processes`` processes.

    They are started by the first epoch and kept for the next, and for other feeds of the same images, until the images
    are forgotten or this process ends, however that comes about.

    Args:
        images: files.
        order: of each batch, (B,) int64 rows of ``images``.

    Raises:
        UserError: a file is gone, damaged or has changed, or one of the processes has died.
    """
    waiting = _idle.setdefault(images, [])
    decoders = waiting.pop() if waiting else _Decoders(images)
    try:
        yield from decoders.batches(order)
    except (GeneratorExit, UserError) as end:  # who asked has had enough; what is under way will be passed over
        if decoders.live():
            waiting.append(decoders)
        raise end.with_traceback(None) from None  # whose frames would keep the processes
    except BaseException:  # Ctrl-C among them: no thread may wait for what is under way
        decoders.end()
        raise
    else:
        waiting.append(decoders)
    finally:
        del waiting, decoders  # nor may this frame, which an error takes along


class _Decoder(NamedTuple):
    """A process that decodes, and this end of the pipes to and from it."""

    process: BaseProcess
    rows: Connection
    images: Connection


class _Decoders:
    """Processes that decode batch after batch, and as many threads of this process that ask them.

    Each has pipes of its own, whose other ends nobody else has. So whenever one is killed, even in the middle of a
    batch that it writes, its reader is told at once; from a pipe that others can still write to, as that of torch's
    DataLoader, it would read without end.
    """

    def __init__(self, images: OnDemand) -> None:
        context, theirs, count = _context(), images.copy(), _most(images.processes)
        self._image = int(np.prod(images.shape[1:]))  # bytes
        self._all: list[_Decoder] = []
        self._free: SimpleQueue[_Decoder] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count)
        # Not when Python exits: then the processes are ended as all that are daemonic, by the process they belong to.
        weakref.finalize(self, _kill, self._all).atexit = False
        multiprocessing.resource_tracker.ensure_running()  # first: starting it lets Ctrl-C through again
        with (
            no_main(),
            _no_interrupt(),
        ):  # each process starts with what is blocked here: Ctrl-C is its parent's to handle
            for _ in range(count):
                asked, rows = context.Pipe(duplex=False)
                answers, said = context.Pipe(duplex=False)
                process = context.Process(target=_decode, args=(theirs, asked, said), daemon=True)  # type: ignore[attr-defined]
                process.start()
                asked.close()
                said.close()
                self._all.append(_Decoder(process, rows, answers))
                self._free.put(self._all[-1])

    def batches(self, order: list[Rows]) -> Iterator[NDArray[np.uint8]]:
        """Give the images of each batch, some of them decoded before they are asked for."""
        count, largest = len(self._all), max(map(len, order), default=0) * self._image
        # At least one for each process, or some would have nothing to do; as many are in the processes anyway.
        ahead = max(count, min(AHEAD * count, MOST_AHEAD // max(1, largest)))
        return in_order(self._threads, lambda number: self._ask(order[number]), len(order), ahead)

    def _ask(self, rows: Rows) -> NDArray[np.uint8]:
        decoder = self._free.get()
        try:
            decoder.rows.send(rows)
            answer = decoder.images.recv()
        except (EOFError, OSError):
            raise _death(decoder.process) from None
        finally:
            self._free.put(decoder)  # a dead one too: who asks it next is told as well, not left to wait for another
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def live(self) -> bool:
        """Say whether all processes do."""
        return all(decoder.process.is_alive() for decoder in self._all)

    def end(self) -> None:
        """End the processes, whatever they do."""
        _kill(self._all)


def _kill(decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.process.kill()


def _most(processes: int) -> int:
    """Say how many processes there may be of so many: their pipes take half of what this one may have open at most."""
    if sys.platform == "win32":  # which has no such limit
        return min(processes, MOST)
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MOST if limit == resource.RLIM_INFINITY else limit // 2 // DESCRIPTORS
    return max(1, min(processes, MOST, room))


def _death(process: BaseProcess) -> UserError:
    process.join(5)  # its pipes are closed a moment before it is known how it ended
    found = f"a process that died (exit code {process.exitcode}), as where memory runs out"
    remedy = "Lower --workers, batch_size or data.size, and run again: it goes on where it stopped."
    return UserError("decoding images", found, "memory for all processes that decode", remedy)


def _decode(images: OnDemand, asked: Connection, said: Connection) -> None:
    """Be a process that decodes the images of some rows after others, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            said.send(_attempt(images, asked.recv()))


def _attempt(images: OnDemand, rows: Rows) -> NDArray[np.uint8] | Exception:
    """Decode some rows; an error is given back, to be told well."""
    try:
        return images[rows]
    except UserError as error:
        return error
    except Exception:
        return RuntimeError(traceback.format_exc())


def _context() -> BaseContext:
    """Say how a process that decodes begins: on Linux as a copy of one that has loaded what it needs already.

    A copy of this process, which computes in threads, can hang.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "PIL.Image"])
    return context


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
