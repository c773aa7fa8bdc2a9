"""Whether a run folder may be used for this study and these data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.errors import UserError
from subclass_kd.files import whole
from subclass_kd.lock import LOCK

SUMS = "SHA256SUMS"
# The run's files that are not tensors, which bring checksums of their own.
PLAIN = ("study.json", "data.json", "check.json", "arithmetic.json", "samples.csv", "results.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read one of the run's JSON files, or give None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_sums(out: Path, but: str = "") -> None:
    """Note what the run's plain files are, in the form of ``sha256sum``; all but one that is about to change."""
    there = [name for name in PLAIN if name != but and (out / name).exists()]
    lines = [f"{_digest(out / name)}  {name}\n" for name in there]
    with whole(out / SUMS) as temporary:
        temporary.write_bytes("".join(lines).encode())


def drop_sums(out: Path) -> None:
    """Forget the checksums, before files that they speak of are written anew."""
    (out / SUMS).unlink(missing_ok=True)


def has_sum(out: Path, name: str) -> bool:
    """Say whether a file is among the checksums."""
    try:
        return any(line.endswith(f"  {name}") for line in (out / SUMS).read_text("utf-8").splitlines())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(out: Path) -> list[str]:
    """Name the plain files of a run that are gone, or not as they were written."""
    try:
        lines = (out / SUMS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [SUMS]
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if not lines or not stated.keys() <= set(PLAIN):
        return [SUMS]
    found = []
    for name, digest in stated.items():
        try:
            same = _digest(out / name) == digest
        except OSError:
            same = False
        if not same:
            found.append(name)
    return found


def drop_damaged(out: Path) -> list[str]:
    """Remove a run's damaged plain files, all of which can be made again, and name them.

    ``study.json`` stays, which says whose folder this is: it is held against the study, and written anew.

    Raises:
        UserError: the folder cannot be written.
    """
    damaged = damaged_files(out)
    try:
        for name in damaged:
            if name != "study.json":
                (out / name).unlink(missing_ok=True)
    except OSError as error:
        found = f"a damaged {name}, and a folder that cannot be written ({error.strerror})"
        raise UserError(str(out), found, "a folder that can be written", "Copy it, and run again there.") from None
    return damaged


def check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that holds something else, or a run of another study."""
    file = out / "study.json"
    if out.is_file():
        raise UserError(str(out), "a file", "a folder for the run, or no such path", "Give another --out.")
    try:
        content = file.read_bytes() if file.exists() else None
        holds_others = content is None and out.exists() and any(not _passing(path.name) for path in out.iterdir())
    except OSError as error:
        expected = "a folder for the run, or no such path"
        raise UserError(str(out), error.strerror or str(error), expected, "Give another --out.") from None
    if holds_others:
        raise UserError(str(out), "other files", "an empty folder, a run, or no such path", "Give another --out.")
    if content is None:
        return
    try:
        before = json.loads(content)
    except ValueError:
        before = None
    spoiled = file.name in damaged_files(out)
    if spoiled:
        remedy = "Restore it, or give another --out."
        again = UserError(str(file), "another content than SHA256SUMS states", "the study of this run", remedy)
    if not isinstance(before, dict):
        raise again if spoiled else UserError(str(file), "no study", "the study of this run", "Give another --out.")
    now = study.model_dump(mode="json")
    if isinstance(before.get("seeds"), list) and set(before["seeds"]) <= set(now["seeds"]):
        before["seeds"] = now["seeds"]  # more of the same
    for each in (before, now):  # what decides how fast results come, not which
        for idle in ("workers", "track", "tune"):
            each.pop(idle, None)
        if not each.get("per_arm"):  # which older versions did not write
            each.pop("per_arm", None)
        for section, idle in (("data", "store_limit"), ("teacher", "shard")):
            if isinstance(each.get(section), dict):
                each[section].pop(idle, None)
    # As text: the order of classes and subclasses is part of the study.
    if json.dumps(before) != json.dumps(now):
        if spoiled:
            raise again
        then, present = flattened(before), flattened(now)
        changed = sorted(key for key in then | present if then.get(key, ...) != present.get(key, ...))
        shown = "; ".join(f"{key}: {then.get(key, 'none')} before, {present.get(key, 'none')} now" for key in changed)
        remedy = "Give another --out, or restore these keys."
        found = f"a run of another study ({shown or 'the order of its hierarchy'})"
        raise UserError(str(out), found, "the same study", remedy)


def _passing(name: str) -> bool:
    """Say whether a file is one that a run may leave that was killed before it wrote its study."""
    return name == LOCK or (name.startswith(".") and name.endswith(".part"))


def check_same_data(samples: Samples, out: Path) -> None:
    """Refuse a folder whose run was made from other images, labels or splits."""
    try:
        before = json.loads((out / "data.json").read_text("utf-8"))["fingerprint"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError):
        before = "unreadable"
    if before != samples.fingerprint:
        found = f"a run made from other data (fingerprint {before} before, {samples.fingerprint} now)"
        raise UserError(str(out), found, "the same images, labels and splits", "Give another --out.")


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys to dotted ones.

    >>> flattened({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
