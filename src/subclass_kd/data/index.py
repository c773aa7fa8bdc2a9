"""What is known of decoded images without reading their pixels again: digests, and sums for mean and spread."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subclass_kd.ahead import in_order
from subclass_kd.cores import count_cores
from subclass_kd.files import fingerprint, whole

T = TypeVar("T")
DIGEST = 16  # bytes
CHUNK = 2_000_000  # bytes of pixels that a thread takes at a time


@dataclass(frozen=True, eq=False)
class Index:
    """Digests and sums of N images.

    Args:
        shape: of each image, (C, H, W).
        digests: (N, 16) uint8: the first half of SHA-256 of each image's pixels.
        sums: (N, C, 2) int64: of each channel's pixels, and of their squares.
    """

    shape: tuple[int, int, int]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when any pixel does, wherever the pixels are kept."""
        return fingerprint(list(self.shape), self.digests.tobytes())

    def mean_and_std(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give mean and spread (C,) of some images' pixels in [0, 1]; the spread is at least 1e-3."""
        totals: list[list[int]] = self.sums[rows].sum(0).tolist()  # (C, 2): exact, up to 10^14 pixels
        count = len(rows) * self.shape[1] * self.shape[2]
        mean = np.array([total / (255 * count) for total, _ in totals])
        variance = [(count * squares - total * total) / (255 * count) ** 2 for total, squares in totals]
        std = np.sqrt(np.maximum(variance, 1e-6))
        return mean.astype(np.float32), std.astype(np.float32)


def digest(image: NDArray[np.uint8]) -> bytes:
    """Digest one image (C, H, W), contiguous."""
    return hashlib.sha256(image.data).digest()[:DIGEST]


def digests(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Digest images (B, C, H, W): (B, 16)."""
    found = b"".join([digest(image) for image in np.ascontiguousarray(images)])
    return np.frombuffer(found, np.uint8).reshape(-1, DIGEST)


def sums(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sum pixels and their squares, for images (B, C, H, W): (B, C, 2), exact.

    >>> sums(np.full((1, 1, 8, 8), 255, np.uint8)).tolist()
    [[[16320, 4161600]]]
    """
    flat = images.reshape(*images.shape[:2], -1)
    squares = np.square(flat, dtype=np.uint16)  # 255 * 255 fits
    return np.stack([flat.sum(-1, dtype=np.int64), squares.sum(-1, dtype=np.int64)], axis=-1)


def make(images: NDArray[np.uint8]) -> Index:
    """Make the index of images (N, C, H, W)."""
    parts = _by_chunk(images, lambda chunk: (digests(chunk), sums(chunk)))
    _, channels, height, width = images.shape
    shape = channels, height, width
    return Index(shape, np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def agrees(index: Index, images: NDArray[np.uint8]) -> bool:
    """Say whether images (N, C, H, W) are those of an index; each is read once, memory stays what it is."""
    if images.shape != (len(index), *index.shape):
        return False
    return np.array_equal(np.concatenate(_by_chunk(images, digests)), index.digests)


def _by_chunk(images: NDArray[np.uint8], look: Callable[[NDArray[np.uint8]], T]) -> list[T]:
    step = max(1, CHUNK // max(1, images[0].size))
    starts, cores = range(0, len(images), step), count_cores()
    with ThreadPoolExecutor(cores) as pool:
        return list(in_order(pool, lambda n: look(images[starts[n] : starts[n] + step]), len(starts), 2 * cores))


def write(path: Path, index: Index) -> None:
    """Write an index as a zip archive of .npy files, which has check sums of its own; whole or not at all."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, shape=np.array(index.shape), digests=index.digests, sums=index.sums)


def read(path: Path, count: int) -> Index | None:
    """Read the index of so many images, or give None if it is missing, damaged or of others."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path, allow_pickle=False) as stored:
            shape, digests, sums = stored["shape"], stored["digests"], stored["sums"]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None
    if shape.shape != (3,) or digests.shape != (count, DIGEST) or sums.shape != (count, shape[0], 2):
        return None
    return Index((int(shape[0]), int(shape[1]), int(shape[2])), digests, sums)
