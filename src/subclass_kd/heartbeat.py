"""Whether the other processes of a team live: each says so again and again, and whoever falls silent is lost.

A store does not tell of a process that is killed on another machine, and of its own machine's end says nothing at
all: a call waits without end. So these threads have a connection of their own, and the one that judges makes no call.
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from subclass_kd.team import Team

LOOKS = 0.5  # seconds between two looks of a process that computes
SILENCE = 120.0  # seconds; who is in a long call that keeps Python's lock is silent too, and not lost
COMING = 600.0  # seconds for a first word, before which a slow disk may have Python load for long


class Heartbeat:
    """Tells the others that this process lives, until it is over, and hears of them.

    Args:
        store: that all processes reach.
        team: whose. The first process hears of all others, they of it.
        over: set at the end.
    """

    def __init__(self, store: Store, team: Team, over: threading.Event) -> None:
        self.told: dict[str, Any] | None = None  # what was said of the end
        self.gone = False  # the store, and with it the process that had it
        self._store, self._own, self._over = store, f"beat/{team.rank}", over
        self._others = [f"beat/{rank}" for rank in (range(1, team.count) if team.leads else [0])]
        self._last: dict[str, bytes] = {}
        # Time is counted in looks of this process: one that was suspended with all others accuses none of them.
        self._looks = 0
        self._heard = dict.fromkeys(self._others, (COMING - SILENCE) / LOOKS)  # at which look
        threading.Thread(target=self._talk, daemon=True).start()

    def silent(self) -> str | None:
        """Name a process that nothing was heard of for too long; called once each :data:`LOOKS` seconds."""
        self._looks += 1
        for key, heard in self._heard.items():
            if self._looks - heard > SILENCE / LOOKS:
                who = f"process {key.removeprefix('beat/')} of the training"
                if key not in self._last:
                    return f"{who} did not come within {COMING:.0f} s"
                return f"{who}, on {json.loads(self._last[key])[0]}, has said nothing for {SILENCE:.0f} s"
        return None

    def _talk(self) -> None:
        beats = 0
        try:
            # What the main thread awaits from the store holds its connection for as long. Before torch 2.8 there is
            # that one alone; then a team that takes SILENCE to connect is given up.
            store = self._store.clone() if hasattr(self._store, "clone") else self._store
            while not self._over.wait(LOOKS):
                beats += 1
                store.set(self._own, json.dumps([socket.gethostname(), beats]))
                here = [key for key in self._others if key in self._last or store.check([key])]
                for key, beat in zip(here, store.multi_get(here) if here else [], strict=True):
                    if self._last.get(key) != beat:
                        self._last[key], self._heard[key] = beat, self._looks
                self.told = said_of_the_end(store)
        except RuntimeError:
            self.gone = True


def said_of_the_end(store: Store) -> dict[str, Any] | None:
    """Give what was said of the end, if it has come: who, with which exit code, and why."""
    if not store.check(["end"]):
        return None
    told: dict[str, Any] = json.loads(store.get("end"))
    return told
