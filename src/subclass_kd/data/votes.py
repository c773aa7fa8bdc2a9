"""Annotators' votes become a class by majority and a subclass by agreement.

The subclasses of a class then differ in how sure its annotators were: which images are hard, and which way they lean.
The paper's mapping of MHIST's seven votes is not published; "each" and "pairs" are the two plausible ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd import config
from subclass_kd.data import table
from subclass_kd.errors import UserError

Side = int | None  # 0 negative, 1 positive, None a tie that is dropped
Level = Callable[[int, int, int], str]  # (positive, annotators, side) -> what the subclass is called beside its class


@dataclass(frozen=True, eq=False)
class Resolved:
    """Labels that votes gave.

    Args:
        subclasses: the subclass of each row; "" of a row that is dropped.
        kept: (N,) bool: False for a tie that is dropped.
        hierarchy: the negative class, then the positive one, each with those of its subclasses that occur, in the
            order of their share of positive votes.
    """

    subclasses: list[str]
    kept: NDArray[np.bool_]
    hierarchy: dict[str, list[str]]


def resolve(votes: table.Votes, rule: config.Votes, classes: tuple[str, str]) -> Resolved:
    """Give each image the class that more than half of its annotators chose, and a subclass by how many they were.

    Subclasses by ``rule.subclasses``:

    - "each": one for each share of positive votes. Its name has the count, "SSA 4/7", where all images have one number
      of annotators, else the reduced share, "malignant 3/4".
    - "pairs": neighbouring counts in pairs, from the unanimous end of each class: "HP 0-1/7", "HP 2-3/7". An odd count
      is left alone beside the tie.
    - cut points on agreement, the share of annotators on the class's side: [0.8, 1.0] gives "HP <80%",
      "HP 80-<100%" and "HP 100%". A cut point written with two decimals or more stands for the shares that round to
      it: 0.67 is two thirds.

    Args:
        votes: of N images.
        rule: ``tie`` and ``subclasses`` are read.
        classes: names of the negative and of the positive class.

    Raises:
        UserError: the classes have one name, a class has no image, cut points do not ascend, or pairs are asked for
            and numbers of annotators differ.

    >>> votes = table.Votes(np.array([0, 1, 4, 7, 6]), np.array([7, 7, 7, 7, 7]))
    >>> resolve(votes, config.Votes(subclasses="pairs"), ("HP", "SSA")).hierarchy
    {'HP': ['HP 0-1/7'], 'SSA': ['SSA 4-5/7', 'SSA 6-7/7']}
    """
    if classes[0] == classes[1]:
        raise UserError('key "votes.classes"', f'"{classes[0]}" twice', "two different names")
    pairs, index = _distinct(votes)
    sides = [_side(positive, annotators, rule.tie) for positive, annotators in pairs]
    numbers = {annotators for (_, annotators), side in zip(pairs, sides, strict=True) if side is not None}
    level = _levels(rule, numbers)
    names = [
        "" if side is None else f"{classes[side]} {level(*pair, side)}" for pair, side in zip(pairs, sides, strict=True)
    ]
    hierarchy = {
        name: list(dict.fromkeys(names[k] for k in range(len(pairs)) if sides[k] == side))
        for side, name in enumerate(classes)
    }
    kept = np.array([side is not None for side in sides], dtype=bool)[index]
    _check_both(hierarchy, ties=int(len(kept) - kept.sum()))
    return Resolved([names[k] for k in index.tolist()], kept, hierarchy)


def positive_shares(votes: table.Votes) -> NDArray[np.float64]:
    """Give the share of positive votes of each image, (N,), 0 to 1: soft labels.

    >>> positive_shares(table.Votes(np.array([1, 4]), np.array([4, 4]))).tolist()
    [0.25, 1.0]
    """
    return np.asarray(votes.positive / votes.annotators, dtype=np.float64)


def agreement(votes: table.Votes) -> NDArray[np.float64]:
    """Give the share of annotators on the majority's side, (N,), from 0.5 (a tie) to 1 (unanimous).

    >>> agreement(table.Votes(np.array([0, 1, 2]), np.array([4, 4, 4]))).tolist()
    [1.0, 0.75, 0.5]
    """
    majority = np.maximum(votes.positive, votes.annotators - votes.positive)
    return np.asarray(majority / votes.annotators, dtype=np.float64)


def vote_summary(
    votes: table.Votes,
    class_labels: NDArray[np.int64],
    subclass_labels: NDArray[np.int64],
    classes: Sequence[str],
    subclass_names: Sequence[str],
) -> dict[str, Any]:
    """Describe how votes spread over the classes, and how much they could tell beyond the class.

    Entropies are of the observed shares, in bits an image (Shannon 1948): ``class_entropy`` H(C), ``subclass_entropy``
    H(S|C), which is the ceiling of label bits, and ``vote_entropy``, what H(S|C) would be with one subclass for each
    share of positive votes.

    Args:
        votes: of the N images kept.
        class_labels: (N,) into ``classes``.
        subclass_labels: (N,) into ``subclass_names``.
        classes: their names.
        subclass_names: their names.

    Returns:
        Plain values for JSON. ``counts`` has a row for each (positive, annotators) that occurs, by share of positive
        votes, with the number of images of each class.
    """
    pairs, index = _distinct(votes)
    counts = np.zeros((len(pairs), len(classes)), dtype=np.int64)
    np.add.at(counts, (index, class_labels), 1)
    numbers, images = np.unique(votes.annotators, return_counts=True)
    by_number = [{"annotators": n, "images": k} for n, k in zip(numbers.tolist(), images.tolist(), strict=True)]
    by_subclass = np.bincount(subclass_labels, minlength=len(subclass_names)).tolist()
    shares = {share: code for code, share in enumerate(dict.fromkeys(Fraction(*pair) for pair in pairs))}
    share_codes = np.array([shares[Fraction(*pair)] for pair in pairs], dtype=np.int64)[index]
    return {
        "images": len(votes),
        "annotators": by_number[0]["annotators"] if len(by_number) == 1 else by_number,
        "counts": [
            {"positive": positive, "annotators": annotators, "images": dict(zip(classes, row, strict=True))}
            for (positive, annotators), row in zip(pairs, counts.tolist(), strict=True)
        ],
        "subclasses": [{"name": name, "images": k} for name, k in zip(subclass_names, by_subclass, strict=True)],
        "class_entropy": _entropy(class_labels),
        "subclass_entropy": _entropy_within(class_labels, subclass_labels),
        "vote_entropy": _entropy_within(class_labels, share_codes),
    }


def _distinct(votes: table.Votes) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Give the few (positive, annotators) that occur, by share of positive votes, and each row's place among them."""
    numbers, number_codes = np.unique(votes.annotators, return_inverse=True)
    codes = number_codes + len(numbers) * np.unique(votes.positive, return_inverse=True)[1]
    first, inverse = np.unique(codes, return_index=True, return_inverse=True)[1:]
    found = list(zip(votes.positive[first].tolist(), votes.annotators[first].tolist(), strict=True))
    ascending = sorted(range(len(found)), key=lambda k: (Fraction(*found[k]), found[k][1]))
    place = np.empty(len(found), dtype=np.int64)
    place[ascending] = np.arange(len(found))
    return [found[k] for k in ascending], place[inverse]


