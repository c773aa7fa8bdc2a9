"""Image files to rows of predictions, a few images in memory at a time. torch is never loaded."""

from __future__ import annotations

import csv
import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subclass_kd.bundle import Bundle
from subclass_kd.cores import count_cores
from subclass_kd.data.images import EXTENSIONS, quiet
from subclass_kd.errors import UserError, nearest
from subclass_kd.prediction_files import Row, Write

LISTS = {".csv": ",", ".tsv": "\t"}  # files of paths
BATCH = 32
_PASSED_OVER = {"__macosx", "thumbs.db", "desktop.ini"}  # as in a study's folder


class Done(NamedTuple):
    """How many images were asked about, and of how many that failed."""

    images: int
    errors: int


def columns(bundle: Bundle) -> tuple[list[str], list[str]]:
    """Name the columns of text, the error last, and those of probabilities, for a bundle's predictions."""
    classes, subclasses = (
        [f"{kind}: {name}" for name in names]
        for kind, names in (("class", bundle.classes), ("subclass", bundle.subclasses))
    )
    return ["path", "decision", "error"], [*classes, *subclasses]


def predict_files(
    bundle: Bundle, paths: Iterable[str], write: Write, on_progress: Callable[[int], None] | None = None
) -> Done:
    """Ask a bundle about image files, in their order; one that cannot be read becomes a row with its error.

    As many threads as there are cores each decode and answer batches of their own, so that none waits for another; the
    bundle is best opened with one thread.

    Args:
        bundle: whose student answers.
        paths: of files; never held all at once.
        write: called with the rows of each batch, in order: ``path``, ``decision``, a probability for each class and
            subclass, ``error``. Without an error, that is None; with one, all but the path are.
        on_progress: called with the number of images done, after each batch.
    """
    images = errors = 0
    with ThreadPoolExecutor(count_cores()) as pool:
        for rows in _ahead(pool, lambda some: _rows(bundle, some), _batches(paths, BATCH), 2 * count_cores()):
            write(rows)
            images += len(rows)
            errors += sum(row["error"] is not None for row in rows)
            if on_progress is not None:
                on_progress(images)
    return Done(images, errors)


def find_images(sources: Sequence[str], column: str | None = None) -> Iterator[str]:
    """Give the paths of images, as they are found: no list of them is made.

    Args:
        sources: each a file, a folder (all images in it and its folders, sorted; other files are passed over), a
            pattern as of a shell, with ``**`` for any folders, or a CSV or TSV file of paths, which start at its
            folder.
        column: of such a file; "path" if not given, or the only one.

    Raises:
        UserError: there is nothing of that name, a folder cannot be read, or a list has no such column.
    """
    for source in sources:
        yield from _find(source, column)


def check_sources(sources: Sequence[str], column: str | None = None) -> None:
    """Look for an image in each source, any one, so that what is wrong shows before anything is predicted.

    Raises:
        UserError: as :func:`find_images`, or a source has no image.
    """
    for source in sources:
        if next(_find(source, column, in_order=False), None) is None:
            raise UserError(source, "no image", "images", f"Read are {', '.join(sorted(EXTENSIONS))}.")


def _find(source: str, column: str | None, in_order: bool = True) -> Iterator[str]:
    if os.path.isdir(source):
        yield from _walk(source, in_order)
    elif os.path.lexists(source):
        yield from _listed(source, column) if Path(source).suffix.lower() in LISTS else [source]
    elif glob.has_magic(source):
        found = glob.iglob(source, recursive=True)
        for path in sorted(found) if in_order else found:
            if not os.path.isdir(path):
                yield path
    else:
        raise UserError(source, "no such file", "an image, a folder, a pattern, or a CSV file of paths", "Check it.")


def _walk(folder: str, in_order: bool) -> Iterator[str]:
    """Give the images in a folder and in its folders, each folder's in order; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=attrgetter("name")) if in_order else entries:
                if entry.name.startswith(".") or entry.name.lower() in _PASSED_OVER:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, in_order)
                elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and not entry.is_dir():
                    yield entry.path
    except OSError as error:
        raise UserError(folder, error.strerror or str(error), "a folder that can be read") from None


def _listed(source: str, column: str | None) -> Iterator[str]:
    """Give the paths of a CSV or TSV file."""
    folder, delimiter = os.path.dirname(source), LISTS[Path(source).suffix.lower()]
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(rows, [])
            wanted = column or "path"
            if wanted not in header:
                found = f"the columns {', '.join(header)}" if header else "an empty file"
                remedy = f"{nearest(wanted, header)} Give --column.".strip()
                raise UserError(source, found, f'a column "{wanted}" of paths', remedy)
            place = header.index(wanted)
            for row in rows:
                if row:
                    yield os.path.join(folder, row[place]) if place < len(row) else folder
    except UnicodeDecodeError as error:
        raise UserError(source, f"a byte that is not UTF-8 at {error.start}", "UTF-8 text") from None
    except csv.Error as error:
        raise UserError(source, f"text that is no CSV ({error})", "a table of paths") from None
    except OSError as error:
        raise UserError(source, error.strerror or str(error), "a file that can be read") from None


def _decode(bundle: Bundle, paths: list[str]) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Give the pixels (n, C, H, W) of those that can be read, and of each path what is wrong, or None."""
    images: list[NDArray[np.uint8]] = []
    errors: list[str | None] = []
    with quiet():  # once for all: it costs as much as a tenth of a small image's decoding
        for path in paths:
            try:
                images.append(bundle.read(path))
                errors.append(None)
            except UserError as error:
                errors.append(error.what)
    pixels = np.stack(images) if images else np.empty((0, *bundle.shape), dtype=np.uint8)
    return pixels, errors


def _rows(bundle: Bundle, paths: list[str]) -> list[Row]:
    pixels, errors = _decode(bundle, paths)
    answer = bundle.answer(pixels)
    names = ["path", "decision", *columns(bundle)[1], "error"]
    both = [answer.class_probs] if answer.subclass_probs is None else [answer.class_probs, answer.subclass_probs]
    probs = iter(np.concatenate(both, axis=1).tolist())
    decisions = iter(answer.decisions.tolist())
    rows: list[Row] = []
    for path, error in zip(paths, errors, strict=True):
        if error is None:
            row = dict(zip(names, (path, bundle.classes[next(decisions)], *next(probs), None), strict=True))
        else:
            row = dict.fromkeys(names) | {"path": path, "error": error}
        rows.append(row)
    return rows


def _batches(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(paths)
    while batch := list(islice(iterator, size)):
        yield batch


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[list[str]], list[Row]], items: Iterator[list[str]], ahead: int
) -> Iterator[list[Row]]:
    """Give the work of each item in order, a few of them started ahead; how many there are need not be known."""
    waiting: deque[Future[list[Row]]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
