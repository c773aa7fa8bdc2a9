"""What a shard holds, by its headers: found once, kept in the cache folder, used again while the shard stays."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from subclass_kd.cache import cache_folder
from subclass_kd.data.members import is_url, remote
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole

_VERSION = 1  # to be raised when the same shard becomes other entries: what older versions cached is then left aside
_BLOCK = 512  # bytes of a header, and what members are filled up to
TEXTS = (".json", ".cls")  # members whose text is kept with the headers
LARGEST_TEXT = 1 << 20  # bytes of such a member
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstandard",
}  # fmt: skip
_EXPECTED = "an uncompressed tar file"
_AGAIN = "Fetch or write the shard again."

TOGETHER = 8  # shards that are looked at side by side: in a store each answer takes its time

Mark = tuple[int, ...] | tuple[str]  # size and times of a file, or what its store says


class Entry(NamedTuple):
    """One member of a shard, but for folders.

    Args:
        name: as the shard has it; bytes that are not UTF-8 come as lone surrogates.
        odd: what it is where it is no plain file: "a link", "a device or a pipe", "a sparse file"; else "".
        first: where its bytes begin in the shard.
        size: how many there are.
        text: the content of a small .json or .cls, not UTF-8 as in ``name``; None of others.
    """

    name: str
    odd: str
    first: int
    size: int
    text: str | None


def stamp(path: Path | str) -> Mark | None:
    """Give what changes when a file does; None if there is none.

    Raises:
        UserError: it is a URL whose store does not answer.
    """
    if is_url(path):
        folder, _, name = str(path).rpartition("/")
        return (remote(folder).stamp(name),)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None  # reading it will say why
    # The time of the last change too: copying tools set that of modification as they like.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def entries(shard: Path | str) -> list[Entry]:
    """List the members of a shard, a path or a URL, in its order.

    Raises:
        UserError: it is no tar file, compressed, cut short or damaged, or cannot be read.
    """
    path = str(shard) if is_url(shard) else os.path.realpath(shard)
    folder, mark = cache_folder() / "shards", stamp(path)
    beside = folder / f"{fingerprint(_VERSION, path)}.npz"
    known = None if mark is None else read(beside, mark)
    if known is not None:
        return known
    try:
        with _open(path) as file:
            found = _scan(file, str(shard))
    except OSError as error:
        raise UserError(str(shard), f"a file that cannot be read ({error.strerror or error})", _EXPECTED) from None
    if mark is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it has labels of patients: for this user alone
            write(beside, mark, found)
    return found


def _open(path: str) -> BinaryIO:
    if is_url(path):
        folder, _, name = path.rpartition("/")
        return remote(folder).open(name)
    return open(path, "rb")


def write(path: Path, mark: Mark, found: list[Entry]) -> None:
    """Write entries as a zip archive of .npy files, which has check sums of its own; whole or not at all."""
    text = json.dumps([mark, [(entry.name, entry.odd, entry.text) for entry in found]])
    spans = np.array([(entry.first, entry.size) for entry in found], dtype=np.int64).reshape(-1, 2)
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, spans=spans, text=np.frombuffer(text.encode(), np.uint8))


def read(path: Path, mark: Mark) -> list[Entry] | None:
    """Read the entries of a shard, or give None if they are missing, damaged, or of another state of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path, allow_pickle=False) as stored:
            spans, (marked, texts) = stored["spans"].tolist(), json.loads(stored["text"].tobytes())
        if tuple(marked) != mark:
            return None
        return [
            Entry(name, odd, first, size, text) for (name, odd, text), (first, size) in zip(texts, spans, strict=True)
        ]
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None


def _scan(file: BinaryIO, where: str) -> list[Entry]:
    """Read all headers, and the small texts; of other members not a byte."""
    first = file.read(6)
    kind = next((kind for magic, kind in _COMPRESSED.items() if first.startswith(magic)), None)
    if kind is not None:
        remedy = (
            "Decompress it: images are read from their places in the shard, and gain nothing from a second packing."
        )
        raise UserError(where, f"a file that {kind} has compressed", _EXPECTED, remedy)
    file.seek(0)
    found: list[Entry] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if info.size < 0 or (found and info.offset_data <= found[-1].first):
                    raise tarfile.ReadError("a header that leads back")
                if not info.isdir():
                    found.append(_entry(info, file))
            end = archive.offset
        _check_end(file, end, where)
    except (UserError, OSError):
        raise
    except Exception as error:  # what the parts of a damaged header raise
        kind = "whole tar file" if found else "tar file"
        raise UserError(where, f"a file that is no {kind} ({error})", "a whole tar file", _AGAIN) from None
    return found


def _entry(info: tarfile.TarInfo, file: BinaryIO) -> Entry:
    odd, text = "", None
    if info.issym() or info.islnk():
        odd = "a link"
    elif not info.isreg():
        odd = "a device or a pipe"
    elif info.issparse():
        odd = "a sparse file"
    elif info.size <= LARGEST_TEXT and info.name.lower().endswith(TEXTS):
        file.seek(info.offset_data)
        text = file.read(info.size).decode("utf-8", "surrogateescape")
    return Entry(info.name, odd, info.offset_data, info.size, text)


def _check_end(file: BinaryIO, end: int, where: str) -> None:
    """Demand zeros from where the last member ends, at least a block: tarfile itself takes any damage for the end."""
    file.seek(end)
    block = file.read(_BLOCK)
    if not block:
        found = f"a shard without the mark of its end, at byte {end:,}: it may have been cut short"
        raise UserError(where, found, "a whole tar file", _AGAIN)
    if any(block):
        raise UserError(where, f"no header of a member at byte {end:,}", "a whole tar file", _AGAIN)
    while block := file.read(1 << 16):
        if block.strip(b"\0"):
            remedy = "Write each archive into a file of its own; other tools too pass over what follows."
            raise UserError(where, "more data behind the mark of its end", "one tar archive", remedy)