def _side(positive: int, annotators: int, tie: str) -> Side:
    if 2 * positive == annotators:
        return {"drop": None, "negative": 0, "positive": 1}[tie]
    return int(2 * positive > annotators)


def _levels(rule: config.Votes, numbers: set[int]) -> Level:
    if rule.subclasses == "pairs":
        return _pairs(rule.tie, numbers)
    if rule.subclasses == "each":
        one = len(numbers) == 1
        return lambda positive, annotators, side: (
            f"{positive}/{annotators}" if one else str(Fraction(positive, annotators))
        )
    return _cuts(rule.subclasses)


def _pairs(tie: str, numbers: set[int]) -> Level:
    if len(numbers) > 1:
        found = f'"pairs", and images of {min(numbers)} to {max(numbers)} annotators'
        remedy = 'Use "each", or cut points such as [0.8, 1.0].'
        raise UserError('key "votes.subclasses"', found, "one number of annotators for all images", remedy)

    def level(positive: int, annotators: int, side: int) -> str:
        against = positive if side == 0 else annotators - positive
        with_tie = _side(1, 2, tie) == side
        most = annotators // 2 if with_tie else (annotators - 1) // 2  # votes against that leave this class
        first = against // 2 * 2
        last = min(first + 1, most)
        low, high = (first, last) if side == 0 else (annotators - last, annotators - first)
        return f"{low}-{high}/{annotators}" if low < high else f"{low}/{annotators}"

    return level


def _cuts(cuts: list[float]) -> Level:
    if not cuts or sorted(set(cuts)) != cuts:
        expected = 'cut points above 0.5 and up to 1 in ascending order, "each" or "pairs"'
        raise UserError('key "votes.subclasses"', f"{cuts}", expected)
    written = [Decimal(str(cut)) for cut in cuts]
    percent = [f"{(cut * 100).normalize():f}" for cut in written]
    between = [f"{low}-<{high}%" for low, high in itertools.pairwise(percent)]
    last = "100%" if percent[-1] == "100" else f"{percent[-1]}-100%"
    names = [f"<{percent[0]}%", *between, last]

    def level(positive: int, annotators: int, side: int) -> str:
        share = Fraction(positive if side else annotators - positive, annotators)
        return names[sum(_reaches(share, cut) for cut in written)]

    return level


def _reaches(share: Fraction, cut: Decimal) -> bool:
    """Compare as a person reads: who writes 0.67 or 0.6667 means two thirds; who writes 0.7 means no less."""
    decimals = -int(cut.as_tuple().exponent)
    return share >= Fraction(cut) or (decimals >= 2 and round(share, decimals) == Fraction(cut))


def _check_both(hierarchy: dict[str, list[str]], ties: int) -> None:
    for name, members in hierarchy.items():
        if not members:
            remedy = "Check that the votes counted are those for the positive class."
            if ties:
                remedy = f"{ties} images are ties and dropped; votes.tie can give them to a class."
            found = f'no image of class "{name}" by majority of votes'
            raise UserError('key "votes"', found, "images of both classes", remedy)


def _entropy(codes: NDArray[np.int64]) -> float:
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return max(0.0, -float(shares @ np.log2(shares)))


def _entropy_within(given: NDArray[np.int64], codes: NDArray[np.int64]) -> float:
    """Entropy in bits of ``codes`` where ``given`` is known: that of both together less that of ``given``."""
    both = given * (codes.max(initial=0) + 1) + codes
    return max(0.0, _entropy(both) - _entropy(given))
