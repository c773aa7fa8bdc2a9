r"""File names cut into tokens, names of one shape together, and regular expressions for them.

The shape of ``person12_virus_34`` is a word, a number, ``_``, a word, ``_``, a number.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

WORD, NUMBER, RANDOM = "W", "#", "X"
HEX = "[0-9a-fA-F]"  # of random names, which are one token: their digits tell nothing
TOKENS = re.compile(rf"{HEX}{{8}}(?:-{HEX}{{4}}){{3}}-{HEX}{{12}}|{HEX}{{8,}}|\d+|[^\W\d_]+|[\W_]+")

Shape = tuple[str, ...]  # WORD, NUMBER or RANDOM of each token, or what stands between as it is
Span = tuple[int, int]  # first and last of some tokens


@dataclass(frozen=True)
class Names:
    """File names, without folder and suffix.

    Args:
        tokens: of each name.
        shapes: of each name.
    """

    tokens: list[list[str]]
    shapes: list[Shape]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Self:
        """Cut the names of some paths in POSIX form.

        >>> Names.of(["a/person12_virus.png"])
        Names(tokens=[['person', '12', '_', 'virus']], shapes=[('W', '#', '_', 'W')])
        """
        tokens = [TOKENS.findall(PurePosixPath(path).stem) for path in paths]
        shapes = [tuple(_kind(part) for part in parts) for parts in tokens]
        if 2 * sum(RANDOM in shape for shape in shapes) > len(shapes):
            # Among random names, a long number is one that happens to have no letter.
            shapes = [
                tuple(RANDOM if len(part) >= 8 and part.isalnum() else _kind(part) for part in parts)
                for parts in tokens
            ]
        return cls(tokens, shapes)

    def rows(self, shape: Shape, among: Iterable[int] | None = None) -> list[int]:
        """Give the numbers of the names of a shape."""
        return [row for row in (range(len(self.shapes)) if among is None else among) if self.shapes[row] == shape]

    def values(self, rows: Sequence[int]) -> list[Counter[str]]:
        """Count the values of each token over some names of one shape."""
        return [Counter(column) for column in zip(*(self.tokens[row] for row in rows), strict=True)]

    def text(self, row: int, span: Span) -> str:
        """Give some tokens of a name as they stand."""
        return "".join(self.tokens[row][span[0] : span[1] + 1])


def _kind(part: str) -> str:
    return NUMBER if part.isdecimal() else WORD if part.isalpha() else RANDOM if part[0].isalnum() else part


def expression(shape: Shape, values: list[Iterable[str]], subclass: int | None, group: Span | None) -> str:
    r"""Write a regular expression for the names of a shape, up to the last token that says something.

    Args:
        shape: of the names.
        values: of each token; one of a single value is written as it is.
        subclass: the token that is the subclass, if any.
        group: the tokens that are the group, if any.

    >>> print(expression(("W", "#", "_", "W"), [["p"], ["1", "2"], ["_"], ["mild", "severe"]], 3, (0, 1)))
    ^(?P<group>p\d+)_(?P<subclass>mild|severe)
    """
    last = max(-1 if subclass is None else subclass, -1 if group is None else group[1])
    text = "^"
    for place in range(last + 1):
        found = sorted(set(values[place]))
        piece = f"(?P<subclass>{_choice(found)})" if place == subclass else _piece(shape[place], found)
        opening = "(?P<group>" if group is not None and place == group[0] else ""
        closing = ")" if group is not None and place == group[1] else ""
        text += f"{opening}{piece}{closing}"
    return text


def _piece(kind: str, values: list[str]) -> str:
    if len(values) == 1:
        return _literal(values[0])
    if kind == RANDOM:
        return f"(?:{HEX}|-)+"
    if kind == NUMBER:
        return r"\d+"
    return "[A-Za-z]+" if all(value.isascii() for value in values) else r"[^\W\d_]+"


def _choice(values: list[str]) -> str:
    """Write sorted alternatives, of which the first that fits wins: "benigntumour" must stand before "benign".

    >>> _choice(["bacteria", "virus"]), _choice(["benign", "benigntumour"])
    ('bacteria|virus', 'benigntumour|benign')
    """
    backwards = any(longer.startswith(shorter) for shorter, longer in itertools.pairwise(values))
    return "|".join(_literal(value) for value in (reversed(values) if backwards else values))


def _literal(text: str) -> str:
    r"""Escape what regular expressions read otherwise, and no more: ``re.escape`` would write "IM\-".

    >>> _literal("a.b-c")
    'a\\.b-c'
    """
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)
