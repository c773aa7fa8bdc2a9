"""Folders of images to a samples table: ``root/[split/]class/[subclass/]image.png``, and patterns on their names."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data import cell_rules
from subclass_kd.data.cell_rules import CellError, check_parents, judge, look_alikes
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import EXTENSIONS
from subclass_kd.data.paths import check_paths, check_root, quoted, shown
from subclass_kd.data.patient_folders import check_subclass_folders, folder_pattern
from subclass_kd.data.table import SPLIT_NAMES, SampleTable, refuse_keys
from subclass_kd.errors import UserError

_PASSED_OVER = {"__macosx", "thumbs.db", "desktop.ini"}  # what systems leave in folders, in lower case

Columns = dict[str, list[str]]  # class, subclass, split, group -> one value a file, "" where nothing is known


def read(study: Study, findings: Findings) -> SampleTable:
    """Read the images in a study's ``data.root``, sorted by path.

    The depth of the files says which levels there are: the first folder is the split if all first folders are named
    like splits; then come class and subclass. What ``data.pattern`` finds in a file's name goes before what its
    folders say; a pattern with a ``/`` sees the path from the root, so that a folder may be a patient. An image without
    a subclass is of a subclass named like its class.

    Args:
        study: ``data.root`` and ``data.pattern``.
        findings: takes what is wrong with files, which are left out.

    Raises:
        UserError: there is no such folder, no image in it, no level of classes, or no two classes.
    """
    data = study.data
    refuse_keys(study, "table", "columns", "votes")
    root = check_root(data.root)
    patterns = [re.compile(pattern) for pattern in data.pattern]
    names, depth = _at_one_depth(root, walk(root, findings), findings)
    columns, level = _from_folders(root, names, depth, patterns)
    folders = _apply_patterns(patterns, names, columns, level, findings)
    check_subclass_folders(columns["class"], folders, level, str(root), findings)
    return _to_table(root, names, columns, study.hierarchy is not None, findings)


def is_image(name: str) -> bool:
    """Tell by its suffix whether a file is an image that can be read."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def walk(
    root: Path, findings: Findings, is_wanted: Callable[[str], object] = is_image, what: str = "images"
) -> list[str]:
    """Give the paths of all image files under ``root``, sorted; links to folders are refused, so that the walk ends.

    Args:
        root: the folder.
        findings: takes folders that cannot be read, links to folders, and a count of the files passed over.
        is_wanted: says by a file's name whether it is of those to be given.
        what: these are called.
    """
    names: list[str] = []
    others: Counter[str] = Counter()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = folder + entry.name
                    suffix = posixpath.splitext(entry.name)[1].lower()
                    if entry.name.startswith(".") or entry.name.lower() in _PASSED_OVER:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif entry.is_symlink() and os.path.isdir(root / name):
                        _refuse_link(root, name, findings)
                    elif is_wanted(entry.name):
                        names.append(name)
                    else:
                        others[suffix or "no suffix"] += 1
        except OSError as error:
            where, found = shown(str(root / folder)), f"a folder that cannot be read ({error.strerror})"
            findings.error("unreadable folder", where, found, f"a folder of {what}")
    if others:
        found = ", ".join(f"{count} with {shown(suffix)}" for suffix, count in sorted(others.items()))
        findings.warning("files passed over", str(root), f"files that are no {what}: {found}", f"{what} only")
    return sorted(names)


def _refuse_link(root: Path, name: str, findings: Findings) -> None:
    where, target, real_root = shown(str(root / name)), os.path.realpath(root / name), os.path.realpath(root)
    if target == real_root or target.startswith(real_root.rstrip(os.sep) + os.sep):
        remedy = "Put the folder itself there: a file may be a link inside the root folder, a folder may not."
        findings.error("link to a folder", where, f"a link to {quoted(target)}", "a folder", remedy)
    else:
        found = f"{quoted(name)}, a link that leads outside"
        findings.error("path outside the root", where, found, "a folder inside the root folder", "Put it there.")


