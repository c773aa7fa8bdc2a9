"""CSV that programs read as it was meant and spreadsheets do not run."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import TextIO

# A cell begins where the text does, and, for who opens a file with other separators than commas, behind these.
_BEGIN = r"(?:\A|(?<=[;\t\r\n]))"
# What begins a formula, full-width signs too, perhaps behind quotes and spaces.
_FORMULA = r"""["' ]*[=+\-@\t\r\n＝＋－＠]"""  # noqa: RUF001
_UNSAFE = re.compile(f"{_BEGIN}(?={_FORMULA})")
_INERT = re.compile(f"{_BEGIN}'(?={_FORMULA})")


def inert(text: str) -> str:
    r"""Keep a spreadsheet from running a text as a formula: an apostrophe before it, which :func:`plain` takes off.

    A semicolon, tab or line break may begin a cell, too: in many countries Excel parts cells at semicolons, and does
    not heed quotes within a line of commas.

    >>> inert("=cmd()"), inert("a;=1"), inert("a.png"), inert("-1")
    ("'=cmd()", "a;'=1", 'a.png', '-1')
    """
    is_number = text.lstrip("+-").replace(".", "", 1).isdigit()
    return text if is_number else _UNSAFE.sub("'", text)


def plain(cell: str) -> str:
    """Give back the text of which :func:`inert` made a cell, whatever text it was.

    >>> plain("'=cmd()"), plain("a;'=1"), plain("'tis")
    ('=cmd()', 'a;=1', "'tis")
    """
    return _INERT.sub("", cell)


class CsvFile:
    """Rows of cells to a file; each cell may hold anything, as :func:`inert` leaves it.

    Python's writer quotes no carriage return unless it ends its lines; so it does, until the line is written.

    Args:
        file: opened with ``newline=""``.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.writer(self, lineterminator="\r\n")

    def write_rows(self, rows: Iterable[Iterable[str]]) -> None:
        """Write rows; lines end with a line feed."""
        self._writer.writerows(rows)

    def write(self, line: str) -> None:
        """Take a line from Python's writer."""
        self._file.write(f"{line[:-2]}\n")
