"""Weights, targets and predictions on disk: safetensors with a recipe's fingerprint and plain notes in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole

FORMAT = 1  # raised when old files must not be read by new code


def save(path: Path, tensors: dict[str, Any], recipe: str, notes: dict[str, Any]) -> None:
    """Write tensors, the fingerprint of the recipe that made them, and JSON-able notes; whole or not at all."""
    from safetensors.torch import save_file

    header = {"format": str(FORMAT), "recipe": recipe, "notes": json.dumps(notes, sort_keys=True)}
    with whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, header)


def load(path: Path) -> dict[str, Any]:
    """Read a file's tensors.

    Raises:
        UserError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
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
    """Say whether a file is there, readable and made by this recipe."""
    try:
        header = _header(path)
    except (OSError, ValueError):
        return False
    return header.get("format") == str(FORMAT) and header.get("recipe") == recipe


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
