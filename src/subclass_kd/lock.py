"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from subclass_kd.errors import UserError

LOCK = ".lock"


class FolderLock:
    """Keeps a second run out of a folder for as long as a ``with`` block, from the call of :meth:`take` on.

    The lock is a file in the folder with the host, the process and the time. The system holds it, over NFS too, and
    lets go when the process ends in whatever way, so that a file that is left over locks nothing. Where a file system
    cannot lock, what stands in the file decides: a process of this host that lives has the folder, unless it is a later
    one of the same number (as in a container that was started again), and one of another host is believed to, since
    that cannot be seen from here.

    Args:
        folder: which may not be there yet.
        name: of the file.
    """

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        self._path = folder / name
        self._file: IO[str] | None = None
        self.believed = False  # whether the last refusal rests on what another host wrote, which may be over

    def __enter__(self) -> FolderLock:
        return self

    def take(self) -> None:
        """Lock the folder, which is made if it is not there; nothing if it is locked by this already.

        Raises:
            UserError: another run has it.
        """
        if self._file is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = self._path.open("a+", encoding="utf-8")
            held = hold(file)
            if held is False or (held is None and _is_taken(_content(file))):
                by = _content(file)
                file.close()
                self.believed = held is None and by.get("host") != socket.gethostname()
                raise self._taken(by)
            if self._is_ours(file):
                break
            file.close()  # a run that ended just now has removed it: what was held is no lock
        file.truncate(0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        own = {"host": socket.gethostname(), "process": os.getpid(), "since": now, "began": _began(os.getpid())}
        file.write(json.dumps(own) + "\n")
        file.flush()
        self._file = file

    def _is_ours(self, file: IO[str]) -> bool:
        """Say whether the file that is held is the one that the path names."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except OSError:  # no such file, or over NFS a stale one
            return False

    def _taken(self, by: dict[str, Any]) -> UserError:
        who = f"process {by['process']} on {by['host']}, since {by.get('since')}" if _names(by) else "another process"
        remedy = "Wait for it, or give another --out."
        if self.believed:
            remedy = f'Wait for it, or give another --out; if it is over there, remove "{self._path}".'
        return UserError(
            str(self._path.parent), f"a run that goes on ({who})", "a folder that no other run has", remedy
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if sys.platform == "win32":  # which removes no open file
            self._file.close()
            with contextlib.suppress(OSError):
                self._path.unlink()
        else:  # in this order: after it is closed, it may be another run's
            self._path.unlink(missing_ok=True)
            self._file.close()
        self._file = None


def hold(file: IO[str]) -> bool | None:
    """Have the system lock an open file for this process, and say whether it did; None where it cannot."""
    if sys.platform == "win32":
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _names(by: dict[str, Any]) -> bool:
    return "host" in by and "process" in by


def _is_taken(by: dict[str, Any]) -> bool:
    """Say whether what stands in a lock's file speaks of a process that has it, where the system does not know."""
    if not _names(by):
        return False
    if by["host"] != socket.gethostname():
        return True
    try:
        process = int(by["process"])
    except (TypeError, ValueError, OverflowError):
        return False
    then, now = by.get("began"), _began(process)
    return lives(process) and (None in (then, now) or then == now)


def lives(process: int) -> bool:
    """Say whether there is a process of this number on this machine; on Windows this cannot be asked: yes."""
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def _began(process: int) -> str | None:
    """Give what tells a process from a later one of the same number: since which boot and tick it runs, on Linux."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"
    except (OSError, IndexError):
        return None


def _content(file: IO[str]) -> dict[str, Any]:
    try:
        file.seek(0)
        content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
