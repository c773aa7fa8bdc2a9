"""Training, validation and test rows: as given, or made; stratified by subclass, and no group on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Data
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import quoted
from subclass_kd.errors import UserError

Rows = NDArray[np.int64]
SIDES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Splits:
    """Sorted row numbers, (n,) int64 each; no row is in two.

    Args:
        train, validation, test: the three sides.
        rest: what ``data.train_images`` left out, less the groups of the validation rows.
    """

    train: Rows
    validation: Rows
    test: Rows
    rest: Rows


def make_splits(
    data: Data,
    labels: NDArray[np.int64],
    splits: list[str] | None,
    groups: list[str] | None,
    where: str,
    findings: Findings,
    names: list[str] | None = None,
) -> Splits:
    """Split a study's rows by a generator of fixed seed: every arm, seed and run of a study sees the same split.

    With ``data.folds`` all rows are pooled, cut into equal parts, and part ``data.fold`` tests, the first if none is
    given: where all test in turn, each has a split of its own. Otherwise rows marked
    "test" do, or, if there are none, a share ``data.test`` of those not marked "validation". From the rest
    ``data.train_images`` are drawn, if given. Rows marked "validation" validate, or a share ``data.validation`` of the
    training rows. What is drawn is stratified by label, and keeps groups whole.

    Args:
        data: the keys named above.
        labels: (N,) the subclasses as their owner numbers them, so that a study that regroups them moves no image.
        splits: "train", "validation" or "test" of each row, or None.
        groups: the patient or slide of each row, "" for none; or None.
        where: what messages call the data.
        findings: gets an error if the given split has a group on two sides.
        names: of the rows, where those of the groups tell nobody which images they are of.

    Raises:
        UserError: no image is left to train on, groups are too few to share out, or ``data.train_images`` or
            ``data.folds`` is more than there are.
    """
    random = np.random.Generator(np.random.Philox(0))
    whole = _group_codes(groups) if groups is not None and any(groups) else None
    stated = ["train"] * len(labels) if splits is None or data.folds is not None else splits
    marked = np.array([SIDES.index(split) for split in stated], dtype=np.int64)
    if data.folds is not None:
        marked[_folds(labels, whole, data.folds, random) == (data.fold or 0)] = 2
    elif whole is not None and groups is not None:
        _check_sides(marked, whole, groups, where, findings, names)
    given = np.flatnonzero(marked == 0)
    _check_any(given, where)
    if not (marked == 2).any():
        test, given = _take(given, labels, whole, data.test, random, where, "training and test")
    else:
        test = np.flatnonzero(marked == 2)
    _check_any(given, where)
    train, rest = draw(given, labels, data.train_images or len(given), random)
    if (marked == 1).any():
        validation = np.flatnonzero(marked == 1)
    else:
        validation, train = _take(train, labels, whole, data.validation, random, where, "training and validation")
    if whole is not None:
        rest = rest[~np.isin(whole[rest], whole[validation])]
    return Splits(train, validation, test, rest)


def draw(rows: Rows, labels: NDArray[np.int64], count: int, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw rows, each label in proportion: within one row of its exact share, by the method of largest remainders.

    Args:
        rows: (n,) sorted row numbers, n >= 1.
        labels: (N,) of all rows.
        count: how many to draw.
        random: draws once a label.

    Returns:
        The rows drawn and those left, both sorted.

    Raises:
        UserError: ``count`` is more than there are.

    >>> rows, labels = np.arange(6), np.array([0, 0, 0, 0, 1, 1])
    >>> drawn, left = draw(rows, labels, 3, np.random.default_rng(0))
    >>> labels[drawn].tolist(), labels[left].tolist()
    ([0, 0, 1], [0, 0, 1])
    """
    if count > len(rows):
        where, expected = 'key "data.train_images"', f"at most {len(rows)}, as many as there are"
        raise UserError(where, str(count), expected)
    members = [random.permutation(rows[labels[rows] == label]) for label in np.unique(labels[rows])]
    take, remainder = np.divmod(np.array([len(group) for group in members]) * count, len(rows))  # exact: integers
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    drawn = np.sort(np.concatenate([group[:n] for group, n in zip(members, take, strict=True)]))
    return drawn, np.setdiff1d(rows, drawn)


