"""Annotators' votes in a table: a count and how many annotators there were, or one column an annotator."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
from numpy.typing import NDArray

from subclass_kd import config
from subclass_kd.data import table
from subclass_kd.data.cell_rules import CellError, as_float, count, is_missing, judge
from subclass_kd.data.cells import Sheet
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import alike, quoted
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


def check_range(counts: table.Votes, votes: config.Votes, where: str, findings: Findings) -> None:
    """Warn where a number of annotators stands in the study, and no image has all of their votes, or none has no vote.

    Then they may be fewer, which would make a majority a minority, or the column may count no votes.
    """
    fewest, most = counts.positive.min(), counts.positive.max()
    if isinstance(votes.annotators, int) and (fewest > 0 or most < votes.annotators):
        found = f"{fewest} to {most} votes, and {votes.annotators} annotators"
        expected = f"some image with 0 votes, and some with {votes.annotators}"
        remedy = "Check that votes.annotators is right, and that the column counts votes."
        findings.warning(
            "no image with all votes", f"{where}, column {quoted(votes.column or '')}", found, expected, remedy
        )


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
    cells = Counter(cell.strip() for name in votes.columns for cell in sheet.columns[name])
    blanks = {cell for cell in cells if is_missing(cell)} - positives
    found = cells.keys() - blanks
    for label in votes.positive:
        if label.strip() not in found:
            others = ", ".join(quoted(other) for other in sorted(found)[:20]) or "none, all cells are empty"
            text = f"{quoted(label)}, which no cell of votes.columns holds"
            raise UserError('key "votes.positive"', text, f"labels found there: {others}", nearest(label, found))
    alike_ = _refuse_look_alikes(sheet, votes, found - positives)
    # Whatever is not positive is negative, a label that was forgotten or mistyped too: so each is named.
    unnamed = {label for label in found - positives - alike_ if _plain(label) != _plain(votes.classes[0])}
    expected = f"{quoted(votes.classes[0])}, a label of votes.positive, or an empty cell"
    _name(sheet, cells, unnamed, "counted as negative", expected)
    _name(sheet, cells, blanks - {""}, "counted as no vote", "an empty cell, where there is no vote")
    positive = np.zeros(len(sheet.rows), dtype=np.int64)
    annotators = positive.copy()
    for name in votes.columns:
        column = sheet.columns[name]
        positive += _each(column, {cell: cell.strip() in positives for cell in set(column)})
        annotators += _each(column, {cell: cell.strip() in found for cell in set(column)})
    for row in np.flatnonzero(annotators == 0).tolist():
        sheet.refuse("", row, CellError("no annotators", "no vote", "at least 1 annotator's", "Remove the row."))
    return table.Votes(positive, annotators)


def _refuse_look_alikes(sheet: Sheet, votes: config.Votes, labels: set[str]) -> set[str]:
    """Refuse cells with a positive label in other writing, which would be negative votes; give these labels."""
    positives = {_plain(label): label for label in reversed(votes.positive)}
    like = {label: positives[_plain(label)] for label in labels if _plain(label) in positives}
    for name in votes.columns if like else ():
        for row, cell in enumerate(sheet.columns[name]):
            if cell.strip() in like:
                found = f"{quoted(cell)}, and {quoted(like[cell.strip()])} in votes.positive"
                remedy = "Write them alike, or list it there too if it is a positive vote."
                sheet.refuse(name, row, CellError("labels alike", found, "one spelling", remedy))
    return set(like)


def _name(sheet: Sheet, cells: Counter[str], labels: set[str], kind: str, expected: str) -> None:
    """Warn of labels that count as something that nobody said they are."""
    if labels:
        listed = ", ".join(f"{quoted(label)} ({cells[label]:,})" for label in sorted(labels)[:20])
        more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
        remedy = "If that is wrong, correct the cells or votes.positive."
        sheet.findings.warning(kind, sheet.where, f"{listed}{more} in votes.columns, {kind}", expected, remedy)


def _plain(label: str) -> str:
    """Give what labels share that are written differently only; "1.0", as tables with gaps have it, is "1"."""
    number = as_float(label)
    return alike(label) if number is None else repr(number)


def _each(cells: list[str], values: dict[str, bool]) -> NDArray[np.bool_]:
    return np.fromiter((values[cell] for cell in cells), dtype=bool, count=len(cells))
