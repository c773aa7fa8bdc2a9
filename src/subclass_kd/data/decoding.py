"""All image files of a table decoded in one parallel pass, into a file or only into an index."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subclass_kd.ahead import in_order
from subclass_kd.config import Data
from subclass_kd.cores import count_cores
from subclass_kd.data import index
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import Header, read_header, read_image, refit
from subclass_kd.data.index import Index
from subclass_kd.data.scan import Look, look_at
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError
from subclass_kd.files import remove_left, whole

# How many images are done, of how many.
OnProgress = Callable[[int, int], None]
CHUNK = 250_000  # bytes of pixels that a thread decodes at a time, or one image
MOST_TOGETHER = 16  # images; an interrupt waits for no more
AHEAD = 2 * count_cores()  # such chunks that wait to be written


class _Chunk(NamedTuple):
    """Some images in a row, and what is known of them; of those that cannot be read, why not, by row."""

    images: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]
    looks: list[Look]
    failed: dict[int, UserError]


def decode(
    table: SampleTable, data: Data, path: Path, on_progress: OnProgress | None, looks: list[Look] | None = None
) -> Index:
    """Decode all images of a table; if all can be read, write them into a file, unless it would be too large.

    Memory holds a few images at a time.

    Args:
        table: rows of files.
        data: ``size``, ``channels``, ``white`` and ``store_limit`` are read.
        path: the file, a .npy of (N, C, H, W) uint8; it appears whole or not at all.
        on_progress: called in this thread after each image.
        looks: filled with what a check needs to know of each image, about 1 kB; None if nobody asks.

    Raises:
        UserError: as :func:`subclass_kd.data.pixels.load_pixels`.
        OSError: the file cannot be written.
    """
    count, done = len(table), 0
    digests: list[NDArray[np.uint8]] = []
    sums: list[NDArray[np.int64]] = []
    with ThreadPoolExecutor(count_cores()) as pool:
        failed: dict[int, UserError] = {}  # by row
        shape = _find_shape(table, data, pool, failed)
        # Small images several at a time: a thread's hand-over costs more than the pixels of one.
        step = max(1, min(MOST_TOGETHER, CHUNK // max(1, int(np.prod(shape)))))

        def read(number: int) -> _Chunk:
            rows = range(number * step, min(count, (number + 1) * step))
            return _read(table, data, rows, shape, failed, looks is not None)

        with _writing(path, (count, *shape), is_too_large(count, shape, data)) as file:
            for chunk in in_order(pool, read, -(-count // step), AHEAD):
                failed |= chunk.failed
                digests.append(chunk.digests)
                sums.append(chunk.sums)
                if looks is not None:
                    looks.extend(chunk.looks)
                if file is not None and not failed:
                    file.write(chunk.images.data)
                for _ in chunk.images:
                    done += 1
                    if on_progress is not None:
                        on_progress(done, count)
            _raise_failed(table, failed)
    return Index(shape, np.concatenate(digests), np.concatenate(sums))


def _read(
    table: SampleTable, data: Data, rows: range, shape: tuple[int, int, int], failed: dict[int, UserError], look: bool
) -> _Chunk:
    """Decode the images of some rows; those that have failed before fail again."""
    images, errors = np.zeros((len(rows), *shape), dtype=np.uint8), {}
    looks: list[Look] = []

    def read(row: int) -> NDArray[np.uint8]:
        path = table.path(row)
        if row in failed:
            raise failed[row]
        if look:
            seen, whole_image = look_at(path, data.white)
            looks.append(seen)
            image = refit(whole_image, shape[0], data.size)
        else:
            image = read_image(path, shape[0], data.size, data.white)
        if image.shape != shape:
            found = f"{image.shape[2]} x {image.shape[1]} pixels"
            raise UserError(str(path), found, f"{shape[2]} x {shape[1]}, as its header says")
        return image

    for place, row in enumerate(rows):
        try:
            images[place] = read(row)
        except UserError as error:
            errors[row] = error
    return _Chunk(images, index.digests(images), index.sums(images), looks, errors)


def is_too_large(count: int, shape: tuple[int, int, int], data: Data) -> bool:
    """Say whether so many images of a shape are more than the user lets a store have."""
    return count * int(np.prod(shape)) > data.store_limit * 1e9


@contextmanager
def _writing(path: Path, shape: tuple[int, ...], nothing: bool) -> Iterator[BinaryIO | None]:
    """Give a file to write pixels of (N, C, H, W) to, behind the header of a .npy; or None.

    Written in order, not through a map: on a full disk, a write to a map ends the process. What processes left in the
    folder that were killed while they did so goes first: each may be as large as the disk.
    """
    remove_left(path.parent)
    if nothing:
        yield None
        return
    with whole(path) as temporary, temporary.open("wb") as file:
        free, needed = shutil.disk_usage(path.parent).free, int(np.prod(shape))
        if free < needed:
            remedy = "Give --cache a folder with more, or decode at each epoch: data.store_limit: 0."
            expected = f"{needed / 1e6:,.1f} MB for decoded images"
            raise UserError(str(path.parent), f"{free / 1e6:,.1f} MB free", expected, remedy)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        yield file


def _find_shape(table: SampleTable, data: Data, pool: Executor, failed: dict[int, UserError]) -> tuple[int, int, int]:
    """Give (channels, height, width) as the study says or all headers do; rows whose header is bad go to ``failed``."""
    if data.size and data.channels:
        return data.channels, data.size, data.size
    sizes: Counter[tuple[int, int]] = Counter()
    channels = 1

    def read(row: int) -> Header | UserError:
        try:
            return read_header(table.path(row))
        except UserError as error:
            return error

    for row, header in enumerate(in_order(pool, read, len(table), AHEAD)):
        if isinstance(header, UserError):
            failed[row] = header
        else:
            sizes[header.width, header.height] += 1
            channels = max(channels, header.channels)
    if data.size is None and len(sizes) > 1:
        most = ", ".join(f"{count:,} of {w} x {h}" for (w, h), count in sizes.most_common(2))
        found = f"images of {len(sizes)} sizes: {most}{', others' if len(sizes) > 2 else ''}"
        raise UserError(table.where, found, "one size", "Set data.size.")
    width, height = (data.size, data.size) if data.size else next(iter(sizes), (0, 0))  # none: every row has failed
    return data.channels or channels, height, width


def _raise_failed(table: SampleTable, failed: dict[int, UserError]) -> None:
    findings = Findings()
    for row, error in sorted(failed.items()):
        # A table's row is named beside the file.
        where = error.where if table.rows is None else f"{table.place(row)}, {error.where}"
        findings.error("unreadable image", where, error.found, error.expected, error.remedy)
    findings.raise_first()
