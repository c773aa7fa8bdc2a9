"""One pass over the pixels of a samples table: what `skd check` needs to know of each image, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Data
from subclass_kd.cores import count_cores
from subclass_kd.data import duplicates
from subclass_kd.data.images import read_header, read_image
from subclass_kd.data.members import AnyPath
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError

CHUNK = 256  # so many images are handed to the threads at a time: an interrupt waits for no more of them


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one image, about 1 kB.

    Args:
        digest: of its pixels, as 8 bits at their own size: equal for copies, and for copies saved anew without loss.
        signature: what :func:`subclass_kd.data.duplicates.signature` gives.
        width, height: in pixels, upright.
        channels: 1 or 3, as stored.
        bits: 8, or 16 where the study's white decides what is shown.
        lowest, largest: of its values, 0 to 255.
        coloured: its channels differ.
    """

    digest: bytes
    signature: NDArray[np.float32]
    width: int
    height: int
    channels: int
    bits: int
    lowest: int
    largest: int
    coloured: bool


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of the N images of a table, row for row.

    Args:
        looks: of each image, or why it cannot be read.
    """

    looks: list[Look | UserError]

    def column(self, name: str) -> NDArray[np.int64]:
        """Give (N,) one of the numbers of each image; 0 of an image that cannot be read."""
        return np.array([0 if isinstance(look, UserError) else getattr(look, name) for look in self.looks], np.int64)

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """(N,) bool: all pixels of the image have one value."""
        return np.asarray((self.column("width") > 0) & (self.column("lowest") == self.column("largest")))

    @cached_property
    def copies(self) -> list[list[int]]:
        """Groups of rows with the same image; constant images, which are alike by nature, are left out."""
        rows = zip(self.looks, self.constant.tolist(), strict=True)
        return duplicates.exact(
            [None if constant or isinstance(look, UserError) else look.digest for look, constant in rows]
        )

    @cached_property
    def near(self) -> NDArray[np.int64]:
        """(P, 2) rows of nearly the same image; of copies the first one stands for all."""
        later = {row for group in self.copies for row in group[1:]}
        looks = [(row, look) for row, look in enumerate(self.looks) if isinstance(look, Look) and row not in later]
        if not looks:
            return np.empty((0, 2), dtype=np.int64)
        pairs = duplicates.near(np.stack([look.signature for _, look in looks]))
        return np.array([row for row, _ in looks], dtype=np.int64)[pairs]


def scan(table: SampleTable, data: Data, on_progress: Callable[[int, int], None] | None = None) -> Scan:
    """Decode every image once, at its own size, and keep what tells duplicates and oddities.

    Memory holds one image for each thread, and about 1 kB for each row.

    Args:
        table: N rows.
        data: ``white`` is read.
        on_progress: called in this thread with (done, N).
    """
    looks: list[Look | UserError] = []
    with ThreadPoolExecutor(count_cores()) as pool:
        for start in range(0, len(table), CHUNK):
            rows = range(start, min(start + CHUNK, len(table)))
            for look in pool.map(lambda row: _look(table, data, row), rows):
                looks.append(look)
                if on_progress is not None:
                    on_progress(len(looks), len(table))
    return Scan(looks)


def _look(table: SampleTable, data: Data, row: int) -> Look | UserError:
    if table.images is not None:
        return describe(table.images[row], bits=8)
    try:
        return look_at(table.path(row), data.white)[0]
    except UserError as error:
        return error


def look_at(path: AnyPath, white: int) -> tuple[Look, NDArray[np.uint8]]:
    """Decode an image at its own size, look at it, and give it too, (C, H, W).

    Raises:
        UserError: as :func:`subclass_kd.data.images.read_image`.
    """
    header = read_header(path)
    image = read_image(path, header.channels, None, white)
    return describe(image, header.bits), image


def describe(image: NDArray[np.uint8], bits: int) -> Look:
    """Look at one decoded image.

    Args:
        image: (C, H, W), C 1 or 3.
        bits: as its file has them.

    >>> describe(np.full((3, 8, 9), 5, np.uint8), bits=8).coloured
    False
    """
    from PIL import Image

    channels, height, width = image.shape
    coloured = channels == 3 and not (np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2]))
    # Grey saved as colour is the same image as grey.
    pixels = np.ascontiguousarray(image if coloured else image[:1])
    digest = hashlib.blake2b(pixels.data, digest_size=16, person=f"{height} {width}".encode())
    grey = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L")) if coloured else pixels[0]
    return Look(
        digest=digest.digest(),
        signature=duplicates.signature(grey),
        width=width,
        height=height,
        channels=channels,
        bits=bits,
        lowest=int(pixels.min()),
        largest=int(pixels.max()),
        coloured=coloured,
    )
