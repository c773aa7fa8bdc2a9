"""What some data are: a folder of images or shards, MHIST, a table; and where label, patient and split stand."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from subclass_kd.data import folder, shards
from subclass_kd.data.cell_rules import is_missing
from subclass_kd.data.cells import SUFFIXES, read_columns, read_header
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import EXTENSIONS
from subclass_kd.data.paths import shown
from subclass_kd.data.patient_folders import folder_pattern, patient_level
from subclass_kd.data.patients import with_patients
from subclass_kd.data.table import SPLIT_NAMES, SampleTable
from subclass_kd.errors import UserError
from subclass_kd.file_names import find_patterns
from subclass_kd.study_file import make_study

MHIST_TABLE = "annotations.csv"
MHIST_COLUMN = "Number of Annotators who Selected SSA (Out of 7)"
LOOKED_AT = 200  # rows of a table whose images are looked for
# What a column may be called, the likeliest first; in lower case, letters and digits only.
COLUMNS = {
    "path": ("path", "filepath", "imagepath", "file", "filename", "image", "imagename", "imagefile", "imageid", "img"),
    "class": ("class", "label", "target", "diagnosis", "dx", "classname", "category"),
    "subclass": ("subclass", "subtype", "grade", "subclassname", "subcategory"),
    "split": ("split", "partition", "set", "subset", "fold"),
    "group": (
        "group", "patient", "patientid", "slide", "slideid", "case", "caseid", "subject", "subjectid",
        "lesion", "lesionid",
    ),
}  # fmt: skip
# Columns of these names may also tell cases from controls, or one arm of a trial from the other.
VAGUE_GROUPS = {"group", "case"}
VOTES, ANNOTATORS = ("votes", "positivevotes"), ("annotators", "numannotators", "raters", "readers")


@dataclass
class Found:
    """What `skd init` has found.

    Args:
        content: a study's sections "data" and, with votes, "votes".
        notes: sentences for the study's comments, by key of "data"; "" for those of the study as a whole.
    """

    content: dict[str, Any]
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, key: str, text: str) -> None:
        """Add a sentence."""
        self.notes.setdefault(key, []).append(one_line(text))


def one_line(text: str) -> str:
    """Make one line of text that may hold names with line breaks."""
    return " ".join(text.split())


def look(path: Path) -> Found:
    """Tell what kind of data lie at a path.

    Args:
        path: a folder of images or of shards, MHIST's folder, or a table.

    Raises:
        UserError: nothing is there, or nothing that a study can be made of.
    """
    where = shown(str(path))
    if path.is_dir():
        if _is_mhist(path):
            return Found({"data": {"kind": "mhist", "root": path.as_posix()}})
        return _look_at_folder(path)
    if not path.exists():
        raise UserError(where, "no such file or folder", "a folder of images, or a table", "Check the path.")
    if path.suffix.lower() in SUFFIXES:
        return _look_at_table(path)
    found = f"a file in {shown(path.suffix)}" if path.suffix else "a file name without a suffix"
    remedy = "Give the folder it lies in." if path.suffix.lower() in EXTENSIONS else ""
    raise UserError(where, found, f"a folder of images, or a table in {', '.join(SUFFIXES)}", remedy)


def _is_mhist(path: Path) -> bool:
    if not ((path / MHIST_TABLE).is_file() and (path / "images").is_dir()):
        return False
    try:
        return MHIST_COLUMN in read_header(path / MHIST_TABLE)
    except UserError:  # some other file of this name
        return False


def _look_at_folder(path: Path) -> Found:
    data: dict[str, Any] = {"kind": "folder", "root": path.as_posix()}
    found = Found({"data": data})
    level = patient_level(folder.walk(path, Findings()))
    start = None if level is None else folder_pattern(level, "group")
    try:
        table = folder.read(make_study({"data": data | ({} if start is None else {"pattern": start})}), Findings())
    except UserError:
        if folder.walk(path, Findings(), shards.is_shard):
            return _look_at_shards(path)
        raise
    classes = table.classes or []
    own = table.subclasses is not None and table.subclasses != classes
    levels = ["split"] * (table.splits is not None) + ["class"] + ["subclass"] * own
    # What a header or a folder says of the patient goes before what a number in a name may mean.
    find_groups = with_patients(table, Findings()).groups is None
    patterns = find_patterns(table.names, classes, table.splits, find_subclasses=not own, find_groups=find_groups)
    expressions, notes = patterns.expressions, patterns.notes
    if level is not None and start is not None:
        levels += ["patient"]
        # The first pattern that matches counts: each tells the patient, too.
        between = "[^/]+/" * (table.names[0].count("/") - level - 1)
        expressions = [start + between + expression.removeprefix("^") for expression in expressions] + [start]
        notes = [*notes, *_about_folders(table, level)]
    found.note("kind", f"{'/'.join(levels)}/image")
    if expressions:
        data["pattern"] = expressions
    for note in notes:
        found.note("pattern", note)
    return found


def _about_folders(table: SampleTable, level: int) -> list[str]:
    """Say which folders are taken for patients, and what is doubtful."""
    groups = table.groups or []
    sizes, example = Counter(groups), "/".join(table.names[0].split("/")[: level + 1])
    notes = [
        f"Groups (patients): folders such as {shown(example)}; {len(sizes):,} groups of {len(groups):,} images, the "
        f"largest of {max(sizes.values()):,}. If they are subclasses, write subclass for group in the pattern."
    ]
    if several := _in_several(groups, table.classes or []):
        notes.append(f"{several:,} of them are in two classes or more, and taken for one patient each.")
    if table.splits is not None and (torn := _in_several(groups, table.splits)):
        notes.append(
            f"{torn:,} groups are on both sides of the given split, which is an error: if the names begin anew in each "
            "split, let the group begin with the folder of the split."
        )
    return notes


def _in_several(groups: list[str], labels: list[str]) -> int:
    """Count the groups whose images have more than one label."""
    pairs = Counter(group for group, _ in set(zip(groups, labels, strict=True)))
    return sum(count > 1 for count in pairs.values())


def _look_at_shards(path: Path) -> Found:
    data: dict[str, Any] = {"kind": "webdataset", "root": path.as_posix()}
    found = Found({"data": data})
    header = [*shards.collect(make_study({"data": data}), path, Findings()).header]
    columns = _guess(header)
    columns.pop("path", None)  # where the image came from: its place now is the shard
    chosen = make_study({"data": data | {"columns": columns}})
    _drop_unlikely(found, columns, shards.collect(chosen, path, Findings()).cells)
    _find_votes(found, header, columns, _listed(header), path)
    data["columns"] = columns | _unused(columns, header)
    found.note("columns", f"The samples' JSON, .cls and shards have {_listed(header)}.")
    return found


def _guess(header: list[str]) -> dict[str, str]:
    return {key: name for key, choices in COLUMNS.items() if (name := _find(header, choices))}


def _listed(header: list[str]) -> str:
    return ", ".join(f'"{shown(name)}"' for name in header[:20])


def _look_at_table(path: Path) -> Found:
    header = [name for name in read_header(path) if name]
    columns, listed = _guess(header), _listed(header)
    if "path" not in columns:
        remedy = "Rename one, or write the study by hand: data.columns."
        raise UserError(shown(str(path)), f"the columns {listed}", "one of image paths, such as path or image", remedy)
    found = Found({"data": {"kind": "table", "table": path.as_posix()}})
    cells = read_columns(path, list(dict.fromkeys(columns.values())), Findings()).columns
    _drop_unlikely(found, columns, cells)
    _find_votes(found, header, columns, listed, path)
    root = _find_root(path, cells[columns["path"]])
    if root is None:
        root = path.parent
        found.note(
            "root", f'No image was found for "{cells[columns["path"]][0]}"; name the folder that paths start at.'
        )
    found.content["data"] |= {"root": root.as_posix(), "columns": columns | _unused(columns, header)}
    found.note("columns", f"The table has {listed}.")
    return found


def _drop_unlikely(found: Found, columns: dict[str, str], cells: dict[str, list[str]]) -> None:
    """Take out columns that are called like splits or patients and hold something else."""
    splits = {cell.strip().lower() for cell in cells[columns["split"]]} if "split" in columns else set()
    if not splits <= set(SPLIT_NAMES):
        text = f'Column "{columns.pop("split")}" is not used as split: it has other values than train and test.'
        found.note("columns", text)
    if "group" in columns:
        name = columns["group"]
        values = {"" if is_missing(cell) else cell.strip() for cell in cells[name]}
        # A column that says patient is one, however few there are or large one is: skd check warns of a large group.
        fewest = 3 if _plain(name) in VAGUE_GROUPS else 2  # two cannot be shared out among three splits
        if len(values) < fewest:
            del columns["group"]
            given = " or ".join(f'"{shown(value)}"' if value else "nothing" for value in sorted(values))
            found.note("columns", f'Column "{shown(name)}" is not taken for the patient: every row has {given}.')


def _unused(columns: dict[str, str], header: list[str]) -> dict[str, None]:
    """Say of columns that a study would use for their names, and that are not to be used, that they are not."""
    return dict.fromkeys(key for key in ("subclass", "split", "group") if key in header and key not in columns)


def _find_votes(found: Found, header: list[str], columns: dict[str, str], listed: str, path: Path) -> None:
    """Use votes where nothing else gives a class, and they are called so; else point at what may be some."""
    votes, annotators = _find(header, VOTES), _find(header, ANNOTATORS)
    maybe = [name for name in header if re.search("vote|annotator|rater|reader|selected", name, re.IGNORECASE)]
    if "class" not in columns:
        if not (votes and annotators):
            hint = f" Votes may be in {maybe[0]!r}: see key votes." if maybe else ""
            remedy = f"Rename one, or write the study by hand: data.columns.{hint}"
            raise UserError(shown(str(path)), f"the columns {listed}", "one of classes, such as class or label", remedy)
        found.content["votes"] = {"column": votes, "annotators": annotators}
        columns.pop("subclass", None)
    elif maybe:
        names = ", ".join(f'"{name}"' for name in maybe[:5])
        found.note("", f"Column(s) {names} may be annotators' votes; key votes makes subclasses of them.")


def _find(header: Iterable[str], choices: tuple[str, ...]) -> str | None:
    """Give the column whose name is the likeliest of some choices."""
    plain = {_plain(name): name for name in header}
    return next((plain[choice] for choice in choices if choice in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _find_root(path: Path, cells: list[str]) -> Path | None:
    """Find the folder that most of a table's paths start at: the table's own, or one in it."""
    names = [PureWindowsPath(cell).as_posix() for cell in cells[:LOOKED_AT] if cell]
    try:
        inside = sorted(entry.name for entry in os.scandir(path.parent or ".") if entry.is_dir())
    except OSError:
        inside = []
    folders = [path.parent, *(path.parent / name for name in inside)]
    found = {root: sum((root / name).is_file() for name in names) for root in folders}
    best = max(folders, key=lambda root: found[root])  # the first of equals
    return best if found[best] else None
