"""What bundle.json says of asking a student, read and judged: no number or name without sense gets through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from subclass_kd.bundle_files import MAKE, MANIFEST, REMEDY, SUMS
from subclass_kd.errors import UserError
from subclass_kd.files import require_json

SCHEMA = 1
CLASS_OUTPUT, SUBCLASS_OUTPUT = "class_probabilities", "subclass_probabilities"


class Statement(NamedTuple):
    """What is needed to ask a student.

    Args:
        classes: names of the C classes.
        subclasses: names of the K subclasses that it answers for; none for a student of classes alone.
        parents: class number of each subclass of the hierarchy.
        positive: number of the positive class.
        threshold: of its probability, between 0 and 1; None where the most probable class is the decision.
        outputs: names of the graph's outputs.
        shape: (C, H, W) of the pixels.
        resize: whether files are brought to that size.
        white: the value of 16-bit grey that becomes 255.
    """

    classes: tuple[str, ...]
    subclasses: tuple[str, ...]
    parents: tuple[int, ...]
    positive: int
    threshold: float | None
    outputs: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: bool
    white: int


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read bundle.json.

    Raises:
        UserError: there is none, it is damaged, or of another schema.
    """
    path = folder / MANIFEST
    stated = require_json(path, "a bundle", MAKE, REMEDY)
    if stated.get("schema") != SCHEMA:
        remedy = "Use the subclass-kd that made it, or export it again."
        raise UserError(str(path), f"schema {stated.get('schema')}", f"schema {SCHEMA}", remedy)
    return stated


def judge(stated: Mapping[str, Any], where: str, sums: Mapping[str, str]) -> Statement:
    """Take what is needed to ask a student, or refuse it.

    Args:
        stated: bundle.json as plain values.
        where: its path.
        sums: name -> SHA-256 of the bundle's files.

    Raises:
        UserError: a key is missing, or its value has no sense; it names the key.
    """

    def want(key: str, makes_sense: bool, expected: str) -> None:
        if not makes_sense:
            found = repr(_get(stated, key, where))
            raise UserError(f'{where}, key "{key}"', found[:80], expected, REMEDY)

    def get(key: str) -> Any:
        return _get(stated, key, where)

    classes, subclasses = get("hierarchy.classes"), get("hierarchy.subclasses")
    want("hierarchy.classes", _are_names(classes) and len(classes) >= 2, "two names or more, all different")
    rows: list[Any] = subclasses if isinstance(subclasses, list) else [None]
    shaped = all(isinstance(row, Mapping) and {"name", "class"} <= row.keys() for row in rows)
    want("hierarchy.subclasses", shaped, "a list of names with their classes")
    want("hierarchy.subclasses", _are_names([row["name"] for row in rows]), "names, all different")
    parents = [row["class"] for row in rows]
    covered = all(name in parents for name in classes) and all(name in classes for name in parents)
    want("hierarchy.subclasses", covered, "subclasses of every class, and of no other")
    positive = get("positive")
    want("positive", positive in classes, "one of the classes")
    outputs = get("outputs")
    allowed = ([CLASS_OUTPUT], [CLASS_OUTPUT, SUBCLASS_OUTPUT])
    want("outputs", outputs in allowed, " or ".join(str(names) for names in allowed))
    temperature, threshold = get("temperature.value"), get("decision.threshold")
    want("temperature.value", _is_number(temperature) and temperature > 0, "a finite number above 0")
    if len(classes) > 2:
        want("decision.threshold", threshold is None, "null: the most probable of several classes decides")
    within = threshold is None or (_is_number(threshold) and 0 < threshold < 1)
    want("decision.threshold", within, "a number between 0 and 1, or null")
    for key, least, most in (("channels", 1, 3), ("height", 1, 65535), ("width", 1, 65535), ("white", 1, 65535)):
        value = get(f"preprocessing.{key}")
        fits = type(value) is int and least <= value <= most and (key, value) != ("channels", 2)
        want(f"preprocessing.{key}", fits, "1 or 3" if key == "channels" else f"a whole number up to {most}")
    pixels = stated["preprocessing"]
    resize = get("preprocessing.resize")
    fits = resize is False or (resize is True and pixels["height"] == pixels["width"])
    want("preprocessing.resize", fits, "false, or true with as many rows as columns")
    files = get("files")
    same = isinstance(files, Mapping) and all(
        isinstance(row := files.get(name), Mapping) and row.get("sha256") == digest and type(row.get("bytes")) is int
        for name, digest in sums.items()
        if name != MANIFEST
    )
    want("files", same, f"the size and the SHA-256 of each file, as in {SUMS}")
    return Statement(
        classes=tuple(classes),
        subclasses=tuple(row["name"] for row in rows) if SUBCLASS_OUTPUT in outputs else (),
        parents=tuple(classes.index(name) for name in parents),
        positive=classes.index(positive),
        threshold=None if threshold is None else float(threshold),
        outputs=tuple(outputs),
        shape=(pixels["channels"], pixels["height"], pixels["width"]),
        resize=resize,
        white=pixels["white"],
    )


def _get(stated: Mapping[str, Any], key: str, where: str) -> Any:
    value: Any = stated
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(where, f'no key "{key}"', f"bundle.json of schema {SCHEMA}", REMEDY)
        value = value[part]
    return value


def _are_names(values: Any) -> bool:
    return (
        isinstance(values, list)
        and all(isinstance(value, str) and value for value in values)
        and len(set(values)) == len(values)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