def _at_one_depth(root: Path, names: list[str], findings: Findings) -> tuple[list[str], int]:
    """Give the files that lie as deep as most, and in how many folders that is; the others are refused."""
    if not names:
        raise UserError(str(root), "no image", _layout(root), "Names of images end in .png, .jpg, .dcm and the like.")
    counts = Counter(name.count("/") for name in names)
    depth = max(counts, key=lambda depth: (counts[depth], depth))
    for name in names:
        if name.count("/") != depth:
            found = f"an image {_deep(name.count('/'))}"
            expected = f"{_deep(depth)}, as {counts[depth]} others: {_layout(root)}"
            findings.error("depth of file", shown(str(root / name)), found, expected)
    return [name for name in names if name.count("/") == depth], depth


def _deep(depth: int) -> str:
    return ("right in the root", "1 folder deep")[depth] if depth < 2 else f"{depth} folders deep"


def _layout(root: Path) -> str:
    return f"images of at least two classes as {root}/[SPLIT/]CLASS/[SUBCLASS/]NAME.png"


def _from_folders(root: Path, names: list[str], depth: int, patterns: list[re.Pattern[str]]) -> tuple[Columns, int]:
    """Give what the folders of each file say, and the level of those of subclasses; all lie ``depth`` folders deep."""
    parts = [name.split("/") for name in names]
    first = sorted({part[0] for part in parts}) if depth else []
    splits = {SPLIT_NAMES.get(name.lower()) for name in first}
    if None in splits and splits & {"train", "test"}:
        found = f"the folders {', '.join(quoted(name) for name in first[:20])}"
        raise UserError(
            str(root), found, "folders of splits only, or of classes only", f"Expected are {_layout(root)}."
        )
    at = int(bool(splits) and None not in splits)  # where the level of classes is
    pattern_has_class = any("class" in pattern.groupindex for pattern in patterns)
    too_deep = depth - at > 2 and not any(map(_sees_path, patterns))  # one that sees them says what folders are
    if too_deep or (depth == at and not pattern_has_class):
        remedy = f'If the images are in "{first[0]}", set key "data.root" to it.' if len(first) == 1 else ""
        if too_deep and not remedy:
            pattern = folder_pattern(depth - 1, "group")
            remedy = f"If folders are patients, say which; if the innermost are: data.pattern: '{pattern}'."
        raise UserError(str(root), f"images {_deep(depth)}", _layout(root), remedy)
    return {
        "class": [part[at] if depth > at else "" for part in parts],
        "subclass": [part[at + 1] if depth > at + 1 else "" for part in parts],
        "split": [part[0] if at else "" for part in parts],
        "group": [""] * len(names),
    }, at + 1


def _sees_path(pattern: re.Pattern[str]) -> bool:
    """Tell whether a pattern is for paths: it has a "/", other than in "[^/]", which a name may have as well."""
    return "/" in pattern.pattern.replace("[^/]", "")


def _apply_patterns(
    patterns: list[re.Pattern[str]], names: list[str], columns: Columns, level: int, findings: Findings
) -> list[str]:
    """Let the first pattern that matches a file's name, or its path, fill or replace its values.

    A folder in which something is found is not taken for the subclass, as its level would have it.

    Returns:
        The folder that each file's subclass still is by its level alone; "" where there is none.
    """
    by_level = columns["subclass"].copy()
    files = [posixpath.basename(name) for name in names]
    sees_path = [*map(_sees_path, patterns)]
    used: set[str] = set()
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        for pattern, is_of_path in zip(patterns, sees_path, strict=True):
            match = pattern.search(name if is_of_path else file)
            if match:
                used.add(pattern.pattern)
                found = {key: value for key, value in match.groupdict().items() if value}
                if is_of_path and any(name.count("/", 0, match.end(key)) == level for key in found):
                    columns["subclass"][row] = by_level[row] = ""
                for key, value in found.items():
                    columns[key][row] = value
                if "subclass" in found:
                    by_level[row] = ""
                break
    for pattern, is_of_path in zip(patterns, sees_path, strict=True):
        if pattern.pattern not in used:
            texts, what = (names, "path") if is_of_path else (files, "file name")
            text = f"{quoted(pattern.pattern)}, which matches no {what}"
            if any(map(pattern.search, texts)):
                text += " that those before it leave"
            examples = f"a pattern for {what.removeprefix('file ')}s such as {', '.join(map(quoted, texts[:3]))}"
            findings.error("pattern", 'key "data.pattern"', text, examples, "Correct or remove it.")
    return by_level


