"""What file names tell: a word that is a subclass, a number that is a patient."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from subclass_kd.data.patient_folders import MOST_SUBCLASSES
from subclass_kd.name_shapes import NUMBER, RANDOM, WORD, Names, Shape, Span, expression

SMALLEST_SHARE, FEWEST = 0.02, 5  # of a class's files, for a word to be one of its subclasses
COVERED = 0.98  # of a class's files must have the word
LARGEST_GROUP = 0.2  # share of the files: a number with more is a site or a year, not a patient
MOST_SHAPES, FOLLOWED = 20, 0.9  # names with more shapes than this, for this share of the files, follow no pattern


@dataclass(frozen=True)
class Patterns:
    """Regular expressions for ``data.pattern``.

    Args:
        expressions: in the order in which they are to be tried.
        notes: sentences on how they were found, and what is doubtful.
    """

    expressions: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _Word:
    """The token that names a class's subclass: of names of which shape, in which place, and its values."""

    shape: Shape
    place: int
    values: list[str]


def find_patterns(
    paths: Sequence[str],
    classes: Sequence[str],
    splits: Sequence[str] | None = None,
    find_subclasses: bool = True,
    find_groups: bool = True,
) -> Patterns:
    r"""Find subclass and group in file names.

    The subclass is the first word with 2 to 10 values inside one class, each in at least 2 % of its files and in 5,
    none of which is found in another class. The group is the beginning of the name, up to the first number that
    varies and, inside one folder, repeats; it goes on to the subclass where it would otherwise be on both sides of the
    given split.

    Args:
        paths: N of images, in POSIX form.
        classes: the class of each.
        splits: the given split of each; None if there is none.
        find_subclasses: False where folders have told them.
        find_groups: likewise.

    >>> paths = [f"p{k // 2}_{word}_{k}.png" for word in ("mild", "severe") for k in range(20)]
    >>> find_patterns([*paths, "h1.png", "h2.png"], ["sick"] * 40 + ["well"] * 2).expressions
    ['^(?P<group>p\\d+)_(?P<subclass>mild|severe)']
    """
    names = Names.of(paths)
    if sum(count for _, count in Counter(names.shapes).most_common(MOST_SHAPES)) < FOLLOWED * len(paths):
        return Patterns([], [])
    words = _find_words(names, classes) if find_subclasses else {}
    groups = _find_groups(names, [path.rpartition("/")[0] for path in paths]) if find_groups else {}
    sizes = Counter(classes)
    notes = [
        f"Subclasses of {name}: a word in the names of its {sizes[name]:,} files, {' or '.join(word.values)}."
        for name, word in words.items()
    ]
    found: list[str] = []
    for name, shape in _by_frequency(names, classes):
        word, span = words.get(name), groups.get(shape)
        place = word.place if word and word.shape == shape else None
        rows = names.rows(shape)
        own = [row for row in rows if classes[row] == name]
        # A pattern of another class may match these names and say nothing of their subclass.
        known = [re.compile(text) for text in found if place is None or "(?P<subclass>" in text]
        matched = all(any(pattern.match(_stem(names, row)) for pattern in known) for row in own)
        if matched or (place is None and span is None):
            continue
        if span is not None and splits is not None:
            span, note = _held_together(names, rows, span, place, splits)
            notes += note
        # Numbers as in all names of the shape, words as in those of the class.
        values = zip(shape, names.values(rows), names.values(own), strict=True)
        found.append(expression(shape, [every if kind == NUMBER else few for kind, every, few in values], place, span))
    found = sorted(dict.fromkeys(found), key=lambda text: "(?P<subclass>" not in text)  # others would match first
    return Patterns(found, notes + _count_groups(names, found))


def _stem(names: Names, row: int) -> str:
    return names.text(row, (0, len(names.shapes[row])))


def _count_groups(names: Names, expressions: list[str]) -> list[str]:
    patterns = [re.compile(text) for text in expressions]
    stems = (_stem(names, row) for row in range(len(names.shapes)))
    matches = (next((match for pattern in patterns if (match := pattern.match(stem))), None) for stem in stems)
    groups = Counter(match["group"] for match in matches if match and "group" in match.re.groupindex)
    if not groups:
        return []
    largest = max(groups.values())
    text = f"{len(groups):,} groups of {groups.total():,} images, the largest of {largest:,}"
    return [f"Groups (patients): the name up to a number that repeats; {text}."]


