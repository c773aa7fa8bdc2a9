"""The server process: where it listens, what clients must show, how it starts and ends."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from subclass_kd.bundle import Bundle
from subclass_kd.bundle_files import MANIFEST, REMEDY
from subclass_kd.errors import UserError
from subclass_kd.serve.access import Access
from subclass_kd.serve.app import make_app
from subclass_kd.serve.connection import protocol
from subclass_kd.serve.guard import log_to
from subclass_kd.serve.limits import Limits
from subclass_kd.serve.schema import NOTICE
from subclass_kd.serve.student import Student

TOKEN_VARIABLE = "SKD_TOKEN"  # noqa: S105 - its name
SHORTEST_TOKEN = 16  # characters
_HOW = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'."


class Server(uvicorn.Server):
    """uvicorn's server, for which a signal is a wish to stop and no error."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else they would be raised again


def serve_bundle(
    folder: Path, host: str, port: int, token_file: Path | None, *, int8: bool, say: Callable[[str], None]
) -> bool:
    """Serve a bundle until SIGINT or SIGTERM; requests in work are finished.

    Args:
        folder: of the bundle.
        host: to listen at, a name or an address.
        port: to listen at; 0 takes one that is free.
        token_file: of the token; else the variable SKD_TOKEN has it, or there is none.
        int8: ask the student of 8 bits.
        say: is given lines for the user and of the log.

    Returns:
        False if it was told twice and stopped without finishing.

    Raises:
        UserError: the bundle, the address or the token is no good.
    """
    token = read_token(token_file)
    listener = listen(host, port, token)
    with listener:
        address, actual = listener.getsockname()[:2]
        loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        server, student = make_server(folder, Access(token, loopback), Limits(), int8=int8)
        advice = student.describe().advice
        log_to(lambda line: say(f"{time.strftime('%H:%M:%S')} {line}"))
        url = f"http://{f'[{address}]' if ':' in address else address}:{actual}/"
        if advice is not None:
            say(advice)
        say(f"{folder} answers at {url}{'' if loopback else ' (not encrypted: docs/serve.md)'}. Ctrl-C stops. {NOTICE}")
        try:
            server.run([listener])
        finally:
            student.close()
    return not server.force_exit


def make_server(folder: Path, access: Access, limits: Limits, *, int8: bool = False) -> tuple[Server, Student]:
    """Open a bundle and give the server that is to run on a socket, and its student, to be closed after it.

    Raises:
        UserError: the bundle is missing or not whole.
    """
    student = Student(Bundle(folder, int8=int8, threads=1), int8, limits)
    try:
        model = student.describe()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        where = str(folder / MANIFEST)
        raise UserError(where, f"a bundle that is not whole ({reason})", "schema 1", REMEDY) from None
    config = uvicorn.Config(
        make_app(student, model, limits, access),
        http=protocol(limits),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,  # its lines have whole URLs
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(limits.upload_seconds + limits.answer_seconds),
    )
    return Server(config), student


def read_token(path: Path | None) -> str | None:
    """Give the token out of a file, or of the environment, or None.

    Raises:
        UserError: the file cannot be read, or what it holds is too short or not of visible ASCII characters.
    """
    where = f"variable {TOKEN_VARIABLE}" if path is None else str(path)
    try:
        token = os.environ.get(TOKEN_VARIABLE, "") if path is None else path.read_text("ascii")
    except OSError as error:
        raise UserError(where, error.strerror or str(error), "a file with the token", _HOW) from None
    except UnicodeDecodeError:
        raise UserError(where, "a byte that is not ASCII", "a token of visible ASCII characters", _HOW) from None
    token = token.strip()
    if not token and path is None:
        return None
    if len(token) < SHORTEST_TOKEN or not all("!" <= character <= "~" for character in token):
        found = f"{len(token)} characters" if len(token) < SHORTEST_TOKEN else "blanks or control characters in it"
        raise UserError(where, found, f"a token of {SHORTEST_TOKEN} visible characters or more", _HOW)
    return token


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """Bind a socket to the first address that a host name has.

    Raises:
        UserError: the name is unknown, the address is not this computer's or taken, or it is not loopback and there is
            no token.
    """
    where = f"option --host {host}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(where, f"an address that is not known ({reason})", "one of this computer") from None
    if token is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        remedy = f"{_HOW} Put it into a file for --token-file, or leave out --host."
        raise UserError(where, "an address that others can reach, and no token", "a token", remedy)
    listener = socket.socket(family, kind, number)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not to wait for connections that ended
        listener.bind(address)
        listener.listen()  # here, where a port that another has just taken can still be told of
    except OSError as error:
        listener.close()
        where = f"{host}, port {port}"
        raise UserError(where, error.strerror or str(error), "a free one", "Give another --port.") from None
    return listener
