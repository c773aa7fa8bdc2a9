"""The members of a shard to samples: one image each, and what its JSON or ``.cls`` says of it."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from subclass_kd.data.cell_rules import CellError
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import EXTENSIONS
from subclass_kd.data.paths import UNPRINTABLE, quoted, shown
from subclass_kd.data.shard_index import LARGEST_TEXT, Entry


class Sample(NamedTuple):
    """An image of a shard, and what is said of it.

    Args:
        name: of the image's member, in its plainest form.
        image: where it lies.
        facts: its JSON object; empty without one.
        label: the text of its ``.cls``; None without one.
    """

    name: str
    image: Entry
    facts: dict[str, Any]
    label: str | None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(facts := dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return facts


_JSON = json.JSONDecoder(object_pairs_hook=_once)  # made once: that takes longer than to read a small object


def samples(shard: str, members: list[Entry], passed_over: Counter[str], findings: Findings) -> Iterator[Sample]:
    """Give the samples of a shard, in the order of their first members.

    Args:
        shard: what messages call it.
        members: what it holds.
        passed_over: counts the endings of members that are neither images nor labels.
        findings: takes what is wrong with members; their samples are left out.
    """
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
            last = posixpath.splitext(suffix)[1]
            passed_over[suffix or "no suffix" if last in ("", suffix) else f".*{last}"] += 1
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


def _sample(key: str, known: dict[str, Entry]) -> Sample:
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
    return Sample(images[0].name, images[0], facts, None if label is None else label.strip())


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