def _to_table(root: Path, names: list[str], columns: Columns, has_hierarchy: bool, findings: Findings) -> SampleTable:
    def place(row: int) -> str:
        return shown(str(root / names[row]))

    _demand_two(root, set(columns["class"]) - {""})
    good = np.ones(len(names), dtype=bool)
    column = partial(_column, good=good, place=place, findings=findings)
    classes = _one_spelling(column(columns["class"], cell_rules.name, needed="class"), place, findings)
    subclasses, own = classes, any(columns["subclass"])
    if own:
        _warn_of_missing(classes, columns["subclass"], place, findings)
        given = _one_spelling(column(columns["subclass"], cell_rules.name), place, findings)
        subclasses = [subclass or name for subclass, name in zip(given, classes, strict=True)]
        check_parents(classes, subclasses, good, place, findings)
    splits = column(columns["split"], cell_rules.split, needed="split") if any(columns["split"]) else None
    groups = column(columns["group"], cell_rules.group) if any(columns["group"]) else None
    good &= check_paths(root, names, place, findings)
    table = SampleTable(
        where=str(root),
        names=names,
        root=root,
        classes=None if has_hierarchy and not own else classes,  # the folders are the hierarchy's subclasses
        subclasses=subclasses,
        splits=splits,
        groups=groups,
        group_source="data.pattern" if groups else "",
    )
    return table.take(np.flatnonzero(good))


def _demand_two(root: Path, classes: set[str]) -> None:
    if len(classes) < 2:
        found = f"one class, {quoted(*classes)}" if classes else "no class"
        inside = [root / name for name in classes if (root / name).is_dir()]
        remedy = f'If the classes are folders in it, set key "data.root" to {quoted(str(inside[0]))}.' if inside else ""
        raise UserError(str(root), found, _layout(root), remedy)


def _column(
    cells: list[str],
    rule: Callable[[str], str],
    *,
    needed: str = "",
    good: NDArray[np.bool_],
    place: Callable[[int], str],
    findings: Findings,
) -> list[str]:
    """Judge values that may be unknown; what is wrong with a folder's name is told once, not for each file in it."""
    told: set[CellError] = set()

    def judged(cell: str) -> str:
        if not cell and needed:
            found, expected = f"no {needed}", f"a {needed} from a folder's name or data.pattern, as other files have"
            raise CellError(found, found, expected)
        return rule(cell) if cell else ""

    def refuse(row: int, why: CellError) -> None:
        good[row] = False
        if why not in told or not cells[row]:
            findings.error(why.kind, place(row), why.found, why.expected, why.remedy)
        told.add(why)

    return judge(cells, judged, "", refuse)


def _one_spelling(labels: list[str], place: Callable[[int], str], findings: Findings) -> list[str]:
    """Refuse labels that look alike: who writes both means one, some systems join them. The most frequent stands."""
    spelling: dict[str, str] = {}
    for names in look_alikes(labels):
        counts = Counter(label for label in labels if label in names)
        spelling |= dict.fromkeys(names, counts.most_common(1)[0][0])
        found = " and ".join(f"{quoted(name)} ({counts[name]} images)" for name in names)
        remedy = f"Rename one, for example at {place(labels.index(names[1]))}."
        findings.error("labels alike", place(labels.index(names[0])), found, "one spelling", remedy)
    return [spelling.get(label, label) for label in labels] if spelling else labels


def _warn_of_missing(
    classes: list[str], subclasses: list[str], place: Callable[[int], str], findings: Findings
) -> None:
    """Say where only some images of a class have a subclass: a pattern may have missed the others."""
    images = Counter(classes)
    missing = Counter(name for name, subclass in zip(classes, subclasses, strict=True) if not subclass)
    for name, count in missing.items():
        if count < images[name]:
            row = next(row for row, subclass in enumerate(subclasses) if not subclass and classes[row] == name)
            found = f"no subclass of class {quoted(name)}, as of {count} of its {images[name]} images"
            findings.warning("no subclass", place(row), found, f"one; {quoted(name)} is taken for it")
