"""The files of a bundle, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError

MANIFEST, CARD, WEIGHTS, SUMS = "bundle.json", "MODEL_CARD.md", "model.safetensors", "SHA256SUMS"
MODEL, MODEL_INT8 = "model.onnx", "model-int8.onnx"
REMEDY = "Export it again, or copy the whole folder."
MAKE = "Make one: skd export RUN -o BUNDLE."
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\0]+)")


def seal(folder: Path) -> None:
    """Write SHA256SUMS over all files of a folder, as coreutils' sha256sum writes and checks it."""
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS)
    lines = [f"{_digest(path)}  {path.name}\n" for path in paths]
    (folder / SUMS).write_bytes("".join(lines).encode())


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Give SHA-256 and size of each file in a folder that bundle.json states: all but itself and SHA256SUMS."""
    paths = sorted(path for path in folder.iterdir() if path.name not in (MANIFEST, SUMS))
    return {path.name: {"sha256": _digest(path), "bytes": path.stat().st_size} for path in paths}


def check_files(folder: Path) -> dict[str, str]:
    """Hold every file that SHA256SUMS lists against its checksum.

    They tell a damaged copy, not a forged one: whoever can change a file can change its checksum.

    Returns:
        Name -> SHA-256; bundle.json and model.onnx are among them.

    Raises:
        UserError: there is no bundle, or a file of it is missing, damaged or without a checksum.
    """
    if not os.path.isfile(folder / MANIFEST):  # unlike Path.is_file, no error where the folder may not be read
        raise UserError(str(folder), f"no {MANIFEST}", "a bundle", MAKE)
    stated = _read_sums(folder)
    for name in (MANIFEST, MODEL):
        if name not in stated:
            raise UserError(str(folder / SUMS), f"no checksum of {name}", "one of every file", REMEDY)
    for name, digest in stated.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            what = error.strerror or str(error)
            raise UserError(str(folder / name), what, "a file of the bundle", REMEDY) from None
        if found != digest:
            raise UserError(str(folder / name), f"another content than {SUMS} states", "the same", REMEDY)
    return stated


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        *lines, rest = path.read_bytes().decode().split("\n")
    except FileNotFoundError:
        raise UserError(str(folder), f"no {SUMS}", "a bundle with its checksums", REMEDY) from None
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"a file that cannot be read ({error})", "checksums", REMEDY) from None
    stated = {}
    for number, line in enumerate([*lines, rest] if rest else lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or number > len(lines) or match[2] in stated:
            expected = "64 hexadecimal digits, two spaces and the name of a file, each once"
            raise UserError(f"{path}, line {number}", "no checksum", expected, REMEDY)
        stated[match[2]] = match[1]
    return stated


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
