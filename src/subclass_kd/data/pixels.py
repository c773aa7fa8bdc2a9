"""The pixels of a samples table, decoded once and kept in a cache folder, checked whenever they are used again."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.cache import cache_folder
from subclass_kd.config import Data
from subclass_kd.data import index
from subclass_kd.data.decoding import OnProgress, decode, is_too_large
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import refit
from subclass_kd.data.index import Index
from subclass_kd.data.members import Root, files_of, path_of
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.rows import Images
from subclass_kd.data.scan import Look
from subclass_kd.data.shard_index import TOGETHER, Mark, stamp
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint

_DECODER = 2  # to be raised when the same file becomes other pixels: what older versions cached is then left aside


def load_pixels(
    table: SampleTable,
    data: Data,
    on_progress: OnProgress | None = None,
    findings: Findings | None = None,
    verify: bool = True,
    looks: list[Look] | None = None,
) -> tuple[Images, Index]:
    """Give all images of a table at the study's size and number of channels.

    Images that come decoded stay in memory. Files are decoded once: the pixels are a file of the cache folder, with
    an index of digests beside it, used again as long as no image file's name, size or time of change differs and the
    pixels are those of the digests. A store that would be larger than ``data.store_limit`` is not made: then only the
    index is kept. Memory holds a few images at a time.

    Args:
        table: at least one row.
        data: ``size``, ``channels``, ``white`` and ``store_limit`` are read. Without size, all images must agree;
            without channels, all are colour if any is.
        on_progress: called in this thread after each image that is decoded.
        findings: takes the warning that stored pixels were damaged, and decoded again.
        verify: hold stored pixels against their digests, which reads them all once; a worker process need not do again
            what the main process has just done.
        looks: filled with what a check needs to know of each image, if files are decoded now: once serves both.

    Returns:
        The images, (N, C, H, W) uint8 row for row, and their index. They are in memory, mapped from disk (and not
        to be changed), or files that are decoded for the rows that are asked for.

    Raises:
        UserError: images cannot be read (the first, and how many more), have several sizes, or the cache folder cannot
            be written.
    """
    if not len(table):
        raise UserError(table.where, "no images", "at least one")
    if table.images is not None:
        images = _fit(table.images, data.size, data.channels)
        return images, index.make(images)
    folder, name = cache_folder() / "pixels", _key(table, data)
    path, beside = folder / f"{name}.npy", folder / f"{name}.index.npz"
    known = index.read(beside, len(table))
    stored = _find(path, known, table, data, verify)
    if stored is not None:
        return stored
    if known is not None and path.exists() and findings is not None:
        remedy = "They were decoded again. If this comes back, look at the disk."
        findings.warning("damaged cache", str(path), "other pixels than were stored", "decoded images", remedy)
    try:
        with contextlib.suppress(OSError):  # what is wrong with the folder is told when a file is written
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # patients' images: for this user alone
        known = decode(table, data, path, on_progress, looks)
        index.write(beside, known)
    except OSError as error:
        found = f"a folder that cannot be written ({error.strerror or error})"
        remedy = "Give --cache (or set SUBCLASS_KD_CACHE to) a folder that can be written."
        raise UserError(str(folder), found, "a place for decoded images", remedy) from None
    made = _find(path, known, table, data, verify=False)
    if made is None:
        raise UserError(str(path), "a file that changed while it was made", "nobody else to write there", "Run again.")
    return made


def _fit(images: NDArray[np.uint8], size: int | None, channels: int | None) -> NDArray[np.uint8]:
    """Bring decoded images (N, C, H, W) to size and channels; they are themselves what comes back if they are so."""
    height, width = (size, size) if size else images.shape[2:]
    shape = (channels or images.shape[1], height, width)
    if images.shape[1:] == shape:
        return images
    fitted = np.empty((len(images), *shape), dtype=np.uint8)
    for row, image in enumerate(images):
        fitted[row] = refit(image, shape[0], size)
    return fitted


def _key(table: SampleTable, data: Data) -> str:
    root = _root(table)
    root = root.resolve() if isinstance(root, Path) else root
    if table.spans is None:
        stamps = [stamp(os.path.join(root, name)) for name in table.names]
    else:
        stamps = _stamp_each(root, files_of(table.names, table.spans))
    # Another Pillow may decode a JPEG to other pixels.
    decoder = [_DECODER, version("pillow")]
    places = [] if table.spans is None else [table.spans.tobytes()]
    return fingerprint(decoder, str(root), table.names, stamps, data.size, data.channels, data.white, *places)


def _stamp_each(root: Root, files: list[str]) -> list[Mark | None]:
    """Look at each shard once, not for each image in it, and at several together: they may be far away."""
    distinct = [*dict.fromkeys(files)]
    with ThreadPoolExecutor(TOGETHER) as pool:
        seen = dict(zip(distinct, pool.map(lambda file: stamp(path_of(root, file)), distinct), strict=True))
    return [seen[file] for file in files]


def _root(table: SampleTable) -> Root:
    return table.root or Path()


def _find(path: Path, known: Index | None, table: SampleTable, data: Data, verify: bool) -> tuple[Images, Index] | None:
    """Give the images of an index: files where they are too many to store, else what is stored; None if it is not."""
    if known is None:
        return None
    if is_too_large(len(known), known.shape, data):
        return OnDemand(_root(table), table.names, known, data.size, data.white, table.spans), known
    try:
        # Read-only: for a map that may be written, the system wants as much memory as the file is long.
        mapped = np.lib.format.open_memmap(path, mode="r")
        length = path.stat().st_size
    except (OSError, ValueError):
        return None
    images = np.asarray(mapped)  # a plain array, whose rows are found faster
    if images.dtype != np.uint8 or images.shape != (len(known), *known.shape):
        return None
    if length != mapped.offset + images.size or (verify and not index.agrees(known, images)):
        return None
    return images, known
