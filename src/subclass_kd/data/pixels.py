"""The pixels of a samples table, decoded once and kept in a cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subclass_kd.cache import cache_folder
from subclass_kd.config import Data
from subclass_kd.cores import count_cores
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import Header, finish, read_header, read_image
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole

# How many images are done, of how many.
OnProgress = Callable[[int, int], None]
T = TypeVar("T")

_DECODER = 1  # to be raised when the same file becomes other pixels: what older versions cached is then left aside


def load_pixels(table: SampleTable, data: Data, on_progress: OnProgress | None = None) -> NDArray[np.uint8]:
    """Give all images of a table at the study's size and number of channels.

    Images that come decoded stay in memory. Files are decoded once: the pixels are a file of the cache folder, used
    again as long as no image file's name, size or time of change differs. Memory holds a few images at a time.

    Args:
        table: at least one row.
        data: ``size``, ``channels`` and ``white`` are read. Without size, all images must agree; without channels, all
            are colour if any is.
        on_progress: called in this thread after each image that is decoded.

    Returns:
        (N, C, H, W) uint8, row for row; of files, mapped from disk, and changes to it stay in memory.

    Raises:
        UserError: images cannot be read (the first, and how many more), have several sizes, or the cache folder cannot
            be written.
    """
    if not len(table):
        raise UserError(table.where, "no images", "at least one")
    if table.images is not None:
        return _fit(table.images, data.size, data.channels)
    path = cache_folder() / "pixels" / f"{_key(table, data)}.npy"
    if not _is_stored(path, len(table), data):
        with contextlib.suppress(OSError):  # what is wrong with the folder is told when the file is written
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # patients' images: for this user alone
        _store(table, data, path, on_progress)
    # Copy on write: torch warns of arrays that are read-only.
    return np.lib.format.open_memmap(path, mode="c")


def _fit(images: NDArray[np.uint8], size: int | None, channels: int | None) -> NDArray[np.uint8]:
    """Bring decoded images (N, C, H, W) to size and channels; they are themselves what comes back if they are so."""
    height, width = (size, size) if size else images.shape[2:]
    shape = (channels or images.shape[1], height, width)
    if images.shape[1:] == shape:
        return images
    from PIL import Image

    fitted = np.empty((len(images), *shape), dtype=np.uint8)
    for row, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        fitted[row] = finish(Image.fromarray(pixels), shape[0], size)
    return fitted


def _key(table: SampleTable, data: Data) -> str:
    root = _root(table).resolve()
    stamps = [_stamp(os.path.join(root, name)) for name in table.names]
    return fingerprint(_DECODER, str(root), table.names, stamps, data.size, data.channels, data.white)


def _root(table: SampleTable) -> Path:
    return table.root or Path()


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None  # decoding it will say why
    # The time of the last change too: copying tools set that of modification as they like.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_stored(path: Path, count: int, data: Data) -> bool:
    """Say whether the cache has a whole file of so many images, at the size and channels that are given."""
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
        length = path.stat().st_size
    except (OSError, ValueError):
        return False
    if stored.dtype != np.uint8 or stored.ndim != 4 or length != stored.offset + stored.size:
        return False
    channels = (data.channels,) if data.channels else (1, 3)
    fits = data.size is None or stored.shape[2:] == (data.size, data.size)
    return len(stored) == count and stored.shape[1] in channels and fits


def _store(table: SampleTable, data: Data, path: Path, on_progress: OnProgress | None) -> None:
    """Decode all images into a file; it appears if all of them can be read.

    Written in order, not through a map: on a full disk, a write to a map ends the process.
    """
    with ThreadPoolExecutor(count_cores()) as pool:
        failed: dict[int, UserError] = {}  # by row
        shape = _find_shape(table, data, pool, failed)

        def decode(row: int) -> NDArray[np.uint8] | UserError:
            if row in failed:
                return failed[row]
            image = _attempt(lambda: read_image(_path(table, row), shape[0], data.size, data.white))
            if isinstance(image, np.ndarray) and image.shape != shape:
                found = f"{image.shape[2]} x {image.shape[1]} pixels"
                return UserError(str(_path(table, row)), found, f"{shape[2]} x {shape[1]}, as its header says")
            return image

        try:
            with whole(path) as temporary, temporary.open("wb") as file:
                _check_space(path.parent, len(table) * int(np.prod(shape)))
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(table), *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for row, image in enumerate(_in_order(pool, decode, len(table))):
                    if isinstance(image, UserError):
                        failed[row] = image
                    elif not failed:
                        file.write(image.tobytes())
                    if on_progress is not None:
                        on_progress(row + 1, len(table))
                _raise_failed(table, failed)
        except OSError as error:
            found = f"a folder that cannot be written ({error.strerror or error})"
            raise _bad_folder(path.parent, found, "a place for decoded images") from None


def _find_shape(table: SampleTable, data: Data, pool: Executor, failed: dict[int, UserError]) -> tuple[int, int, int]:
    """Give (channels, height, width) as the study says or all headers do; rows whose header is bad go to ``failed``."""
    if data.size and data.channels:
        return data.channels, data.size, data.size
    sizes: Counter[tuple[int, int]] = Counter()
    channels = 1

    def read(row: int) -> Header | UserError:
        return _attempt(lambda: read_header(_path(table, row)))

    for row, header in enumerate(_in_order(pool, read, len(table))):
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


def _attempt(read: Callable[[], T]) -> T | UserError:
    try:
        return read()
    except UserError as error:
        return error


def _in_order(pool: Executor, work: Callable[[int], T], count: int) -> Iterator[T]:
    """Give ``work(0)``, ``work(1)``, ..., each started shortly before it is needed, so that few results wait."""
    ahead = 4 * count_cores()
    waiting: deque[Future[T]] = deque()
    for row in range(count):
        waiting.append(pool.submit(work, row))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _path(table: SampleTable, row: int) -> Path:
    return _root(table) / table.names[row]


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _bad_folder(folder, f"{free / 1e6:,.1f} MB free", f"{needed / 1e6:,.1f} MB for decoded images")


def _bad_folder(folder: Path, found: str, expected: str) -> UserError:
    return UserError(str(folder), found, expected, "Set SUBCLASS_KD_CACHE to a folder that can be written.")


def _raise_failed(table: SampleTable, failed: dict[int, UserError]) -> None:
    findings = Findings()
    for row, error in sorted(failed.items()):
        # A table's row is named beside the file.
        where = error.where if table.rows is None else f"{table.place(row)}, {error.where}"
        findings.error("unreadable image", where, error.found, error.expected, error.remedy)
    findings.raise_first()
