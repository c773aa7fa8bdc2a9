"""CSV that programs read as it was meant and spreadsheets do not run."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A cell begins where the text does, and, for who opens a file with other separators than commas, behind these.
_BEGIN = r"(?:\A|(?<=[;\t\r\n]))"
# What begins a formula, full-width signs too, perhaps behind quotes and spaces.
_FORMULA = r"""["' ]*[=+\-@\t\r\n＝＋－＠]"""  # noqa: RUF001
_UNSAFE = re.compile(f"{_BEGIN}(?={_FORMULA})")
_QUOTED = re.compile('[",\r\n]')
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


def csv_line(cells: Iterable[str]) -> str:
    r"""Give a line of CSV (RFC 4180, ended by a line feed), each cell made :func:`inert`.

    >>> csv_line(["a,b", "=1", ""])
    '"a,b",\'=1,\n'
    """
    return ",".join([csv_cell(cell) for cell in cells]) + "\n"


def csv_cell(text: str) -> str:
    r"""Give a text as a cell of CSV, inert, and in quotes where it needs them.

    Python's writer leaves a carriage return bare unless its lines end with one, and reads two rows then.

    >>> print(csv_cell("a;b"), csv_cell("a,b"))
    a;b "a,b"
    """
    cell = inert(text)
    return '"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell
