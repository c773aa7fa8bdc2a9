"""Whether a run folder may be used for this study and these data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.errors import UserError
from subclass_kd.lock import LOCK


def read_json(path: Path) -> dict[str, Any] | None:
    """Read one of the run's JSON files, or give None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that holds something else, or a run of another study."""
    file = out / "study.json"
    if out.is_file():
        raise UserError(str(out), "a file", "a folder for the run, or no such path", "Give another --out.")
    try:
        text = file.read_text("utf-8") if file.exists() else None
        holds_others = text is None and out.exists() and any(path.name != LOCK for path in out.iterdir())
    except OSError as error:
        expected = "a folder for the run, or no such path"
        raise UserError(str(out), error.strerror or str(error), expected, "Give another --out.") from None
    if holds_others:
        raise UserError(str(out), "other files", "an empty folder, a run, or no such path", "Give another --out.")
    if text is None:
        return
    try:
        before = json.loads(text)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise UserError(str(file), "no study", "the study of this run", "Give another --out.")
    now = study.model_dump(mode="json")
    if isinstance(before.get("seeds"), list) and set(before["seeds"]) <= set(now["seeds"]):
        before["seeds"] = now["seeds"]  # more of the same
    for content in (before, now):  # what decides how fast results come, not which
        content.pop("workers", None)
        if isinstance(content.get("data"), dict):
            content["data"].pop("store_limit", None)
    # As text: the order of classes and subclasses is part of the study.
    if json.dumps(before) != json.dumps(now):
        then, present = _flat(before), _flat(now)
        changed = sorted(key for key in then | present if then.get(key, ...) != present.get(key, ...))
        shown = "; ".join(f"{key}: {then.get(key, 'none')} before, {present.get(key, 'none')} now" for key in changed)
        remedy = "Give another --out, or restore these keys."
        found = f"a run of another study ({shown or 'the order of its hierarchy'})"
        raise UserError(str(out), found, "the same study", remedy)


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


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys to dotted ones.

    >>> _flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
