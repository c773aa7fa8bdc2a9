"""Label bits of any teacher, from a table of its predictions: what ``skd bits`` reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from subclass_kd.data.cells import Sheet, read_columns, read_header
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import quoted
from subclass_kd.errors import UserError
from subclass_kd.spreadsheet import plain

TRUTH = ("class", "subclass")
PREFIX = "subclass: "  # of a column of probabilities, as skd predict writes it
SUM = 0.01  # by which the probabilities of a row may miss 1: programs round


def bits_of(path: Path) -> dict[str, Any]:
    """Give the label bits of the predictions in a table, by all estimators.

    Args:
        path: CSV, TSV, Parquet or Excel; a row an image, with its true ``class`` and ``subclass``, and a column
            ``subclass: NAME`` of probabilities, 0 to 1, for each subclass. Other columns are passed over.

    Returns:
        "images", "hierarchy" (class -> its subclasses), and what
        :func:`subclass_kd.information.label_bits` gives, by name.

    Raises:
        UserError: a column, a label or a probability is missing or no such thing, or a subclass has two classes.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file", "a table of predictions", "Check the path.")
    header = read_header(path)
    asked = [name for name in header if plain(name).startswith(PREFIX)]
    missing = [name for name in TRUTH if name not in header]
    if missing or len(asked) < 2:
        found = f"no column {quoted(missing[0])}" if missing else f"{len(asked)} columns of probabilities"
        expected = f'columns "class" and "subclass" (the truth), and "{PREFIX}NAME" for each subclass'
        raise UserError(f"{path}, row 1", found, expected, "skd predict writes the latter; add the truth to them.")
    findings = Findings()
    sheet = read_columns(path, [*TRUTH, *asked], findings)
    findings.raise_first()
    parents = _parents(sheet, [plain(name).removeprefix(PREFIX) for name in asked])
    if len(set(parents.values())) < 2:
        raise UserError(str(path), f"one class, {quoted(next(iter(parents.values())))}", "at least two classes")
    probabilities = [_probabilities(sheet, asked, row) for row in range(len(sheet.rows))]

    import torch

    from subclass_kd.hierarchy import SubclassHierarchy
    from subclass_kd.information import label_bits

    hierarchy = SubclassHierarchy(sorted(set(parents.values())), parents)
    numbers = {name: number for number, name in enumerate(hierarchy.subclasses)}
    labels = torch.tensor([numbers[plain(label)] for label in sheet.columns["subclass"]])
    # (N, K): columns stand in the table as its owner likes
    places = [numbers[plain(name).removeprefix(PREFIX)] for name in asked]
    log_probs = torch.tensor(probabilities, dtype=torch.float64)[:, torch.tensor(places).argsort()].log()
    found_bits = label_bits(log_probs, labels, hierarchy)
    return {"images": len(labels), "hierarchy": hierarchy.to_dict(), **found_bits._asdict()}


def _parents(sheet: Sheet, subclasses: list[str]) -> dict[str, str]:
    """Give subclass -> class, by the rows' labels, in the order of the columns."""
    parents: dict[str, str] = {}
    for row, cells in enumerate(zip(*(sheet.columns[name] for name in TRUTH), strict=True)):
        name, subclass = (plain(cell) for cell in cells)
        for column, value in zip(TRUTH, (name, subclass), strict=True):
            if not value:
                raise UserError(sheet.place(row, column), "an empty cell", f"the true {column}")
        if subclass not in subclasses:
            found = f"{quoted(subclass)}, and no column {quoted(PREFIX + subclass)}"
            raise UserError(sheet.place(row, "subclass"), found, "a subclass that has probabilities")
        if parents.setdefault(subclass, name) != name:
            found = f"{quoted(subclass)} in {quoted(name)}, elsewhere in {quoted(parents[subclass])}"
            raise UserError(sheet.place(row, "class"), found, "one class for each subclass")
    for subclass in subclasses:
        if subclass not in parents:
            found = f"a column {quoted(PREFIX + subclass)}, and no row of this subclass, which would tell its class"
            raise UserError(sheet.where, found, "rows of every subclass", "Add some, or merge the column with another.")
    return {subclass: parents[subclass] for subclass in subclasses}


def _probabilities(sheet: Sheet, columns: list[str], row: int) -> list[float]:
    values = []
    for column in columns:
        cell = sheet.columns[column][row]
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UserError(sheet.place(row, column), quoted(cell), "a probability, from 0 to 1")
        values.append(value)
    if abs(sum(values) - 1) > SUM:
        found = f"probabilities that add up to {sum(values):.3f}"
        raise UserError(sheet.place(row), found, "1", "A column may be missing.")
    return values
