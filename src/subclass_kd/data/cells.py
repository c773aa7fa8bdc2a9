"""Table files as columns of text: CSV, TSV, Parquet and Excel come out alike."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data.cell_rules import CellError
from subclass_kd.data.findings import Findings
from subclass_kd.data.members import split_name
from subclass_kd.data.paths import quoted
from subclass_kd.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
SUFFIXES = (*DELIMITERS, ".parquet", ".xlsx")
_BATCH = 65536  # rows of Parquet that are Python values at one time

Row = Sequence[str]


@dataclass(frozen=True, eq=False)
class Sheet:
    """Some columns of a table as text; empty cells are "".

    Args:
        where: the file, for messages.
        columns: name -> N cells.
        rows: (N,) int64: the row of each, as a spreadsheet counts: the header is row 1.
        good: (N,) bool: False once something is wrong with a row.
        findings: takes what is wrong.
        samples: names of the rows, for messages, where they come from shards and not from a file's rows.
    """

    where: str
    columns: dict[str, list[str]]
    rows: NDArray[np.int64]
    good: NDArray[np.bool_]
    findings: Findings
    samples: Sequence[str] | None = None

    def place(self, row: int, column: str = "") -> str:
        """Say where a row, or its cell in a column, stands."""
        if self.samples is None:
            return f"{self.where}, {self.name(row)}" + (f", column {quoted(column)}" if column else "")
        return f"{self.where}/{self.name(row)}" + (f", key {quoted(column)}" if column else "")

    def name(self, row: int) -> str:
        """Name a row within its file or folder: ``row 812``, or ``train-000.tar, 0001.jpg`` of shards."""
        return f"row {self.rows[row]}" if self.samples is None else ", ".join(split_name(self.samples[row]))

    def refuse(self, column: str, row: int, why: CellError) -> None:
        """Note what is wrong with a cell, or with a row where ``column`` is empty, and mark the row."""
        self.good[row] = False
        self.findings.error(why.kind, self.place(row, column), why.found, why.expected, why.remedy)


def read_header(path: Path) -> list[str]:
    """Give the names of a table's columns; those without one are "".

    Raises:
        UserError: the file is missing, empty or no table, or a name stands twice.
    """
    with _open(path, None) as rows:
        header = list(next(rows, []))
    if not any(header):
        raise UserError(f"{path}, row 1", "no names of columns", "a name for each column")
    repeated = next((name for name in header if name and header.count(name) > 1), None)
    if repeated is not None:
        found = f"two columns of the name {quoted(repeated)}"
        raise UserError(f"{path}, row 1", found, "each name once", "Rename or remove one of them.")
    return header


def read_columns(path: Path, names: Iterable[str], findings: Findings) -> Sheet:
    """Read some columns of a table; rows whose cells are all empty are passed over.

    Args:
        path: the file.
        names: columns that :func:`read_header` finds.
        findings: takes rows with more or fewer cells than the header, which are left out.

    Raises:
        UserError: the file cannot be read to its end, or has no rows.
    """
    columns: dict[str, list[str]] = {name: [] for name in names}
    numbers: list[int] = []
    uneven = False
    with _open(path, list(columns)) as rows:
        header = next(rows)
        width = len(header)
        wanted = [(cells, header.index(name)) for name, cells in columns.items()]
        for number, row in enumerate(rows, 2):
            if len(row) == width and any(row):
                numbers.append(number)
                for cells, place in wanted:
                    cells.append(row[place])
            elif any(row):
                uneven = True
                remedy = "Put a cell that holds the separator in quotes." if len(row) > width else ""
                found, expected = f"{len(row)} cells", f"{width}, as in the header"
                findings.error("cells in a row", f"{path}, row {number}", found, expected, remedy)
    if not numbers and not uneven:
        raise UserError(str(path), "a header without rows", "a row for each image")
    return Sheet(str(path), columns, np.array(numbers, dtype=np.int64), np.ones(len(numbers), dtype=bool), findings)


def cell_text(value: Any) -> str:
    """Write a value of Parquet or Excel as a CSV file would have it.

    >>> [cell_text(value) for value in (None, float("nan"), 3.0, 0.25, True, "3.0")]
    ['', '', '3', '0.25', 'True', '3.0']
    """
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@contextmanager
def _open(path: Path, names: list[str] | None) -> Iterator[Iterator[Row]]:
    """Give the rows of a table, header first; of Parquet, only the named columns, or the header alone."""
    try:
        _check_file(path)
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            rows = _parquet_rows(path, names)
        else:
            rows = _excel_rows(path) if suffix == ".xlsx" else _text_rows(path, DELIMITERS[suffix])
        with closing(rows), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of styles and lists of choices, of no interest here
            yield rows
    except OSError as error:
        raise UserError(str(path), f"a file that cannot be read ({error})", "a readable table") from None


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(str(path), "a folder", "a table file", 'Name the file in key "data.table".')
    if not path.is_file():
        raise UserError(str(path), "no such file", "a table", 'Correct key "data.table".')
    if path.suffix.lower() not in SUFFIXES:
        found = f"a file in {quoted(path.suffix)}" if path.suffix else "a file name without a suffix"
        raise UserError(str(path), found, f"one in {', '.join(SUFFIXES)}", "Save the table as CSV in UTF-8.")
    if path.stat().st_size == 0:
        raise UserError(str(path), "an empty file", "a header, and a row for each image")


def _text_rows(path: Path, delimiter: str) -> Generator[Row]:
    row = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_without_nul(file, path), delimiter=delimiter, strict=True)
            for row, cells in enumerate(reader, 1):  # noqa: B007  (which row an error is in)
                yield cells
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        found, remedy = "a cell with text after its closing quote", 'Write a quote inside a cell twice: "".'
        if "end of data" in str(error):
            found, remedy = "a quote that is not closed", "Close it, or remove it."
        elif "field limit" in str(error):
            found, remedy = f"a cell of more than {csv.field_size_limit()} characters", "Is a quote not closed?"
        raise UserError(f"{path}, row {row + 1}", found, "cells, in quotes where need be", remedy) from None


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            remedy = 'Save the table as "CSV UTF-8".'
            raise UserError(f"{path}, line {number}", "a NUL byte", "text in UTF-8", remedy)
        yield line


def _not_utf8(path: Path) -> UserError:
    """Find the first byte that is not UTF-8: the decoder knows its place in a block only."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found = f"byte 0x{line[error.start]:02x} at place {error.start + 1} of the line"
                return UserError(f"{path}, line {number}", found, "text in UTF-8", 'Save the table as "CSV UTF-8".')
    return UserError(str(path), "bytes that are not UTF-8", "text in UTF-8")  # the file changed meanwhile


