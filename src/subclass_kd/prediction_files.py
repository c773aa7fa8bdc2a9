"""Predictions written row by row: CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from subclass_kd.errors import UserError
from subclass_kd.extras import demand
from subclass_kd.files import whole
from subclass_kd.spreadsheet import csv_cell, csv_line

Row = dict[str, Any]  # column -> text, a number, or None
Write = Callable[[Sequence[Row]], None]
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
_ROW_GROUP = 8192  # rows of Parquet that are held in memory


def check_out(out: Path) -> None:
    """Refuse a file of predictions that could not be written, before anything is predicted.

    Raises:
        UserError: a suffix of no known format, a file that is there, or Parquet without pyarrow.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(str(out), f'the suffix "{out.suffix}"', f"one of {', '.join(SUFFIXES)}", "Give another -o.")
    if out.exists():
        raise UserError(str(out), "a file that is there", "a new file", "Give another -o, or remove it.")
    if out.suffix.lower() == ".parquet":
        demand("Parquet", "tables")


@contextmanager
def writing(out: Path | None, texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Write]:
    """Give a function that writes rows as they come; the file appears whole when the block ends well.

    Args:
        out: the file, as :func:`check_out` lets pass; CSV on standard output if None.
        texts: columns of text, the error last.
        numbers: columns of numbers, which stand before the error.
    """
    columns = [*texts[:-1], *numbers, texts[-1]]
    with ExitStack() as stack:
        if out is None:
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of any bytes
            yield _csv(sys.stdout, texts, numbers)
            return
        path = stack.enter_context(whole(out))
        suffix = out.suffix.lower()
        if suffix == ".parquet":
            yield stack.enter_context(_parquet(path, columns, numbers))
            return
        file = stack.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
        if suffix == ".csv":
            yield _csv(file, texts, numbers)
        else:
            yield stack.enter_context(_json(file, columns, suffix == ".json"))


def _csv(file: TextIO, texts: Sequence[str], numbers: Sequence[str]) -> Write:
    file.write(csv_line([*texts[:-1], *numbers, texts[-1]]))
    *first, last = texts
    pattern = ",".join(["%.7g"] * len(numbers))

    def line(row: Row) -> str:
        values = [row[name] for name in numbers]
        middle = "," * (len(numbers) - 1) if None in values else pattern % tuple(values)
        return ",".join([*(csv_cell(row[name] or "") for name in first), middle, csv_cell(row[last] or "")]) + "\n"

    return lambda rows: file.writelines([line(row) for row in rows])


@contextmanager
def _json(file: TextIO, columns: Sequence[str], as_list: bool) -> Iterator[Write]:
    """Write one object a line; as the lines of a list, or as lines alone."""
    separator = "[\n" if as_list else ""

    def plain(value: Any) -> Any:
        return float(format(value, ".7g")) if isinstance(value, float) else value

    def write(rows: Sequence[Row]) -> None:
        nonlocal separator
        for row in rows:
            content = {column: plain(row[column]) for column in columns}
            file.write(separator + json.dumps(content, ensure_ascii=False, allow_nan=False))
            separator = ",\n" if as_list else "\n"

    yield write
    file.write(("" if separator != "[\n" else "[") + ("\n]\n" if as_list else "\n"))


@contextmanager
def _parquet(path: Path, columns: Sequence[str], numbers: Sequence[str]) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    kinds = {column: pyarrow.float32() if column in numbers else pyarrow.string() for column in columns}
    schema = pyarrow.schema(list(kinds.items()))
    held: list[Row] = []

    def flush() -> None:
        cells = {column: [_utf8(row[column]) for row in held] for column in columns}
        writer.write_table(pyarrow.Table.from_pydict(cells, schema=schema))
        held.clear()

    def write(rows: Sequence[Row]) -> None:
        held.extend(rows)
        if len(held) >= _ROW_GROUP:
            flush()

    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        yield write
        flush()


def _utf8(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
