"""Images inside shards, which are uncompressed tar files: where each lies, and its bytes; nothing is unpacked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.errors import UserError
from subclass_kd.mirror import RemoteFolder

LARGEST = 1 << 30  # bytes of an image: its content is held as a whole, and no image that is read has more
# What ends the shard's part of a sample's name; no folder above a shard has such a name.
_END = re.compile(r"\.tar(?=/)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """An image file inside a shard; stands where a path does.

    Args:
        shard: the tar file, or its URL.
        name: of the member in it.
        first: where its bytes begin in the shard.
        size: how many there are.

    >>> print(Member("images/train-000.tar", "0001.jpg", 512, 2900))
    images/train-000.tar, 0001.jpg
    """

    shard: str
    name: str
    first: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}, {self.name}"

    def read(self) -> bytes:
        """Give its bytes.

        Raises:
            UserError: the shard has become shorter, or there are too many.
            OSError: it cannot be read.
        """
        if self.size > LARGEST:
            raise UserError(str(self), f"{self.size:,} bytes", f"at most {LARGEST:,}", "Save the image smaller.")
        if is_url(self.shard):
            folder, _, name = self.shard.rpartition("/")
            content = remote(folder).read(name, self.first, self.size)
        else:
            with open(self.shard, "rb") as file:
                file.seek(self.first)
                content = file.read(self.size)
        if len(content) < self.size:
            remedy = "It was longer when its members were found; fetch or save the shard again."
            raise UserError(str(self), "a shard that ends inside this image", "a whole shard", remedy)
        return content


Root = Path | str  # a folder, or a URL as text
AnyPath = Path | str | Member  # text where every microsecond counts: making a Path takes ten


def is_url(root: Root | None) -> bool:
    """Tell a folder in a store from one of this machine.

    >>> is_url("s3://bucket/images"), is_url(Path("images")), is_url("images")
    (True, False, False)
    """
    return isinstance(root, str) and "://" in root


@lru_cache(maxsize=16)
def remote(url: str) -> RemoteFolder:
    """Give the folder at a URL, whose connection this process keeps."""
    return RemoteFolder(url)


def path_of(root: Root | None, file: str) -> Path | str:
    """Give the path, or URL, of a file from the root; an absolute path stays what it is."""
    if isinstance(root, str) and is_url(root) and not Path(file).is_absolute():
        return f"{root.rstrip('/')}/{file}"
    return Path(root or "", file)


def split_name(name: str) -> tuple[str, str]:
    """Part a sample's name into that of its shard and that of the member.

    >>> split_name("train/000.tar/left/0001.jpg")
    ('train/000.tar', 'left/0001.jpg')
    """
    found = _END.search(name)
    end = found.end() if found else len(name)
    return name[:end], name[end + 1 :]


def locate(root: Root | None, name: str, span: NDArray[np.int64] | None) -> Path | Member:
    """Give what an image is read from.

    Args:
        root: the folder that names start from, or its URL.
        name: the path of a file, or that of a shard with the name of a member behind it.
        span: (2,) where a member begins in its shard and how long it is; negative, or None, for a file.
    """
    if span is None or span[0] < 0:
        return Path(root or "", name)
    shard, member = split_name(name)
    return Member(str(path_of(root, shard)), member, int(span[0]), int(span[1]))


def files_of(names: list[str], spans: NDArray[np.int64] | None) -> list[str]:
    """Give the file that each of N images lies in, from the root: itself, or its shard."""
    if spans is None:
        return names
    inside = (spans[:, 0] >= 0).tolist()
    return [split_name(name)[0] if is_member else name for name, is_member in zip(names, inside, strict=True)]
