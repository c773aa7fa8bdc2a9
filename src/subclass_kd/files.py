"""Files that appear whole or not at all, and fingerprints of what went into them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError
from subclass_kd.lock import hold, lives


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, sync it and rename it into place.

    A reader sees the old file or the whole new one, whenever the process stops. If the block fails, the temporary
    file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # With host and number, for who cleans up; at random, since containers that share both may write here as well.
    name = f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f"{name}.part")
    with _held(path.with_name(f"{name}.lock.part")):
        try:
            temporary.touch()  # here, so that the file gets the user's usual permissions, whatever writes it
            permissions = temporary.stat().st_mode
            yield temporary
            temporary.chmod(permissions)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock for a temporary file as long as the block goes on: who can take it knows that the writer has died.

    It is a file beside that one. Libraries put a file of their own in the place of a temporary one, and on SMB nobody
    could write to one that is locked, not even its owner by another handle.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            hold(file)
            yield
    finally:
        path.unlink(missing_ok=True)


def remove_left(folder: Path) -> None:
    """Remove the temporary files in a folder of processes of this host that were killed while they wrote.

    Those that a living process holds stay, in whatever container of this host. Where the file system cannot lock, a
    process of the same number is believed to be the writer. Those of other hosts stay too, since many a file system
    locks for one host only.
    """
    of_this_host = re.compile(rf"(\..*\.{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]{{8}})\.part", re.DOTALL)
    for path in folder.glob(".*.part"):
        name = of_this_host.fullmatch(path.name)
        if name is not None:
            with contextlib.suppress(OSError):  # another user's
                _remove_unless_held(path, path.with_name(f"{name[1]}.lock.part"), int(name[2]))


def _remove_unless_held(path: Path, lock: Path, process: int) -> None:
    """Remove a temporary file and its lock, which is there as long as a writer is, unless the writer lives."""
    try:
        with lock.open("r+", encoding="utf-8") as file:
            left = hold(file)
    except FileNotFoundError:
        left = True
    if left or (left is None and not lives(process)):
        path.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened (Windows does not)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that any reader accepts (no NaN), two-space indented, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def require_json(path: Path, of: str, make: str, mend: str) -> dict[str, Any]:
    """Read keys and values that a command left in a folder.

    Args:
        path: the file.
        of: what the folder is expected to be.
        make: what to do where there is no such file.
        mend: what to do where it is damaged.

    Raises:
        UserError: there is no such file, or it cannot be read, or it holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(str(path.parent), f"no {path.name}", of, make) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"a file that cannot be read ({error})", "a whole file", mend) from None
    if not isinstance(content, dict):
        raise UserError(str(path), "no keys and values", "a whole file", mend)
    return content


def fingerprint(*parts: Any) -> str:
    """Hash JSON-able values, bytes and memory views of bytes, in order, to 16 hexadecimal digits.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes | memoryview) else json.dumps(part, sort_keys=True).encode()
        # The length first, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:16]
