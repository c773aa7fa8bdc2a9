"""Weights, targets and predictions on disk: safetensors with a recipe's fingerprint and plain notes in the header."""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole

FORMAT = 3  # raised when old files must not be read by new code


def save(path: Path, tensors: dict[str, Any], recipe: str, notes: dict[str, Any]) -> None:
    """Write tensors of any device, a recipe's fingerprint, JSON-able notes and a checksum; whole or not at all."""
    from safetensors.torch import save as as_bytes

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": str(FORMAT), "recipe": recipe, "notes": json.dumps(notes, sort_keys=True)}
    raw = as_bytes(tensors)
    places = _parse(raw)
    header["tensors"] = _digest(places, raw)
    header["content"] = _digest({**places, "__metadata__": header}, raw)
    with whole(path) as temporary:
        # Not by save_file: its error for a full disk is no OSError, and nobody tidies up the file that it writes first.
        temporary.write_bytes(as_bytes(tensors, header))


def load(path: Path) -> dict[str, Any]:
    """Read a file's tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        _check(path)
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, error) from None


def notes(path: Path) -> dict[str, Any]:
    """Read the notes in a file's header.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return dict(json.loads(_header(path)["notes"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from None


def is_valid(path: Path, recipe: str) -> bool:
    """Say whether a file is there, undamaged and made by this recipe."""
    try:
        header = _header(path)
        if (header.get("format"), header.get("recipe")) != (str(FORMAT), recipe):
            return False
        _check(path)
    except (OSError, ValueError):
        return False
    return True


def is_damaged(path: Path) -> bool:
    """Say whether a file is there and not as it was written, in this version's format or another's."""
    try:
        _check(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return False


def checksum(path: Path) -> str:
    """Give the checksum that a file states of itself.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return _header(path)["content"]
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def tensors_mark(path: Path) -> str | None:
    """Give the fingerprint that a file states of its tensors alone: the same of the same weights, whatever they took.

    None where there is no file, none that can be read, or one of a version that stated none.
    """
    try:
        return _header(path).get("tensors")
    except (OSError, ValueError):
        return None


def _check(path: Path) -> None:
    """Hold a file against its checksum, without torch and in little memory; ValueError if it is another."""
    stated = _header(path).get("content")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        if _content(mapped) != stated:
            raise ValueError("its checksum is another")


def _content(raw: bytes | mmap.mmap) -> str:
    """Fingerprint a file of safetensors: its header but for the checksum, and its tensors."""
    header = _parse(raw)
    (header.get("__metadata__") or {}).pop("content", None)  # which a file of somebody else's need not have
    return _digest(header, raw)


def _parse(raw: bytes | mmap.mmap) -> dict[str, Any]:
    """Read the header of a file of safetensors: types, shapes and places by name, and the metadata."""
    return dict(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]))


def _digest(header: dict[str, Any], raw: bytes | mmap.mmap) -> str:
    """Fingerprint a header and the tensors behind that of a file of safetensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    with memoryview(raw) as view:
        for start in range(8 + int.from_bytes(raw[:8], "little"), len(view), 1 << 24):
            digest.update(view[start : start + (1 << 24)])
    return digest.hexdigest()


def weights_fingerprint(weights: dict[str, Any]) -> str:
    """Fingerprint named tensors on the CPU, of any dtype, by name, dtype, shape and content."""
    import torch

    parts: list[Any] = []
    for name, tensor in sorted(weights.items()):
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy knows no bfloat16
        parts += [name, str(tensor.dtype), list(tensor.shape), memoryview(content)]
    return fingerprint(*parts)


def _header(path: Path) -> dict[str, str]:
    """Read a safetensors file's metadata; ValueError if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(str(path), f"a file that cannot be read ({error})", "a file of this run", "Delete it, run again.")
