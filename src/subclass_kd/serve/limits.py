"""How much the server takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

from subclass_kd.errors import UserError

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What one server takes; docs/serve.md has the same table.

    Args:
        file_bytes: of one file.
        request_bytes: of one request, all its files and what stands between them.
        held_bytes: of all requests at a time, so that memory is bounded however many clients there are.
        files: in one request.
        pixels: of an image. Fewer than where a study's own files are read: 400 kB of PNG may hold 100 million, which
            take a core seconds and more than a gigabyte.
        requests: that send or wait for an answer at a time.
        connections: at a time, idle ones with them.
        head_seconds: to send a request's first lines.
        idle_seconds: between two pieces of a request's body.
        upload_seconds: to send a request's body.
        answer_seconds: from there to the answer.
    """

    file_bytes: int = 32 * MIB
    request_bytes: int = 64 * MIB
    held_bytes: int = 256 * MIB
    files: int = 32
    pixels: int = 25_000_000
    requests: int = 64
    connections: int = 256
    head_seconds: float = 10
    idle_seconds: float = 10
    upload_seconds: float = 60
    answer_seconds: float = 30


class RefusedError(Exception):
    """A request that gets no answer: an HTTP status, and a reason as in :class:`subclass_kd.errors.UserError`.

    Args:
        status: of HTTP, 400 or more.
        reason: where, found, expected, remedy.
        headers: that go with the status, such as Retry-After.
    """

    def __init__(self, status: int, reason: UserError, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


def size_in_words(count: int) -> str:
    """Give a number of bytes as people read it.

    >>> size_in_words(32 * MIB), size_in_words(1000)
    ('32 MiB', '1,000 bytes')
    """
    return f"{count / MIB:,.4g} MiB" if count >= MIB else f"{count:,} bytes"


def busy(where: str, found: str) -> RefusedError:
    """Refuse for now: 503, to be tried again in a second."""
    return RefusedError(503, UserError(where, found, "fewer at a time", "Try again in a second."), {"Retry-After": "1"})
