"""What may stand in a column: labels, splits, groups, numbers; each distinct cell is judged once, not each row."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import compress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import UNPRINTABLE, alike, quoted
from subclass_kd.data.table import SPLIT_NAMES

LONGEST_LABEL = 100
_WHOLE = re.compile(r"-?[0-9]{1,9}(?:\.0*)?")
_SPREADSHEET_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"}
_MISSING = {"", "na", "nan", "n/a", "null", "none"}  # what R, pandas, databases and Python write for no value

T = TypeVar("T")


class CellError(ValueError):
    """A cell cannot be used: the kind of the finding, what was found, what was expected, and how to mend it."""

    def __init__(self, kind: str, found: str, expected: str, remedy: str = "") -> None:
        super().__init__(kind, found, expected, remedy)
        self.kind, self.found, self.expected, self.remedy = kind, found, expected, remedy


def judge(cells: list[str], rule: Callable[[str], T], instead: T, refuse: Callable[[int, CellError], None]) -> list[T]:
    """Turn every cell of a column into a value.

    Args:
        cells: N cells.
        rule: gives the value of a cell or raises CellError.
        instead: the value of a cell that is refused.
        refuse: takes the row, 0 to N - 1, and why its cell is refused.

    >>> judge(["3", "many"], count, 0, lambda row, refused: print(row, refused.found))
    1 "many"
    [3, 0]
    """
    values: dict[str, T] = {}
    refused: dict[str, CellError] = {}
    for cell in set(cells):
        try:
            values[cell] = rule(cell)
        except CellError as error:
            values[cell], refused[cell] = instead, error
    if refused:
        for row, cell in enumerate(cells):
            if cell in refused:
                refuse(row, refused[cell])
    return [values[cell] for cell in cells]


def is_missing(cell: str) -> bool:
    """Tell whether a cell is blank, or holds what programs write where a value is missing.

    >>> [is_missing(cell) for cell in ("", " NA", "NaN", "none", "nail")]
    [True, True, True, True, False]
    """
    return cell.strip().lower() in _MISSING


def label(cell: str) -> str:
    """Give the name of a class or subclass out of a table's cell, where a missing value is none.

    >>> label("NA")
    Traceback (most recent call last):
    subclass_kd.data.cell_rules.CellError: ('empty label', '"NA", as programs write a missing value', ...)
    """
    if cell.strip() and is_missing(cell):
        remedy = "Give the label or remove the row; if this is a label, write it in other words."
        raise CellError("empty label", f"{quoted(cell)}, as programs write a missing value", "a label", remedy)
    return name(cell)


def name(cell: str) -> str:
    """Give a class's or subclass's name as it stands, if every tool that may meet it can take it.

    >>> name("=cmd()")
    Traceback (most recent call last):
    subclass_kd.data.cell_rules.CellError: ('label a spreadsheet would run', '"=cmd()"', ...)
    """
    if not cell.strip():
        raise CellError("empty label", quoted(cell) if cell else "an empty cell", "a label")
    if UNPRINTABLE.search(cell):
        raise CellError("characters in label", quoted(cell), "a label of one line without control characters")
    if cell != cell.strip():
        raise CellError("blanks around label", quoted(cell), quoted(cell.strip()), "Remove the blanks around it.")
    if len(cell) > LONGEST_LABEL:
        raise CellError("long label", f"{len(cell)} characters, {quoted(cell)}", f"at most {LONGEST_LABEL}")
    if cell[0] in "=+-@" and as_float(cell) is None:
        remedy = "Begin it with a letter."
        raise CellError("label a spreadsheet would run", quoted(cell), "a label that is no formula", remedy)
    if cell in _SPREADSHEET_ERRORS:
        raise CellError("spreadsheet error", quoted(cell), "a label", "Mend the formula of this cell.")
    return cell


def split(cell: str) -> str:
    """Give "train", "validation" or "test" for one of their usual names.

    >>> split("Val")
    'validation'
    """
    try:
        return SPLIT_NAMES[cell.strip().lower()]
    except KeyError:
        found = quoted(cell) if cell.strip() else "an empty cell"
        raise CellError("split", found, f"one of {', '.join(SPLIT_NAMES)}") from None


def group(cell: str) -> str:
    """Give a patient's or slide's name without outer blanks, which must not part a patient from itself; "" for none.

    >>> group(" P 12 "), group("NA")
    ('P 12', '')
    """
    if UNPRINTABLE.search(cell):
        raise CellError("characters in group", quoted(cell), "text of one line without control characters")
    return "" if is_missing(cell) else cell.strip()


def weight(cell: str) -> float:
    """Give a finite number of at least 0.

    >>> weight("0.5")
    0.5
    """
    return _number(cell, "weight", "a finite number of at least 0", low=0.0)


def difficulty(cell: str) -> float:
    """Give a finite number.

    >>> difficulty("-1e3")
    -1000.0
    """
    return _number(cell, "difficulty", "a finite number", low=-math.inf)


def count(cell: str) -> int:
    """Give a whole number from 0 to 999,999,999; "3.0", as tables with gaps have it, is one.

    >>> count("3.0")
    3
    """
    text = cell.strip()
    if not _WHOLE.fullmatch(text) or text.startswith("-"):
        found = quoted(cell) if text else "an empty cell"
        raise CellError("vote count", found, "a whole number of at least 0")
    return int(text.partition(".")[0])


def look_alikes(labels: Iterable[str]) -> list[list[str]]:
    """Give the labels that differ in case, accents or blanks only, each set of them sorted.

    >>> look_alikes(["normal", "Normal", "virus"])
    [['Normal', 'normal']]
    """
    sets: dict[str, list[str]] = {}
    for name in sorted(set(labels)):
        sets.setdefault(alike(name), []).append(name)
    return [names for names in sets.values() if len(names) > 1]


def check_parents(
    classes: list[str], subclasses: list[str], good: NDArray[np.bool_], place: Callable[[int], str], findings: Findings
) -> None:
    """Demand one class of each subclass: the class of most of its rows counts, and rows of another are marked.

    Args:
        classes: the class of each of N rows.
        subclasses: the subclass of each row.
        good: (N,) rows to look at; those of a second class become False.
        place: says where a row stands.
        findings: takes one error for each second class, with a row of each.
    """
    counts = Counter(compress(zip(subclasses, classes, strict=True), good.tolist()))
    owner: dict[str, str] = {}
    for (subclass, name), _ in counts.most_common():  # ties: the class that comes first
        owner.setdefault(subclass, name)
    wrong = {pair for pair in counts if owner[pair[0]] != pair[1]}
    if not wrong:
        return
    first: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(zip(subclasses, classes, strict=True)):
        if good[row]:
            first.setdefault(pair, row)
            good[row] = pair not in wrong
    for pair in sorted(wrong, key=first.__getitem__):
        subclass, name = pair
        kept = subclass, owner[subclass]
        found = f"subclass {quoted(subclass)} of class {quoted(name)} ({counts[pair]} of its rows)"
        expected = f"one class for it: {quoted(kept[1])} at {place(first[kept])} ({counts[kept]} rows)"
        remedy = "Correct the class, or name the two subclasses apart."
        findings.error("subclass under two classes", place(first[pair]), found, expected, remedy)


def _number(cell: str, kind: str, expected: str, low: float) -> float:
    value = as_float(cell)
    if value is None or not math.isfinite(value) or value < low:
        raise CellError(kind, quoted(cell) if cell.strip() else "an empty cell", expected)
    return value


def as_float(text: str) -> float | None:
    """Read a number as a table has it, None if it is none: Python alone would take 1_000 too."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
