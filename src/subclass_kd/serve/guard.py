"""What stands around every request: access, security headers, one log line, figures, an answer even to a fault."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from subclass_kd.errors import UserError
from subclass_kd.serve.access import OPEN, Access
from subclass_kd.serve.limits import RefusedError
from subclass_kd.serve.schema import Failure, Fault, Prediction

logger = logging.getLogger("subclass_kd.serve")

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_PATHS = OPEN | {"/v1/predictions", "/v1/model", "/metrics"}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_DRAIN_SECONDS = 2.0
_GONE = 499  # as nginx logs who hung up


class Guard:
    """ASGI around an app.

    Args:
        app: that answers whom access lets pass.
        access: what a request must show.
        count: called with method, path, status and seconds of each request.
    """

    def __init__(self, app: ASGIApp, access: Access, count: Callable[[str, str, int, float], None]) -> None:
        self._app, self._access, self._count = app, access, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, receive, send)
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            try:
                self._access.check(scope["path"], headers)
            except RefusedError as refusal:
                await refuse(refusal)(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _GONE
        except Exception as error:
            # Not the error's own text, which might hold what a request held.
            stack = "".join(traceback.format_tb(error.__traceback__))
            logger.error("a fault of ours: %s\n%s", type(error).__name__, stack)
        finally:
            self._note(scope, exchange.status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count a request: of its path only what is ours, since anything may stand in a URL."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        path = scope["path"] if scope["path"] in _PATHS else "other"
        logger.info("%s %s %d %.0f ms", method, path, status, 1000 * seconds)
        self._count(method, path, status, seconds)


class _Exchange:
    """One request and its answer, watched from outside."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = dict(scope["headers"])
        # What has no body has no length; what waits for "100 Continue" sends nothing before it.
        self._unread = b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"
        self._waits = b"expect" in names
        self._receive, self._send = receive, send
        self.status = 500

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits = False
        self._unread = self._unread and bool(message.get("more_body"))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._unread and self.status != 408 and not self._waits:
                await self._drain()
            # Who still sends is hung up on after the answer: nobody would look at the time it takes any more.
            close = [(b"connection", b"close")] if self._unread else []
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS, *close]}
        await self._send(message)

    async def _drain(self) -> None:
        """Read on for a while: a client that is cut off while it sends may never see why."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            pass


def refuse(refusal: RefusedError, rows: list[Prediction] | None = None) -> JSONResponse:
    """Give the answer to a request that gets none."""
    failure = Failure(error=Fault.of(refusal.reason), predictions=rows or [])
    return JSONResponse(failure.model_dump(by_alias=True), refusal.status, refusal.headers)


def fault_of_ours() -> JSONResponse:
    """Give the answer to a request that this program cannot cope with."""
    reason = UserError("the server", "a fault of its own", "an answer", "Please report it; its log has the place.")
    return refuse(RefusedError(500, reason))


def log_to(say: Callable[[str], None]) -> None:
    """Send the log's lines to a function."""

    class Saying(logging.Handler):
        """Hands lines on."""

        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger.handlers[:] = [Saying()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
