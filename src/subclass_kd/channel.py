"""What the processes of a team tell each other between their computations: orders, readiness, and the end.

It goes through torch's key-value store, as JSON: nothing that comes over a network is unpickled. Whoever waits looks
again and again, so that no wait has a limit while all live, signals are heard, and the end of any process is the end of
all, whether it says so or falls silent.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from torch import distributed
from torch.distributed import DistNetworkError, PrefixStore, Store  # type: ignore[attr-defined]

from subclass_kd.cli_shared import say
from subclass_kd.errors import UserError
from subclass_kd.heartbeat import LOOKS, Heartbeat, said_of_the_end
from subclass_kd.team import Team

PAUSE = 0.02  # seconds between two looks of a process that has nothing else to do
GRACE = 3.0  # seconds for what computes to notice that another process has ended
PATIENCE = 10.0  # seconds that the others have to end after the first


class Channel:
    """One process's end of it.

    Args:
        store: that all processes reach.
        team: whose.
        children: processes that this one has started for the team.
    """

    def __init__(self, store: Store, team: Team, children: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        self._store, self._team, self._children, self._number = store, team, children, 0
        self._over, self._lost = threading.Event(), threading.Event()
        self._heartbeat = Heartbeat(store, team, self._over)
        threading.Thread(target=self._watch, daemon=True).start()

    def connect(self, backend: str) -> None:
        """Let the processes compute together, all of which call this."""
        group = PrefixStore("group", self._store)
        distributed.init_process_group(backend, store=group, rank=self._team.rank, world_size=self._team.count)

    def order(self, content: dict[str, Any]) -> None:
        """Tell the others what to do next, and wait until each is ready to begin."""
        self._number += 1
        self._store.set(f"order/{self._number}", json.dumps(content))
        for rank in range(1, self._team.count):
            self._wait(f"ready/{self._number}/{rank}")
        self._store.set(f"go/{self._number}", "")

    def next(self) -> dict[str, Any]:
        """Wait for the next order.

        Raises:
            SystemExit: the run is over.
        """
        self._number += 1
        self._wait(f"order/{self._number}")
        content: dict[str, Any] = json.loads(self._store.get(f"order/{self._number}"))
        return content

    def ready(self) -> None:
        """Say that this process is ready for its order, and wait until all are."""
        self._store.set(f"ready/{self._number}/{self._team.rank}", "")
        self._wait(f"go/{self._number}")

    def is_open(self) -> bool:
        """Whether the store is still there, and with it the leader."""
        with contextlib.suppress(RuntimeError):
            self._store.check(["end"])
            return True
        return False

    def end(self, code: int, error: UserError | str | None = None) -> None:
        """Say that this process ends, and how; the first that says so speaks for all.

        The leader lets the others go first; another that has failed waits until the leader has said why.
        """
        self._over.set()
        told: dict[str, Any] = {"rank": self._team.rank, "host": socket.gethostname(), "code": code}
        if error is not None:
            told |= {"user": error.args} if isinstance(error, UserError) else {"error": error}
        others = range(1, self._team.count) if self._team.leads else [0] if code else []
        parting = threading.Thread(target=self._part, args=(told, others), daemon=True)
        parting.start()
        parting.join(PATIENCE + GRACE)  # a store whose machine is gone answers nothing
        for child in self._children:
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()

    def _part(self, told: dict[str, Any], others: Iterable[int]) -> None:
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(RuntimeError):  # the store may have gone with its process
            self._store.compare_set("end", "", json.dumps(told))
            self._store.set(f"left/{self._team.rank}", "")
            while not all(self._store.check([f"left/{rank}"]) for rank in others) and time.monotonic() < deadline:
                if self._children and all(child.poll() is not None for child in self._children):
                    break
                time.sleep(PAUSE)

    def ended(self) -> dict[str, Any] | None:
        """Give what was said of the end, if it has come: who, with which exit code, and why."""
        return said_of_the_end(self._store)

    def raise_end(self) -> None:
        """Raise what ended another process, if anything did.

        Raises:
            UserError, RuntimeError: as it was there.
            SystemExit: it was asked to stop, or the run is over.
        """
        told = self.ended()
        if told is None or told["rank"] == self._team.rank:
            return
        if self._team.leads and "user" in told:
            raise _refusal(told)
        if self._team.leads and "error" in told:
            raise RuntimeError(_fault(told))
        # What the leader's end means, the leader says; the others have done their part.
        raise SystemExit(told["code"] if self._team.leads else 0)

    def _wait(self, key: str) -> None:
        while not self._store.check([key]):
            self.raise_end()
            self._look_after_children()
            if self._lost.is_set():
                raise DistNetworkError("a process is silent")
            time.sleep(PAUSE)

    def _look_after_children(self) -> None:
        for child in self._children:
            if child.poll() is not None and self.ended() is None:
                raise DistNetworkError(f"a process has ended with exit code {child.returncode}")

    def _watch(self) -> None:
        """End this process where it computes with others of which one has ended and said so, is gone, or is silent.

        No call here waits for the store, which may be what is gone.
        """
        code, why, speaks, dead = 1, "a process of the training is gone without a word", True, False
        while not self._over.wait(LOOKS):
            told, silent = self._heartbeat.told, self._heartbeat.silent()
            if told is not None and told["rank"] != self._team.rank:
                speaks = self._team.leads
                code = told["code"] if self._team.leads else 0
                why = str(_refusal(told)) if "user" in told else _fault(told) if "error" in told else ""
                break
            if silent is not None:
                say(silent)
                self._lost.set()
                break
            if self._heartbeat.gone or (dead and told is None):
                break
            # A child that said why may have been heard just not yet: the next look decides.
            dead = any(child.poll() is not None for child in self._children)
        # What this process waits for may fail, and be told, before long; and if not, it would wait for long.
        if self._over.wait(GRACE):
            return
        if speaks and why:
            say(why)
        leaving = threading.Thread(target=self._leave, args=(code,), daemon=True)
        leaving.start()
        leaving.join(GRACE)
        if self._lost.is_set():
            for child in self._children:
                child.kill()
        os._exit(code)

    def _leave(self, code: int) -> None:
        with contextlib.suppress(RuntimeError):
            if self._lost.is_set() and self._team.leads:
                told = {"rank": self._team.rank, "host": socket.gethostname(), "code": code}
                self._store.compare_set("end", "", json.dumps(told))
            self._store.set(f"left/{self._team.rank}", "")


def _refusal(told: dict[str, Any]) -> UserError:
    where, *rest = told["user"]
    return UserError(f"{told['host']}: {where}" if told["host"] != socket.gethostname() else where, *rest)


def _fault(told: dict[str, Any]) -> str:
    return f"process {told['rank']} of the training, on {told['host']}: {told['error']}"
