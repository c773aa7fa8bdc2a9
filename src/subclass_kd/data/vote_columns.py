"""Annotators' votes in a table: a count and how many annotators there were, or one column an annotator."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from subclass_kd import config
from subclass_kd.data import table
from subclass_kd.data.cell_rules import CellError, count, judge
from subclass_kd.data.cells import Sheet
from subclass_kd.data.paths import quoted
from subclass_kd.errors import UserError, nearest

_MANY = 1_000_000_000  # annotators of a row whose number cannot be read: no count is above it
_WAYS = "votes.column with votes.annotators, or votes.columns with votes.positive"


def vote_columns(votes: config.Votes) -> dict[str, str]:
    """Give the columns that the votes stand in, each with the key that names it.

    Raises:
        UserError: the votes are described in both ways, in half a way, or not at all.

    >>> vote_columns(config.Votes(column="SSA", annotators=7))
    {'SSA': 'votes.column'}
    """
    keys = ("column", "annotators", "columns", "positive")
    given = [key for key in keys if getattr(votes, key) not in (None, [])]
    if not given:
        raise UserError('key "votes"', "no columns", _WAYS)
    if {"column", "annotators"} & {*given} and {"columns", "positive"} & {*given}:
        found = " and ".join(f"votes.{key}" for key in given)
        raise UserError('key "votes"', found, f"one of two ways: {_WAYS}", "Remove one of them.")
    missing = {"column": "annotators", "annotators": "column", "columns": "positive", "positive": "columns"}
    for key in given:
        if missing[key] not in given:
            expected = f"a value beside votes.{key}: {_WAYS}"
            raise UserError(f'key "votes.{missing[key]}"', "nothing", expected)
    repeated = next((name for name in votes.columns if votes.columns.count(name) > 1), None)
    if repeated is not None:
        raise UserError('key "votes.columns"', f"{quoted(repeated)} twice", "each annotator's column once")
    if isinstance(votes.annotators, int) and votes.annotators < 1:
        raise UserError('key "votes.annotators"', str(votes.annotators), "a whole number of at least 1")
    named = dict.fromkeys(votes.columns, "votes.columns")
    if votes.column is not None:
        named[votes.column] = "votes.column"
    if isinstance(votes.annotators, str):
        named[votes.annotators] = "votes.annotators"
    return named


def read_votes(sheet: Sheet, votes: config.Votes) -> table.Votes:
    """Count the positive votes and the annotators of each row; rows that cannot be are marked in the sheet.

    Raises:
        UserError: a label that is to be positive is in no cell.
    """
    return _from_counts(sheet, votes) if votes.column is not None else _from_labels(sheet, votes)


def check_majority(sheet: Sheet, column: str, votes: table.Votes, names: list[str]) -> None:
    """Hold the class that a column gives against the majority of the votes; a tie agrees with both.

    Args:
        sheet: takes the rows that disagree.
        column: the column with the class.
        votes: of each row.
        names: the negative and the positive class.
    """
    side = {names[0]: -1, names[1]: 1}
    expected = f"{quoted(names[0])} or {quoted(names[1])}, the classes that are voted on"
    cells = sheet.columns[column]
    lead = np.sign(2 * votes.positive - votes.annotators)
    labels = np.array([side.get(cell, 0) for cell in cells], dtype=np.int64)
    for row in np.flatnonzero(sheet.good & ((labels == 0) | (labels * lead < 0))).tolist():
        found = quoted(cells[row])
        if labels[row]:
            found += f" with {votes.positive[row]} of {votes.annotators[row]} votes for {quoted(names[1])}"
            sheet.refuse(column, row, CellError("class against votes", found, "the class of the majority"))
        else:
            sheet.refuse(column, row, CellError("class without votes", found, expected))


def _from_counts(sheet: Sheet, votes: config.Votes) -> table.Votes:
    column = votes.column or ""
    positive = np.array(judge(sheet.columns[column], count, 0, partial(sheet.refuse, column)), dtype=np.int64)
    if isinstance(votes.annotators, str):
        name = votes.annotators
        numbers = judge(sheet.columns[name], count, _MANY, partial(sheet.refuse, name))
        annotators = np.array(numbers, dtype=np.int64)
        for row in np.flatnonzero(annotators < 1).tolist():
            sheet.refuse(name, row, CellError("no annotators", "0", "at least 1 annotator"))
    else:
        annotators = np.full(len(positive), votes.annotators, dtype=np.int64)
    for row in np.flatnonzero((positive > annotators) & (annotators > 0)).tolist():
        found, expected = f"{positive[row]} votes", f"at most {annotators[row]}, the number of annotators"
        sheet.refuse(column, row, CellError("more votes than annotators", found, expected))
    return table.Votes(positive, annotators)


def _from_labels(sheet: Sheet, votes: config.Votes) -> table.Votes:
    positives = {label.strip() for label in votes.positive}
    found = {cell.strip() for name in votes.columns for cell in set(sheet.columns[name])} - {""}
    for label in votes.positive:
        if label.strip() not in found:
            others = ", ".join(quoted(other) for other in sorted(found)[:20]) or "none, all cells are empty"
            text = f"{quoted(label)}, which no cell of votes.columns holds"
            raise UserError('key "votes.positive"', text, f"labels found there: {others}", nearest(label, found))
    positive = np.zeros(len(sheet.rows), dtype=np.int64)
    annotators = positive.copy()
    for name in votes.columns:
        cells = sheet.columns[name]
        positive += _each(cells, {cell: cell.strip() in positives for cell in set(cells)})
        annotators += _each(cells, {cell: bool(cell.strip()) for cell in set(cells)})
    for row in np.flatnonzero(annotators == 0).tolist():
        sheet.refuse("", row, CellError("no annotators", "no vote", "at least 1 annotator's", "Remove the row."))
    return table.Votes(positive, annotators)


def _each(cells: list[str], values: dict[str, bool]) -> NDArray[np.bool_]:
    return np.fromiter((values[cell] for cell in cells), dtype=bool, count=len(cells))
