"""A folder in a store that fsspec knows (S3, GCS, Azure, SFTP, ...); a run in one, and its copy on this machine."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from subclass_kd.errors import UserError
from subclass_kd.passwords import refuse_password

T = TypeVar("T")
SECONDS = 5.0  # between two looks at whether a checkpoint is new


class RemoteFolder:
    """A folder in a store; what fails there is told as the user's to mend.

    Args:
        url: such as ``s3://bucket/run``; who may read and write there is the store's own configuration.

    Raises:
        UserError: there is a password in it, fsspec does not know such stores, or lacks a package for this one.
    """

    def __init__(self, url: str) -> None:
        refuse_password("the URL of a store", url)  # whatever fails there would show it
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
            from fsspec.spec import AbstractFileSystem
        except ImportError:
            remedy = "Install both, for S3: pip install fsspec s3fs."
            raise UserError(self.url, "no fsspec in this Python", "it, and the package of the store", remedy) from None
        self._store: Any
        self._store, self._root = self._try(lambda: url_to_fs(self.url, use_listings_cache=False))
        # An object appears in its store when all of it is there, and a rename would copy it. Where there is a rename
        # (a disk, SFTP, ...), the store is a file system, in which a file that is written is there from its first byte.
        self._renames = type(self._store).mv is not AbstractFileSystem.mv

    def paths(self) -> list[str]:
        """List the files of the folder and of those in it, relative to it; none if it is not there."""

        def find() -> list[str]:
            self._store.invalidate_cache()
            found: list[str] = self._store.find(self._root)
            return found

        return sorted(path[len(self._root) :].lstrip("/") for path in self._try(find))

    def get(self, path: str, to: Path) -> None:
        """Copy a file from the store."""
        to.parent.mkdir(parents=True, exist_ok=True)
        self._try(lambda: self._store.get_file(f"{self._root}/{path}", str(to)), path)

    def stamp(self, path: str) -> str:
        """Give what changes when a file does."""
        return str(self._try(lambda: self._store.ukey(f"{self._root}/{path}"), path))

    def open(self, path: str) -> BinaryIO:
        """Open a file to be read in parts; what fails later in it raises the store's own errors."""
        file: BinaryIO = self._try(lambda: self._store.open(f"{self._root}/{path}", "rb"), path)
        return file

    def read(self, path: str, first: int, size: int) -> bytes:
        """Read a part of a file; less where it ends before."""
        part: bytes = self._try(lambda: self._store.cat_file(f"{self._root}/{path}", first, first + size), path)
        return part

    def put(self, file: Path, path: str) -> None:
        """Copy a file to the store, where an older one is replaced once the new one is whole."""

        def put() -> None:
            target = f"{self._root}/{path}"
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
            if not self._renames:
                self._store.put_file(str(file), target)
                return
            beside = _beside(target)  # always the same, so that what a killed process left is replaced
            self._store.put_file(str(file), beside)
            if not self._rename(beside, target):  # SMB and HDFS rename to no file that is there
                self._remove(target)
                if not self._rename(beside, target):  # who may write there may not rename
                    self._store.put_file(str(file), target)
                    self._remove(beside)

        self._try(put, path)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there, and what may be left of one that was put."""
        target = f"{self._root}/{path}"
        for each in [target, _beside(target)] if self._renames else [target]:
            self._try(lambda each=each: self._remove(each), path)  # type: ignore[misc]

    def _rename(self, path: str, target: str) -> bool:
        with contextlib.suppress(Exception):  # each store raises its own, or nothing
            self._store.mv(path, target)
        return not self._store.exists(path)

    def _remove(self, target: str) -> None:
        try:
            self._store.rm_file(target)
        except Exception:  # where there is no file, each store raises its own
            if self._store.exists(target):
                raise

    def _try(self, action: Callable[[], T], path: str = "") -> T:
        try:
            return action()
        except Exception as error:  # each store raises its own
            where = f"{self.url}/{path}" if path else self.url
            found = f"{type(error).__name__}: {error}"
            remedy = "Mend that and run again: what is finished is kept."
            raise UserError(where, found, "a store that fsspec can read and write", remedy) from error


def _beside(path: str) -> str:
    """Give the hidden name that a file has until it is whole; as such it is no part of a run."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.part"


@dataclass(frozen=True)
class Mirror:
    """A run folder in a store, and the folder here that is like it.

    Args:
        remote: the one in the store.
        folder: the one here.
    """

    remote: RemoteFolder
    folder: Path

    def url_of(self, out: Path) -> str:
        """Give the URL of the folder or of one in it, a fold's."""
        inside = out.relative_to(self.folder).as_posix()
        return self.remote.url if inside == "." else f"{self.remote.url}/{inside}"

    def pull(self, *files: Path) -> None:
        """Copy files of the folder here from the store."""
        for file in files:
            self.remote.get(file.relative_to(self.folder).as_posix(), file)

    def push_plain(self) -> None:
        """Copy to the store all files but hidden ones and those of tensors, which are put there where they are made."""
        for file in sorted(self.folder.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(self.folder).parts)
            if file.is_file() and not hidden and file.suffix != ".safetensors":
                self.remote.put(file, file.relative_to(self.folder).as_posix())


@contextlib.contextmanager
def mirrored(url: str) -> Iterator[Mirror]:
    """Copy a run from a store into a temporary folder, and what it has become back again, however the block ends."""
    remote = RemoteFolder(url)
    with tempfile.TemporaryDirectory(prefix="skd-run-") as folder:
        mirror = Mirror(remote, Path(folder) / "run")
        for path in remote.paths():
            if not any(part.startswith(".") for part in path.split("/")):
                mirror.pull(mirror.folder / path)
        try:
            yield mirror
        finally:
            if (mirror.folder / "study.json").exists():  # not of a study that was refused
                mirror.push_plain()


@contextlib.contextmanager
def kept_in_store(remote: RemoteFolder, out: Path, path: str) -> Iterator[None]:
    """Bring a checkpoint from a store, if one is there, and keep the store's as new as this machine's.

    Args:
        remote: the run folder.
        out: its copy, in which the training works.
        path: of the checkpoint.
    """
    done, file = threading.Event(), out / path

    def watch(kept: int | None) -> None:
        while not done.wait(SECONDS):
            if (now := stamp()) not in (None, kept):
                with contextlib.suppress(UserError, OSError):  # then a retry has more to do again
                    remote.put(file, path)
                    kept = now

    def stamp() -> int | None:
        return file.stat().st_mtime_ns if file.exists() else None

    if path in remote.paths():
        remote.get(path, file)
    watcher = threading.Thread(target=watch, args=(stamp(),), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    remote.remove(path)
