"""What is wrong with images themselves: unreadable, there twice, constant, of odd size, too dark."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Data
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import DICOM_EXTENSIONS
from subclass_kd.data.rows import Rows
from subclass_kd.data.scan import Look, Scan
from subclass_kd.errors import UserError

LONGEST_SIDE = 1.5  # times the shorter: what is longer is squashed visibly
MOST_ALIKE = 0.1  # of the images in near duplicates that matter: above it they are reported together
Bools = NDArray[np.bool_]


def check_pixels(rows: Rows, found: Scan, data: Data, findings: Findings) -> None:
    """Note what is wrong with the images themselves.

    Args:
        rows: N of them.
        found: what a scan of ``rows.table`` gave.
        data: ``size``, ``channels`` and ``white`` are read.
        findings: takes errors and warnings; docs/check.md says which is which.
    """
    table = rows.table
    for row, look in enumerate(found.looks):
        if isinstance(look, UserError):
            where = look.where if table.rows is None else f"{table.place(row)}, {look.where}"
            findings.error("unreadable image", where, look.found, look.expected, look.remedy)
    _check_copies(rows, found, findings)
    _check_near(rows, found, findings)
    lowest = found.column("lowest")
    for row in np.flatnonzero(found.constant).tolist():
        expected, remedy = "an image that shows something", "Look at it, and remove it."
        findings.warning(
            "constant image", table.place(row), f"the value {lowest[row]} in every pixel", expected, remedy
        )
    if table.images is None:
        _check_sizes(rows, found, data, findings)
        _check_values(rows, found, data, findings)


def _check_copies(rows: Rows, found: Scan, findings: Findings) -> None:
    """Copies are errors where they make the test easier or a label doubtful; in sets that come decoded, warnings."""
    table, hierarchy = rows.table, rows.hierarchy
    note = findings.error if table.images is None else findings.warning
    tested, seen = _sides(rows)
    for group in found.copies:
        first, shown = group[0], _names(rows, group[1:])
        labels = sorted({hierarchy.subclasses[rows.subclass_labels[row]] for row in group if row < rows.named})
        across = bool(tested[group].any() and seen[group].any())
        if len(labels) > 1:
            text = f"the same image as {shown}, as {' and '.join(_quote(name) for name in labels)}"
            note("duplicate with another label", table.place(first), text, "one label", "Correct one, or remove both.")
        if across:
            test = next(row for row in group if tested[row])
            other = [row for row in group if seen[row]]
            text = f"a test image that training has as {_names(rows, other)}"
            expected, remedy = "test images that training has not seen", "Remove one of them."
            note("duplicate across splits", table.place(test), text, expected, remedy)
        if len(labels) <= 1 and not across:
            patients = len({table.groups[row] for row in group}) if table.groups is not None else 1
            text = f"the same image as {shown}" + (f", in {patients} groups" if patients > 1 else "")
            remedy = "Remove all but one: it counts more than others."
            findings.warning("duplicate image", table.place(first), text, "each image once", remedy)


def _check_near(rows: Rows, found: Scan, findings: Findings) -> None:
    """Warn of near duplicates that matter: one by one, or all at once where nearly every image has one."""
    (tested, seen), labels, names = _sides(rows), rows.subclass_labels, rows.hierarchy.subclasses
    pairs = found.near
    one, two = pairs[:, 0], pairs[:, 1]
    across, unlike = (tested[one] & seen[two]) | (seen[one] & tested[two]), labels[one] != labels[two]
    unlike &= (pairs < rows.named).all(1)  # others have no label
    expected = "different images; these may be one, saved, resized or cropped anew"
    involved = len(np.unique(pairs[across | unlike])) / len(rows.table)
    if involved > MOST_ALIKE:
        text = f"{100 * involved:.0f} % of the images much like another across splits or of another label, such as "
        first = int((across | unlike).argmax())
        remedy = "Simple pictures, such as outlines, are alike by nature; else look for copies."
        text += " and ".join(rows.table.names[row] for row in pairs[first].tolist())
        findings.warning("many near duplicates", rows.table.where, text, expected, remedy)
        return
    for pair, is_across, is_unlike in zip(pairs.tolist(), across.tolist(), unlike.tolist(), strict=True):
        row, other = sorted(pair, key=lambda row: not tested[row])  # the test image first
        if is_across:
            text, remedy = f"a test image much like {_names(rows, [other])} of training", "Compare; remove one if so."
            findings.warning("near duplicate across splits", rows.table.place(row), text, expected, remedy)
        if is_unlike:
            text = f'an image of "{names[labels[row]]}" much like {_names(rows, [other])} of "{names[labels[other]]}"'
            remedy = "Compare; correct the label if so."
            findings.warning("near duplicate with another label", rows.table.place(row), text, expected, remedy)


def _sides(rows: Rows) -> tuple[Bools, Bools]:
    """Tell the test rows, and those that have a part in training, (N,) each; some rows may have no part in anything.

    Validation images choose epochs, and a teacher speaks of unlabelled ones: both count as training here.
    """
    every = np.arange(len(rows.table))
    unlabelled = every[:0] if rows.unlabelled is None else rows.unlabelled
    return np.isin(every, rows.test), np.isin(every, np.concatenate([rows.train, rows.validation, unlabelled]))


def _check_sizes(rows: Rows, found: Scan, data: Data, findings: Findings) -> None:
    where, sizes = rows.table.where, count_sizes(found)
    if data.size is None:
        if len(sizes) > 1:
            shown = ", ".join(f"{count:,} of {width} x {height}" for (width, height), count in sizes.most_common(3))
            more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
            findings.error("different sizes", where, f"{shown}{more} pixels", "one size", "Set data.size.")
        return
    width, height = found.column("width"), found.column("height")
    readable, shorter, longer = width > 0, np.minimum(width, height), np.maximum(width, height)
    text, rest = _several(rows, found, readable & (longer > LONGEST_SIDE * shorter)), "sides that differ less"
    if text:
        remedy = "They are squashed to a square; crop them first if shapes matter."
        findings.warning("squashed images", where, f"{text} far from square", rest, remedy)
    text = _several(rows, found, readable & (shorter < data.size))
    if text:
        remedy = "They are enlarged, which adds nothing; a smaller data.size costs less."
        findings.warning("small images", where, text, f"at least {data.size} x {data.size}, as data.size", remedy)


def _check_values(rows: Rows, found: Scan, data: Data, findings: Findings) -> None:
    """Warn of 16-bit images that come out dark, and of colour that is thrown away."""
    where = rows.table.where
    if data.channels == 1:
        text = _several(rows, found, found.column("coloured") > 0)
        if text:
            remedy = "Set data.channels: 3 if colour tells classes apart."
            findings.warning("colour as grey", where, f"{text} in colour", "grey images, as data.channels", remedy)
    # What is white in a DICOM file, its own window says.
    plain = np.array([not name.lower().endswith(tuple(DICOM_EXTENSIONS)) for name in rows.table.names])
    deep = plain & (found.column("bits") == 16)
    largest = int(found.column("largest")[deep].max(initial=0))
    if 0 < largest < 128:
        white = full_scale(largest, data.white)
        text = f"{deep.sum():,} images of 16 bits with values up to about {largest * data.white / 255:,.0f}"
        expected = f"values up to data.white, {data.white}: these images come out dark"
        findings.warning("dark images", where, text, expected, f"Set data.white: {white}.")


def full_scale(largest: int, data_white: int) -> int:
    """Give the value that 16-bit grey counts to, as cameras and scanners do: the next 2^n - 1.

    Args:
        largest: value seen, 0 to 255, where ``data_white`` became 255.
        data_white: 255 to 65535.

    >>> full_scale(16, 65535), full_scale(255, 65535)
    (4095, 65535)
    """
    least = (largest - 0.5) * data_white / 255  # before it was rounded
    bits = next(bits for bits in range(8, 17) if 2**bits - 1 >= least)
    return int(2**bits - 1)


def _several(rows: Rows, found: Scan, which: Bools) -> str:
    """Count images and name the first, with its size; nothing if there is none."""
    if not which.any():
        return ""
    row = int(which.argmax())
    look = found.looks[row]
    size = f" ({look.width} x {look.height})" if isinstance(look, Look) else ""
    return f"{which.sum():,} of {len(which):,} images, such as {rows.table.names[row]}{size},"


def _names(rows: Rows, group: list[int]) -> str:
    shown = ", ".join(rows.table.names[row] for row in group[:3])
    return f"{shown} and {len(group) - 3} more" if len(group) > 3 else shown


def _quote(name: str) -> str:
    return f'"{name}"'


def count_sizes(found: Scan) -> Counter[tuple[int, int]]:
    """Count images by (width, height), the most frequent first."""
    return Counter((look.width, look.height) for look in found.looks if isinstance(look, Look))
