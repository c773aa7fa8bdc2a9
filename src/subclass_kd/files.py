"""Files that appear whole or not at all, and fingerprints of what went into them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError
from subclass_kd.lock import lives


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, sync it and rename it into place.

    A reader sees the old file or the whole new one, whenever the process stops. If the block fails, the temporary
    file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the host: on a shared folder, two machines may have processes of one number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
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


def remove_left(folder: Path) -> None:
    """Remove the temporary files in a folder of processes of this host that were killed while they wrote.

    Those of living processes stay, and those of other hosts, of which that cannot be seen from here.
    """
    of_this_host = re.compile(rf"\..*\.{re.escape(socket.gethostname())}-(\d+)\.part", re.DOTALL)
    for path in folder.glob(".*.part"):
        name = of_this_host.fullmatch(path.name)
        if name is not None and not lives(int(name[1])):
            with contextlib.suppress(OSError):  # another user's, or another process was faster
                path.unlink()


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
