"""A table of the user's own, one row an image, to a samples table; all that is wrong is named by row and column."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from subclass_kd import config
from subclass_kd.config import Study
from subclass_kd.data import cell_rules
from subclass_kd.data.cell_rules import CellError, check_parents, judge, look_alikes
from subclass_kd.data.cells import Sheet, read_columns, read_header
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import check_paths, check_root, quoted, relative_names
from subclass_kd.data.table import SampleTable, Votes, refuse_keys
from subclass_kd.data.vote_columns import check_majority, read_votes, vote_columns
from subclass_kd.errors import UserError, nearest

T = TypeVar("T")


def read(study: Study, findings: Findings) -> SampleTable:
    """Read the table that a study's ``data.table`` names: CSV, TSV, Parquet or Excel.

    Args:
        study: ``data.table``, ``data.root`` (the table's folder if not given), ``data.columns``, ``votes``.
        findings: takes what is wrong with rows, which are left out.

    Raises:
        UserError: the table cannot be read, or lacks a column that the study needs.
    """
    data = study.data
    refuse_keys(study, "pattern")
    if data.table is None:
        raise UserError('key "data.table"', "nothing", "a CSV, TSV, Parquet or Excel file", "Give its path.")
    root = check_root(data.table.parent if data.root is None else data.root)
    has_hierarchy = study.hierarchy is not None
    return read_table(data.table, root, data.columns, study.votes, findings, has_hierarchy=has_hierarchy)


def read_table(
    path: Path,
    root: Path,
    columns: Mapping[config.ColumnName, str | None],
    votes: config.Votes | None,
    findings: Findings,
    *,
    has_hierarchy: bool = False,
    folder: str = "",
) -> SampleTable:
    """Read a table whose columns are known.

    Args:
        path: the table file.
        root: the folder that all images lie in.
        columns: path, class, subclass and so on -> the column's name, or None where none is to be used; one of that
            very name needs no entry.
        votes: where the votes stand, if they decide class and subclass.
        findings: takes what is wrong with rows, which are left out.
        has_hierarchy: whether subclasses alone are enough.
        folder: a folder in ``root`` that the paths of the table start at.

    Raises:
        UserError: the table cannot be read, or lacks a column that is needed.
    """
    header = read_header(path)
    chosen = choose(columns, header, path)
    if "path" not in chosen:
        remedy = 'Name the column with the paths in key "data.columns": {path: NAME}.'
        if len(header) == 1 and any(mark in header[0] for mark in ";,\t"):
            remedy = "Separate cells by commas in .csv and by tabs in .tsv and .txt."
        raise UserError(f"{path}, row 1", f'no column "path" in {_listed(header)}', "a column of paths", remedy)
    demand_labels(chosen, votes, header, path, f"{path}, row 1", has_hierarchy=has_hierarchy)
    voted = [] if votes is None else [*vote_columns(votes)]
    sheet = read_columns(path, [*chosen.values(), *voted], findings)
    # Labels before paths: in rows whose file is missing, too, they are held against each other.
    known = resolve_columns(sheet, chosen, votes)
    names = _names(sheet, chosen["path"], root, folder)
    _check_repeats(sheet, chosen["path"], names, [*_labels(chosen), *voted])
    table = SampleTable(where=str(path), names=names, root=root, rows=sheet.rows, **known)
    return table if sheet.good.all() else table.take(np.flatnonzero(sheet.good))


def resolve_columns(sheet: Sheet, chosen: Mapping[str, str], votes: config.Votes | None) -> dict[str, Any]:
    """Judge the cells of all columns but that of paths.

    Args:
        sheet: its cells; takes what is wrong with them.
        chosen: key -> column, as :func:`choose` gives them.
        votes: where the votes stand, if they decide class and subclass.

    Returns:
        Columns of a :class:`SampleTable`, by name.
    """
    findings = sheet.findings
    classes = _column(sheet, chosen, "class", cell_rules.label, "")
    subclasses = _column(sheet, chosen, "subclass", cell_rules.label, "")
    named = {chosen[key]: known for key, known in (("class", classes), ("subclass", subclasses)) if known is not None}
    for column, known in named.items():
        _refuse_look_alikes(sheet, column, known)
    counts = None
    if votes is not None:
        counts = _count_votes(sheet, votes, chosen)
        classes = subclasses = None
    elif subclasses is None:
        subclasses = classes
    elif classes is not None:
        check_parents(classes, subclasses, sheet.good, partial(sheet.place, column=chosen["class"]), findings)
    splits = _column(sheet, chosen, "split", _own_split if chosen.get("split") == "split" else cell_rules.split, "")
    groups = _column(sheet, chosen, "group", cell_rules.group, "")
    groups = groups if groups and any(groups) else None
    weights = _numbers(sheet, chosen, "weight", cell_rules.weight)
    difficulty = _numbers(sheet, chosen, "difficulty", cell_rules.difficulty)
    if weights is not None and len(weights) and not weights.any():
        where = f"{sheet.where}, column {quoted(chosen['weight'])}"
        findings.error("weight", where, "only weights of 0", "a weight above 0 in some row")
        weights = None
    return {
        "classes": classes,
        "subclasses": subclasses,
        "votes": counts,
        "splits": splits,
        "groups": groups,
        "group_source": f"column {quoted(chosen['group'])}" if groups else "",
        "weights": weights,
        "difficulty": difficulty,
    }


def _own_split(cell: str) -> str:
    """Judge a cell of a column "split", which is used without being asked for: it may be of folds, or anything."""
    try:
        return cell_rules.split(cell)
    except CellError as why:
        remedy = "Correct it; if this column is no split, set data.columns: {split: null}, and it is not used."
        raise CellError(why.kind, why.found, why.expected, remedy) from None


def _labels(chosen: Mapping[str, str]) -> list[str]:
    return [chosen[key] for key in ("class", "subclass") if key in chosen]


def choose(columns: Mapping[config.ColumnName, str | None], header: list[str], path: Path | str) -> dict[str, str]:
    """Give key -> column: as the study says, else the column of the key's own name, where a guess does no harm.

    A column "weight" may hold kilograms, and "difficulty" anything: these are used only where the study names them.
    Where it says null, none is used.
    """
    for key, name in columns.items():
        if name is not None:
            _demand(name, f"data.columns.{key}", header, path)
    keys = typing.get_args(config.ColumnName)
    named = {"weight", "difficulty"}
    usual = {key: key for key in keys if key in header and key not in named}
    return {key: name for key in keys if (name := {**usual, **columns}.get(key)) is not None}


def _demand(name: str, key: str, header: list[str], path: Path | str) -> None:
    if not name:
        raise UserError(f'key "{key}"', '""', f"a column with a name: {_listed(header)}", "Name it in the table.")
    if name not in header:
        found = f"{quoted(name)}, which is no column of {path}"
        raise UserError(f'key "{key}"', found, f"one of {_listed(header)}", nearest(name, header))


def demand_labels(
    chosen: Mapping[str, str],
    votes: config.Votes | None,
    header: list[str],
    path: Path | str,
    where: str,
    *,
    has_hierarchy: bool,
) -> None:
    """Demand the columns of votes where there are any, and some column that decides the label.

    Raises:
        UserError: one of them is not there.
    """
    for name, key in ({} if votes is None else vote_columns(votes)).items():
        _demand(name, key, header, path)
    if votes is not None or "class" in chosen or ("subclass" in chosen and has_hierarchy):
        return
    if "subclass" in chosen:
        remedy = "Or name the column with the class: data.columns.class."
        raise UserError('key "hierarchy"', f"none, and no class in {path}", "class: [subclasses]", remedy)
    remedy = 'Name them in key "data.columns": {class: NAME, subclass: NAME}.'
    raise UserError(where, "no column of classes, subclasses or votes", "one of them", remedy)


def _listed(names: list[str]) -> str:
    listed = [quoted(name) for name in names if name]
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")


def _column(sheet: Sheet, chosen: Mapping[str, str], key: str, rule: Callable[[str], T], instead: T) -> list[T] | None:
    if key not in chosen:
        return None
    return judge(sheet.columns[chosen[key]], rule, instead, partial(sheet.refuse, chosen[key]))


def _numbers(
    sheet: Sheet, chosen: Mapping[str, str], key: str, rule: Callable[[str], float]
) -> NDArray[np.float64] | None:
    """Judge a column of numbers, (N,); 1 where the cell is refused."""
    if key not in chosen:
        return None
    cells = sheet.columns[chosen[key]]
    try:
        # Numbers hardly repeat: to judge each distinct one, as of labels, would take longer than all the rest.
        array = np.array([*map(float, cells)], dtype=np.float64)
        for extreme in (array.min(initial=1.0), array.max(initial=1.0)):  # NaN if there is one
            rule(repr(float(extreme)))
        all_fit = "_" not in "".join(cells)  # float() takes 1_000
    except ValueError:
        all_fit = False
    return array if all_fit else np.array(judge(cells, rule, 1.0, partial(sheet.refuse, chosen[key])), dtype=np.float64)


def _count_votes(sheet: Sheet, votes: config.Votes, chosen: Mapping[str, str]) -> Votes:
    counts = read_votes(sheet, votes)
    if "class" in chosen:
        check_majority(sheet, chosen["class"], counts, votes.classes)
    if "subclass" in chosen:
        where = f"{sheet.where}, column {quoted(chosen['subclass'])}"
        sheet.findings.warning("unused column", where, "subclasses, beside votes", "votes to decide the subclass")
    return counts


def _names(sheet: Sheet, column: str, root: Path, folder: str) -> list[str]:
    """Give the paths under ``root``; rows without one, or without a file there, are marked."""
    cells = sheet.columns[column]
    given = np.array([bool(cell.strip()) for cell in cells], dtype=bool)
    for row in np.flatnonzero(~given).tolist():
        sheet.refuse(column, row, CellError("empty path", "an empty cell", "the path of an image"))
    start = f"{folder}/" if folder else ""
    names = relative_names(root, [start + cell for cell in cells])
    asked = np.flatnonzero(given)
    rows = asked.tolist()
    there = check_paths(root, [names[row] for row in rows], lambda k: sheet.place(rows[k], column), sheet.findings)
    sheet.good[asked[~there]] = False
    return names


def _check_repeats(sheet: Sheet, column: str, names: list[str], labels: list[str]) -> None:
    """Refuse a path that stands in an earlier row too."""
    if len(set(names)) == len(names):
        return
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        earlier = first.setdefault(name, row)
        if earlier == row or not sheet.columns[column][row].strip():
            continue
        found = f"{quoted(name)}, which row {sheet.rows[earlier]} lists"
        if all(sheet.columns[label][row] == sheet.columns[label][earlier] for label in labels):
            why = CellError("listed twice", f"{found} too", "each image once", "Remove one of the rows.")
        else:
            remedy = "Find out which row is right."
            why = CellError("listed with other labels", f"{found} with other labels", "each image once", remedy)
        sheet.refuse(column, row, why)


def _refuse_look_alikes(sheet: Sheet, column: str, labels: list[str]) -> None:
    """Refuse labels that look alike, "" aside: who writes both means one."""
    for names in look_alikes(set(labels) - {""}):
        found = " and ".join(f"{quoted(name)} ({sheet.name(labels.index(name))})" for name in names)
        where = f"{sheet.where}, column {quoted(column)}"
        remedy = "Write them alike; if they mean two things, name them apart."
        sheet.findings.error("labels alike", where, found, "one spelling", remedy)