def grouped_parts(
    labels: NDArray[np.int64],
    groups: list[str] | NDArray[np.int64],
    shares: Sequence[float],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    r"""Cut rows into parts that keep groups whole, each part with near its share of every label and of all rows.

    One greedy pass: groups are shuffled, and then, the heaviest first, each goes to the part where it adds least to

    .. math:: \sum_{p,l} (A_{pl} - D_{pl})^2 / D_{pl}

    with A the rows of label l in part p, and D the part's share of all rows of that label; all rows together count as
    one label more. Heavy is a group with many rows, or with many of a rare label: by the sum over labels of the squared
    number of its rows over that of all rows. The idea is that of iterative stratification (Sechidis, Tsoumakas,
    Vlahavas 2011, https://doi.org/10.1007/978-3-642-23808-6_10), with groups for samples.

    Args:
        labels: (N,) int64.
        groups: a name or number a row; rows named "" are each a group of their own.
        shares: of the parts, above 0, with sum 1.
        random: shuffles the groups.

    Returns:
        (N,) int64, the part of each row. No part is empty unless groups are fewer than parts.

    >>> labels, groups = np.array([0, 0, 1, 1, 0, 1]), ["a", "a", "a", "a", "b", "b"]
    >>> grouped_parts(labels, groups, [0.7, 0.3], np.random.default_rng(0)).tolist()
    [0, 0, 0, 0, 1, 1]
    """
    # Not scikit-learn's StratifiedGroupKFold: a study's split must not move with a library's version, its parts are
    # of one size, and importing it costs a second. Python's integers and floats rather than numpy's sums, whose
    # rounding, and with it a split, may differ from one processor to the next.
    label_codes = np.unique(labels, return_inverse=True)[1]
    codes = np.unique(groups if isinstance(groups, np.ndarray) else _group_codes(groups), return_inverse=True)[1]
    sizes = np.bincount(codes)
    held = _held(codes, label_codes, sizes)
    totals = [*np.bincount(label_codes).tolist(), len(labels)]
    wanted = [[share * total for total in totals] for share in shares]
    have = [[0] * len(totals) for _ in shares]
    weights = [sum(count * count / totals[label] for label, count in group) for group in held]
    order = sorted(random.permutation(len(sizes)).tolist(), key=lambda group: -weights[group])
    part_of = [0] * len(sizes)
    empty = set(range(len(shares)))
    for place, group in enumerate(order):
        must_fill = len(sizes) - place <= len(empty)
        best = _best_part(held[group], have, wanted, sorted(empty) if must_fill else range(len(shares)))
        for label, count in held[group]:
            have[best][label] += count
        part_of[group] = best
        empty.discard(best)
    return np.array(part_of, dtype=np.int64)[codes]


def _best_part(
    held: list[tuple[int, int]], have: list[list[int]], wanted: list[list[float]], parts: Sequence[int]
) -> int:
    """Give the part where a group adds least to the sum of squares; the first of equals."""
    best, least = -1, float("inf")
    for part in parts:
        there, due = have[part], wanted[part]
        added = 0.0  # but for a term that is the same for all parts
        for label, count in held:
            added += count * (2 * there[label] + count) / due[label]
        if added < least:
            best, least = part, added
    return best


def _held(
    codes: NDArray[np.int64], label_codes: NDArray[np.int64], sizes: NDArray[np.int64]
) -> list[list[tuple[int, int]]]:
    """List each group's (label, count), and its size as the count of one label more."""
    labels = int(label_codes.max(initial=-1)) + 1
    cells, counts = np.unique(codes * labels + label_codes, return_counts=True)
    held: list[list[tuple[int, int]]] = [[] for _ in sizes]
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        held[cell // labels].append((cell % labels, count))
    for group, size in zip(held, sizes.tolist(), strict=True):
        group.append((labels, size))
    return held


def _group_codes(groups: list[str]) -> NDArray[np.int64]:
    """Number groups by their first row; each row without a group is one of its own."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(group, row) if group else row for row, group in enumerate(groups)], np.int64)


def _take(
    rows: Rows,
    labels: NDArray[np.int64],
    whole: NDArray[np.int64] | None,
    share: float,
    random: np.random.Generator,
    where: str,
    purpose: str,
) -> tuple[Rows, Rows]:
    """Take a share of some rows, and give (taken, left), both sorted."""
    if whole is None:
        return draw(rows, labels, round(len(rows) * share), random)
    count = len(np.unique(whole[rows]))
    if count < 2:
        found, expected = f"{count} group among {len(rows)} images", f"at least 2, to share out between {purpose}"
        raise UserError(where, found, expected, "Give images of more groups.")
    parts = grouped_parts(labels[rows], whole[rows], [1 - share, share], random)
    return rows[parts == 1], rows[parts == 0]


def _folds(
    labels: NDArray[np.int64], whole: NDArray[np.int64] | None, folds: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Give the fold of each row, (N,); without groups every fold is within one row of its share of every label."""
    what, count = ("images", len(labels)) if whole is None else ("groups", len(np.unique(whole)))
    if count < folds:
        raise UserError('key "data.folds"', str(folds), f"at most {count}, as many as there are {what}")
    if whole is not None:
        return grouped_parts(labels, whole, [1 / folds] * folds, random)
    shuffled = random.permutation(len(labels))
    parts = np.empty(len(labels), dtype=np.int64)
    parts[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(labels)) % folds  # dealt like cards
    return parts


def _check_any(given: Rows, where: str) -> None:
    if not len(given):
        raise UserError(where, "no training image", "images to train on", "Give more images, or correct the split.")


def _check_sides(
    marked: NDArray[np.int64],
    whole: NDArray[np.int64],
    groups: list[str],
    where: str,
    findings: Findings,
    names: list[str] | None,
) -> None:
    """Note each group that the given split has on two sides."""
    pairs = np.unique(whole * 3 + marked)  # a group's number is its first row
    numbers, sides = np.unique(pairs // 3, return_counts=True)
    for group in numbers[sides > 1].tolist():
        there = " and ".join(SIDES[pair % 3] for pair in pairs[pairs // 3 == group].tolist())
        remedy = "Correct the split, leave it out, or set data.folds: a split that is made keeps groups whole."
        found = f'group "{groups[group]}" in {there}'
        if names is not None:
            rows = np.flatnonzero(whole == group)
            first = rows[np.unique(marked[rows], return_index=True)[1]]
            found += f", as {' and '.join(quoted(names[row]) for row in first.tolist())}"
        findings.error("group on two sides", where, found, "each group in one split", remedy)
