"""How many requests and bytes are inside at a time. All of it happens on one event loop: no lock is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from subclass_kd.serve.limits import Limits, busy, size_in_words


class Room:
    """Counts what is inside and refuses what is more.

    Args:
        limits: of the server.

    Attributes:
        requests: that are inside.
        bytes: that they hold.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def enter(self) -> Iterator[Held]:
        """Let a request in until the block ends.

        Raises:
            RefusedError: 503, as many are inside as may be.
        """
        if self.requests >= self.limits.requests:
            raise busy("the server", f"{self.requests} requests in work")
        self.requests += 1
        held = Held(self)
        try:
            yield held
        finally:
            self.requests -= 1
            self.bytes -= held.bytes


class Held:
    """The bytes of one request.

    Args:
        room: that they are in.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            RefusedError: 503, all requests together hold as much as they may.
        """
        if self._room.bytes + count > self._room.limits.held_bytes:
            raise busy("the server", f"requests of {size_in_words(self._room.bytes)} in work")
        self._room.bytes += count
        self.bytes += count