def _by_frequency(names: Names, classes: Sequence[str]) -> list[tuple[str, Shape]]:
    """Give (class, shape) that occur, the most frequent first."""
    return [pair for pair, _ in Counter(zip(classes, names.shapes, strict=True)).most_common(MOST_SHAPES)]


def _find_words(names: Names, classes: Sequence[str]) -> dict[str, _Word]:
    """Find the subclass word of each class that has one."""
    seen: dict[str, set[str]] = defaultdict(set)  # class -> all words in its names
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(classes):
        seen[name].update(part for part in names.tokens[row] if part.isalpha())
        members[name].append(row)
    found: dict[str, _Word] = {}
    for name, shape in _by_frequency(names, classes):
        others = set().union(*(words for other, words in seen.items() if other != name))
        rows = members[name]
        for place, counts in enumerate(names.values(names.rows(shape, rows)) if name not in found else ()):
            few = 2 <= len(counts) <= MOST_SUBCLASSES
            frequent = min(counts.values()) >= max(FEWEST, SMALLEST_SHARE * len(rows))
            wordy = shape[place] == WORD and all(len(value) > 1 for value in counts)
            if few and frequent and wordy and not others & set(counts):
                word = _Word(shape, place, [value for value, _ in counts.most_common()])
                if sum(_has_word(names, row, word) for row in rows) >= COVERED * len(rows):
                    found[name] = word
                    break
    return found


def _has_word(names: Names, row: int, word: _Word) -> bool:
    """Tell whether a name begins as those of the word's shape do, up to the word."""
    end = word.place + 1
    return names.shapes[row][:end] == word.shape[:end] and names.tokens[row][word.place] in word.values


def _find_groups(names: Names, folders: list[str]) -> dict[Shape, Span]:
    """Find, for each shape, which tokens name the patient.

    A number must repeat inside one folder: one that begins anew in each is a mere count.
    """
    found: dict[Shape, Span] = {}
    for shape, _ in Counter(names.shapes).most_common(MOST_SHAPES):
        values = names.values(names.rows(shape))
        for place in range(len(shape)):
            if shape[place] != NUMBER or len(values[place]) == 1:
                continue
            span = _first_of_group(shape, values, place), place
            end = place + 1
            fixed = [(p, part) for p in range(end) if len(values[p]) == 1 for part in values[p]]
            rows = [
                row
                for row, other in enumerate(names.shapes)
                if other[:end] == shape[:end] and all(names.tokens[row][p] == part for p, part in fixed)
            ]
            groups = Counter(names.text(row, span) for row in rows)
            if max(groups.values()) > max(LARGEST_GROUP * len(rows), 2):
                continue
            if len({(folders[row], *names.tokens[row][:end]) for row in rows}) < len(rows):
                found[shape] = span
            break
    return found


def _first_of_group(shape: Shape, values: list[Counter[str]], last: int) -> int:
    """Give the first token that belongs to a number: after the last word that varies and what stands between."""
    first = max((p + 1 for p in range(last) if shape[p] in (WORD, RANDOM) and len(values[p]) > 1), default=0)
    while first < last and shape[first] not in (WORD, NUMBER, RANDOM):
        first += 1
    return first


def _held_together(
    names: Names, rows: list[int], span: Span, place: int | None, splits: Sequence[str]
) -> tuple[Span, list[str]]:
    """Widen a group to the subclass if the given split has it on both sides without, and say so."""

    def torn(tokens: Span) -> int:
        sides: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            sides[names.text(row, tokens)].add(splits[row])
        return sum(len(side) > 1 for side in sides.values())

    wider = span if place is None else (min(span[0], place), max(span[1], place))
    count = torn(span)
    if not count:
        return span, []
    if torn(wider):
        remedy = "delete (?P<group>...) if the numbers begin anew in each split"
        return span, [f"{count:,} groups are on both sides of the given split, which is an error: {remedy}."]
    text = f"The same number stands with several subclasses ({count:,} times on both sides of the given split)"
    doubt = f"If one number is one patient, {count:,} patients are on both sides: then take the number for the group"
    return wider, [
        f"{text}, so number and subclass together are taken for the patient.",
        f"{doubt}, and set data.folds, which splits anew.",
    ]
