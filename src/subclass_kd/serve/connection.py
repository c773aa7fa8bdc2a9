"""HTTP connections that are hung up on where uvicorn would wait for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from subclass_kd.serve.limits import Limits

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 22\r\n\r\nToo many connections.\n"
)


def protocol(limits: Limits) -> type[H11Protocol]:
    """Give uvicorn's HTTP/1.1 with limits on connections, on the time to ask, and on the time to take the answer."""

    class Limited(H11Protocol):
        """A connection."""

        _head: asyncio.TimerHandle | None = None  # runs while a request's first lines are awaited
        _taking: asyncio.TimerHandle | None = None  # runs while the client does not take what is sent

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
            else:
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._head, self._taking):
                if timer is not None:
                    timer.cancel()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._taking = self.loop.call_later(limits.answer_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._taking is not None:
                self._taking.cancel()

        def _watch(self) -> None:
            asking = self.conn.their_state is h11.IDLE
            if asking and self._head is None:
                self._head = self.loop.call_later(limits.head_seconds, self.transport.abort)
            elif not asking and self._head is not None:
                self._head.cancel()
                self._head = None

    return Limited