def _parquet_rows(path: Path, names: list[str] | None) -> Generator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise _extra_is_missing(path, "pyarrow") from None
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            yield schema.names if names is None else names
            for name in names or ():
                if pa.types.is_nested(schema.field(name).type):
                    found = f"values of type {schema.field(name).type}"
                    raise UserError(f"{path}, column {quoted(name)}", found, "text or numbers")
            for batch in file.iter_batches(_BATCH, columns=names) if names else ():
                columns = batch.select(names).columns
                yield from zip(*([*map(cell_text, column.to_pylist())] for column in columns), strict=True)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(str(path), f"a file that is no Parquet ({error})", "a Parquet file") from None


def _excel_rows(path: Path) -> Generator[Row]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise _extra_is_missing(path, "openpyxl") from None
    try:
        with closing(load_workbook(path, read_only=True, data_only=True)) as book:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write a wrong size
            width = 0
            for values in sheet.iter_rows(values_only=True):
                cells = [*map(cell_text, values)]
                while cells and not cells[-1] and (not width or len(cells) > width):
                    cells.pop()  # cells that were only formatted
                width = width or len(cells)
                yield cells + [""] * (width - len(cells))
    except OSError:
        raise
    except Exception as error:  # whatever its zip, XML and cells raise
        raise UserError(str(path), f"a file that is no Excel workbook ({error})", "an .xlsx file") from None


def _extra_is_missing(path: Path, package: str) -> UserError:
    remedy = "Install it: pip install 'subclass-kd[tables]'"
    return UserError(str(path), f"no package {package}", f"{package}, which reads this file", remedy)
