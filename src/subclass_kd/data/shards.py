"""Shards in WebDataset's format to a samples table: images, and beside each its labels as JSON or as a class alone.

A shard is a tar file. Members whose names are the same up to the first dot of the base name are one sample, as in
https://github.com/webdataset/webdataset. Nothing is unpacked.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from subclass_kd import config
from subclass_kd.ahead import in_order
from subclass_kd.config import Study
from subclass_kd.data.cell_rules import as_float
from subclass_kd.data.cells import Sheet, cell_text
from subclass_kd.data.findings import Findings
from subclass_kd.data.folder import walk
from subclass_kd.data.members import Root, path_of, remote
from subclass_kd.data.paths import check_paths, check_root, quoted, shown
from subclass_kd.data.shard_index import TOGETHER, Entry, entries
from subclass_kd.data.shard_samples import Sample, samples
from subclass_kd.data.table import SPLIT_NAMES, SampleTable, refuse_keys
from subclass_kd.data.tabular import choose, demand_labels, resolve_columns
from subclass_kd.data.vote_columns import vote_columns
from subclass_kd.errors import UserError

is_shard = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz)$", re.IGNORECASE).search
_UNNAMED: tuple[config.ColumnName, ...] = ("class", "subclass", "split", "group")  # used without being named
_UNUSED = "\0"  # begins the name of no column of the JSON: what .cls and a shard's name say where columns has null
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
    class_column, split_column = (data.columns.get(key, key) or _UNUSED + key for key in ("class", "split"))
    wanted = dict.fromkeys(filter(None, [*data.columns.values(), *usual, class_column, split_column, *voted]))
    rows = Rows({name: [] for name in wanted}, class_column, split_column)
    splits, passed_over = _splits(root, names), Counter[str]()
    paths = [str(path_of(root, name)) for name in names]
    with ThreadPoolExecutor(TOGETHER) as pool:
        for number, found in enumerate(in_order(pool, lambda k: _entries(paths[k]), len(paths), TOGETHER)):
            if isinstance(found, UserError):
                findings.add(found, "shard")
            else:
                before = len(rows.names), findings.errors
                for sample in samples(paths[number], found, passed_over, findings):
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

    def add(self, sample: Sample, shard: str, split: str, path: str, findings: Findings) -> None:
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
            own = cells[self.class_column].strip()
            # A number may be the index of the other's name.
            if own not in ("", sample.label) and as_float(own) is None and as_float(sample.label) is None:
                place, remedy = f"{where}, key {quoted(self.class_column)}", "Correct one of them, or remove the .cls."
                found = f"{quoted(own)}, and {quoted(sample.label)} in .cls"
                findings.error("two classes", place, found, "one class", remedy)
                return
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
    header = [name for name in rows.header if name and not name.startswith(_UNUSED)]
    chosen = choose(study.data.columns, header, root)
    chosen.pop("path", None)
    if _UNUSED + "split" in rows.header:
        chosen["split"] = rows.split_column
    demand_labels(chosen, study.votes, header, root, str(root), has_hierarchy=study.hierarchy is not None)
    count = len(rows.names)
    sheet = Sheet(str(root), rows.cells, np.arange(count), np.ones(count, dtype=bool), findings, rows.names)
    known = resolve_columns(sheet, chosen, study.votes)
    table = SampleTable(str(root), rows.names, root, np.array(rows.spans, dtype=np.int64), **known)
    return table if sheet.good.all() else table.take(np.flatnonzero(sheet.good))


def _splits(root: Root, names: list[str]) -> list[str]:
    """Give the split that each shard's path names, "" for each where they do not name any.

    Raises:
        UserError: some name a split and others nothing, or one names two.
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
    if "" in splits and any(splits):
        given = next(name for name, split in zip(names, splits, strict=True) if split)
        other = names[splits.index("")]
        text = f"{quoted(given)}, named like a split, and {quoted(other)}"
        raise UserError(str(root), text, "all shards named like splits, or none", "Rename them.")
    return splits


def _entries(shard: str) -> list[Entry] | UserError:
    try:
        return entries(shard)
    except UserError as error:
        return error
