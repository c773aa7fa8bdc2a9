"""Weights, targets and predictions on disk: safetensors with a recipe's fingerprint and plain notes in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole

FORMAT = 2  # raised when old files must not be read by new code


def save(path: Path, tensors: dict[str, Any], recipe: str, notes: dict[str, Any]) -> None:
    """Write tensors, the fingerprint of the recipe that made them, and JSON-able notes; whole or not at all."""
    from safetensors.torch import save_file

    header = {"format": str(FORMAT), "recipe": recipe, "notes": json.dumps(notes, sort_keys=True)}
    header["content"] = _content(header, tensors)
    with whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, header)


def load(path: Path) -> dict[str, Any]:
    """Read a file's tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return _checked(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def notes(path: Path) -> dict[str, Any]:
    """Read the notes in a file's header.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return dict(json.loads(_header(path)["notes"]))
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def is_valid(path: Path, recipe: str) -> bool:
    """Say whether a file is there, undamaged and made by this recipe."""
    try:
        header = _header(path)
        if (header.get("format"), header.get("recipe")) != (str(FORMAT), recipe):
            return False
        _checked(path)
    except (OSError, ValueError):
        return False
    return True


def is_damaged(path: Path) -> bool:
    """Say whether a file is there and not as it was written, which one of another version's format may well be."""
    try:
        if _header(path).get("format", "") not in ("", str(FORMAT)):
            return False
        _checked(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return False


def _checked(path: Path) -> dict[str, Any]:
    """Read a file's tensors, and hold all of the file against its checksum; ValueError if it is not as written."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = _header(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    content = header.pop("content", None)
    if content != _content(header, tensors):
        raise ValueError("its checksum is another")
    return tensors


def _content(header: dict[str, str], tensors: dict[str, Any]) -> str:
    """Fingerprint all that a file holds."""
    return fingerprint(dict(sorted(header.items())), weights_fingerprint(tensors))


def weights_fingerprint(weights: dict[str, Any]) -> str:
    """Fingerprint named tensors on the CPU, of any dtype, by name, dtype, shape and content."""
    import torch

    parts: list[Any] = []
    for name, tensor in sorted(weights.items()):
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()  # numpy knows no bfloat16
        parts += [name, str(tensor.dtype), list(tensor.shape), content]
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
