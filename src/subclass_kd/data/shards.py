"""Shards in WebDataset's format to a samples table: images, and beside each its labels as JSON or as a class alone.

A shard is a tar file. Members whose names are the same up to the first dot of the base name are one sample, as in
https://github.com/webdataset/webdataset. Nothing is unpacked.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subclass_kd import config
from subclass_kd.ahead import in_order
from subclass_kd.config import Study
from subclass_kd.data.cell_rules import CellError
from subclass_kd.data.cells import Sheet, cell_text
from subclass_kd.data.findings import Findings
from subclass_kd.data.folder import walk
from subclass_kd.data.images import EXTENSIONS
from subclass_kd.data.members import Root, path_of, remote
from subclass_kd.data.paths import UNPRINTABLE, check_paths, check_root, quoted, shown
from subclass_kd.data.shard_index import LARGEST_TEXT, TOGETHER, Entry, entries
from subclass_kd.data.table import SPLIT_NAMES, SampleTable, refuse_keys
from subclass_kd.data.tabular import choose, demand_labels, resolve_columns
from subclass_kd.data.vote_columns import vote_columns
from subclass_kd.errors import UserError

is_shard = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz)$", re.IGNORECASE).search
_UNNAMED: tuple[config.ColumnName, ...] = ("class", "subclass", "split", "group")  # used without being named
_LAYOUT = "shards such as train-000.tar, with 0001.jpg and 0001.json or 0001.cls in them"


def read(study: Study, findings: Findings) -> SampleTable:
    """Read the shards below a study's ``data.root``, sorted by path; samples in the order of each shard.

    A sample's ``.json`` is what a row of a table is; its ``.cls`` is the class where that says none. The name of a
    shard may give the split of its samples.

    Args:
        study: ``data.root``, ``data.columns``, ``votes``.
        findings: takes what is wrong with shards, members and labels; these samples are left out.

    Raises:
        UserError: there is no shard, a part of the shards are named like splits, or no label is found.
    """
    data = study.data
    refuse_keys(study, "table", "pattern")
    if "path" in data.columns:
        raise UserError('key "data.columns.path"', "a value", "no such key there", "Remove it: shards hold the images.")
    root = data.root if isinstance(data.root, str) else check_root(data.root)
    return _to_table(study, root, collect(study, root, findings), findings)


def collect(study: Study, root: Root, findings: Findings) -> Rows:
    """Give what the shards under a folder hold, and what is said of it, not judged yet.

    Args:
        study: ``data.columns`` and ``votes`` say which values of the samples' JSON are kept.
        root: the folder, or its URL.
        findings: takes what is wrong with shards and members.

    Raises:
        UserError: as :func:`read`, but that labels are not looked at.
    """
    data, names = study.data, find(root, findings)
    voted = [] if study.votes is None else [*vote_columns(study.votes)]
    usual = [data.columns.get(key, key) for key in _UNNAMED]
    wanted = dict.fromkeys([*data.columns.values(), *usual, *voted])
    rows = Rows({name: [] for name in wanted}, data.columns.get("class", "class"), data.columns.get("split", "split"))
    splits, passed_over = _splits(root, names), Counter[str]()
    paths = [str(path_of(root, name)) for name in names]
    with ThreadPoolExecutor(TOGETHER) as pool:
        for number, found in enumerate(in_order(pool, lambda k: _entries(paths[k]), len(paths), TOGETHER)):
            if isinstance(found, UserError):
                findings.add(found, "shard")
            else:
                before = len(rows.names), findings.errors
                for sample in _samples(paths[number], found, passed_over, findings):
                    rows.add(sample, names[number], splits[number], paths[number], findings)
                if before == (len(rows.names), findings.errors):
                    findings.warning("empty shard", paths[number], "no image", "images and their labels")
    if passed_over:
        listed = ", ".join(f"{count} with {shown(suffix)}" for suffix, count in sorted(passed_over.items())[:20])
        found_here = f"members that are no image, .json or .cls: {listed}"
        findings.warning("files passed over", str(root), found_here, "images and their labels only")
    return rows


def find(root: Root, findings: Findings) -> list[str]:
    """Give the paths of all shards under a folder, sorted.

    Args:
        root: the folder, or its URL.
        findings: takes what is wrong with files, which are left out.

    Raises:
        UserError: there is none, or a store does not answer.
    """
    names = []
    there = walk(root, findings, is_shard, "shards") if isinstance(root, Path) else remote(root).paths()
    for name in there if isinstance(root, Path) else filter(is_shard, there):
        where = shown(str(path_of(root, name)))
        if not name.lower().endswith(".tar"):
            remedy = "Decompress it, as with gunzip: images are read from their places in the shard."
            findings.error("shard", where, "a compressed archive", "an uncompressed .tar", remedy)
        elif ".tar/" in name.lower():
            findings.error("shard", where, "a file in a folder named like a shard", _LAYOUT, "Rename the folder.")
        else:
            names.append(name)
    if not names:
        raise UserError(str(root), "no file in .tar", _LAYOUT)
    if not isinstance(root, Path):
        return names
    good = check_paths(root, names, lambda row: shown(str(root / names[row])), findings, "a shard")
    return [name for name, fits in zip(names, good.tolist(), strict=True) if fits]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(facts := dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return facts


_JSON = json.JSONDecoder(object_pairs_hook=_once)  # made once: that takes longer than to read a small object


class _Sample(NamedTuple):
    """An image of a shard, and what is said of it."""

    name: str
    image: Entry
    facts: dict[str, Any]
    label: str | None  # of .cls


@dataclass
class Rows:
    """The samples of some shards, as columns.

    Args:
        cells: of every column that may be asked for; the others of the samples' JSON are known by name alone.
        class_column, split_column: those that ``.cls`` and the shard's name fill where JSON says nothing.
        names, spans: as a samples table has them.
        header: the keys of all samples' JSON, and the two columns where they are filled.
    """

    cells: dict[str, list[str]]
    class_column: str
    split_column: str
    names: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    header: dict[str, None] = field(default_factory=dict)

    def add(self, sample: _Sample, shard: str, split: str, path: str, findings: Findings) -> None:
        """Add a sample, unless a value of it is no cell, or its split is not that of its shard."""
        facts, where = sample.facts, f"{path}, {sample.name}"
        nested = next((name for name in self.cells if isinstance(facts.get(name), list | dict)), None)
        if nested is not None:
            found = f"a {'list' if isinstance(facts[nested], list) else 'JSON object'}"
            findings.error("nested value", f"{where}, key {quoted(nested)}", found, "text or a number")
            return
        if not facts.keys() <= self.header.keys():
            self.header |= dict.fromkeys(facts)
        cells = {name: cell_text(facts.get(name)) for name in self.cells}
        if sample.label is not None:
            self.header[self.class_column] = None
            cells[self.class_column] = cells[self.class_column] or sample.label
        if split:
            own = cells[self.split_column].strip()
            if own and SPLIT_NAMES.get(own.lower(), split) != split:
                found, expected = f"{quoted(own)} in a shard of {split}", "one split, or one of the two not to say any"
                findings.error("split", f"{where}, key {quoted(self.split_column)}", found, expected)
                return
            self.header[self.split_column] = None
            cells[self.split_column] = own or split
        for name, column in self.cells.items():
            column.append(cells[name])
        self.names.append(f"{shard}/{sample.name}")
        self.spans.append((sample.image.first, sample.image.size))


def _to_table(study: Study, root: Root, rows: Rows, findings: Findings) -> SampleTable:
    if not rows.names:
        return SampleTable(str(root), [], root=root)
    header = [name for name in rows.header if name]
    chosen = choose(study.data.columns, header, root)
    chosen.pop("path", None)
    demand_labels(chosen, study.votes, header, root, str(root), has_hierarchy=study.hierarchy is not None)
    count = len(rows.names)
    sheet = Sheet(str(root), rows.cells, np.arange(count), np.ones(count, dtype=bool), findings, rows.names)
    known = resolve_columns(sheet, chosen, study.votes)
    table = SampleTable(str(root), rows.names, root, np.array(rows.spans, dtype=np.int64), **known)
    return table if sheet.good.all() else table.take(np.flatnonzero(sheet.good))


def _splits(root: Root, names: list[str]) -> list[str]:
    """Give the split that each shard's path names, "" for each where they do not name any.

    Raises:
        UserError: some name train or test and others nothing, or one names two.
    """
    splits = []
    for name in names:
        parts = [re.findall("[a-z]+", part) for part in name.lower().split("/")]
        found = {SPLIT_NAMES[part[0]] for part in parts if part and part[0] in SPLIT_NAMES}
        # As in imagenet-train-000.tar.
        found = found or {SPLIT_NAMES[word] for part in parts for word in part if word in SPLIT_NAMES}
        if len(found) > 1:
            text = f"a path with the splits {' and '.join(sorted(found))}"
            raise UserError(str(path_of(root, name)), text, "the name of one split", "Rename it.")
        splits.append("".join(found))
    if "" in splits and {"train", "test"} & {*splits}:
        given = next(name for name, split in zip(names, splits, strict=True) if split in ("train", "test"))
        other = names[splits.index("")]
        text = f"{quoted(given)}, named like a split, and {quoted(other)}"
        raise UserError(str(root), text, "all shards named like splits, or none", "Rename them.")
    return [""] * len(names) if "" in splits else splits


def _entries(shard: str) -> list[Entry] | UserError:
    try:
        return entries(shard)
    except UserError as error:
        return error


def _samples(shard: str, members: list[Entry], passed_over: Counter[str], findings: Findings) -> Iterator[_Sample]:
    """Give the samples of a shard, in the order of their first members."""
    keys: dict[str, dict[str, Entry]] = {}  # key -> suffix -> member
    bad: set[str] = set()
    for entry in members:
        name = posixpath.normpath(entry.name)
        folder, base = posixpath.split(name)
        if (base.startswith(".") and name not in (".", "..")) or name.startswith("__"):
            continue  # what systems leave, and WebDataset's own notes
        stem, dot, ending = base.partition(".")
        key, suffix = posixpath.join(folder, stem), f"{dot}{ending}".lower()
        problem = _problem(entry, name)
        known = keys.setdefault(key, {})
        if problem is None and suffix in known:
            if key in bad:
                continue
            found, remedy = f"the key {quoted(key)} twice with {shown(suffix)}", "Give each sample a key of its own."
            problem = CellError("duplicate key", found, "each member once", remedy)
        if problem is not None:
            findings.error(problem.kind, f"{shard}, {shown(name)}", problem.found, problem.expected, problem.remedy)
            bad.add(key)
        elif suffix in EXTENSIONS or suffix in (".json", ".cls"):
            known[suffix] = entry if entry.name == name else entry._replace(name=name)
        else:
            passed_over[posixpath.splitext(suffix)[1] or suffix or "no suffix"] += 1
    for key, known in keys.items():
        if key not in bad and known:
            try:
                yield _sample(key, known)
            except CellError as error:
                findings.error(error.kind, f"{shard}, {shown(key)}", error.found, error.expected, error.remedy)


def _problem(entry: Entry, name: str) -> CellError | None:
    """Say what is wrong with a member by itself, or nothing; no name is ever used as a path."""
    if UNPRINTABLE.search(entry.name):
        return CellError("characters in path", quoted(entry.name), "a name in UTF-8 without control characters")
    if name == ".":
        return CellError("no name", "a member without a name", "0001.jpg and the like", "Write the shard again.")
    if name == ".." or name.startswith(("/", "../")):
        return CellError("path outside the shard", quoted(entry.name), "a name below the shard's own folder")
    if entry.odd:
        remedy = "Write the file itself, as with tar --dereference --hard-dereference." if "link" in entry.odd else ""
        return CellError("not a file", entry.odd, "a plain file", remedy)
    return None


def _sample(key: str, known: dict[str, Entry]) -> _Sample:
    images = [entry for suffix, entry in known.items() if suffix in EXTENSIONS]
    if len(images) != 1:
        if not images:
            found = f"no image beside {' and '.join(known)}"
            raise CellError("images of a key", found, f"one, such as {shown(key)}.jpg")
        found = f"{len(images)} images, {' and '.join(quoted(image.name) for image in images)}"
        raise CellError("images of a key", found, "one image", "A key ends at the first dot of a name.")
    if not images[0].size:
        raise CellError("empty file", f"{quoted(images[0].name)} of 0 bytes", "an image file", "Write it again.")
    facts = _facts(known[".json"]) if ".json" in known else {}
    label = known[".cls"].text if ".cls" in known else None
    if ".cls" in known and label is None:
        raise CellError("class", f"a .cls of {known['.cls'].size:,} bytes", "the name or number of a class")
    return _Sample(images[0].name, images[0], facts, None if label is None else label.strip())


def _facts(entry: Entry) -> dict[str, Any]:
    """Read a sample's JSON object."""
    kind, expected, remedy = "JSON", 'a JSON object in UTF-8, such as {"class": "a"}', "Write the file again."
    if entry.text is None:
        raise CellError(kind, f".json of {entry.size:,} bytes", f"{expected}, of at most {LARGEST_TEXT:,} bytes")
    try:
        entry.text.encode()
        facts = _JSON.decode(entry.text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        reason = "bytes that are not UTF-8" if isinstance(error, UnicodeEncodeError) else str(error)
        raise CellError(kind, f".json that cannot be read ({reason})", expected, remedy) from None
    if not isinstance(facts, dict):
        raise CellError(kind, f".json of a {type(facts).__name__}", expected, remedy)
    return facts
