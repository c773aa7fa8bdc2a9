"""From a YAML file and ``--set`` options to a Study, or to one message that says what is wrong."""

from __future__ import annotations

import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from subclass_kd.config import Study
from subclass_kd.errors import UserError, nearest


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the silent loss of a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"line {line}", f'the key "{key}" twice', "each key once", "Remove one of them.")
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply ``--set`` options.

    Args:
        path: a YAML file of a mapping; see docs/study-file.md for its keys.
        overrides: ``key=value`` with a dotted key; the value is read as YAML: ``distillation.temperature=2``.

    Returns:
        The study, checked.

    Raises:
        UserError: the file is missing, is no YAML, or a key or value is wrong.
    """
    try:
        # A loader of our own, derived from SafeLoader: it builds plain values only.
        content = yaml.load(path.read_text("utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except FileNotFoundError:
        raise UserError(str(path), "no such file", "a study file", "Check the path.") from None
    except IsADirectoryError:
        raise UserError(str(path), "a folder", "a study file in YAML", "Give the file itself.") from None
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"a byte that is not UTF-8 at {error.start}", "UTF-8 text") from None
    except OSError as error:
        raise UserError(str(path), error.strerror or str(error), "a readable file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise UserError(where, getattr(error, "problem", None) or "text that is not YAML", "YAML") from None
    except UserError as error:
        raise UserError(f"{path}, {error.where}", error.found, error.expected, error.remedy) from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(str(path), _shown(content), 'keys and values such as "seeds: 5"')
    return make_study(content, overrides, str(path))


def make_study(content: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "study") -> Study:
    """Check plain values and turn them into a Study.

    Args:
        content: what a study file holds, as nested dictionaries.
        overrides: ``key=value`` with a dotted key, applied in order.
        source: the name that errors give to where the values came from.

    Raises:
        UserError: a key or value is wrong; the message names the first and counts the rest.

    >>> make_study({"seeds": 2}, ["distillation.temperature=2"]).distillation.temperature
    2.0
    """
    merged: dict[str, Any] = dict(content)
    for override in overrides:
        _apply(merged, override)
    try:
        return Study.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, source) from None


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key, copying the sections on its way so that the caller's values stay as they are."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {override}", f'"{override}"', "KEY=VALUE", 'For example "--set seeds=3".')
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}", f'"{text}"', "a value in YAML", "Quote it if it is text.") from None
    *sections, last = key.split(".")
    for section in sections:
        inside = content.get(section)
        content[section] = dict(inside) if isinstance(inside, dict) else {}
        content = content[section]
    content[last] = value


def _explain(error: ValidationError, source: str) -> UserError:
    """Turn pydantic's findings into one message in our words."""
    first, *others = error.errors()
    *sections, last = path = [part for part in first["loc"] if part != "[key]"]
    where = f'{source}, key "{".".join(map(str, path))}"'
    more = f"{len(others)} more wrong: {', '.join(_dotted(other['loc']) for other in others)}." if others else ""
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(sections)
        remedy = nearest(str(last), valid)
        return UserError(where, "an unknown key", f"one of {', '.join(valid)}", f"{remedy} {more}".strip())
    if first["type"] == "missing":
        return UserError(where, "nothing", "a value", more)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "string_pattern_mismatch":
        message = "auto, cpu, mps, cuda or cuda:N"
    return UserError(where, _shown(first["input"]), message[0].lower() + message[1:], more)


def _dotted(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location))


def _valid_keys(sections: Sequence[int | str]) -> list[str]:
    """List the keys that a section of the study may have."""
    model: type[BaseModel] = Study
    for section in sections:
        annotation = model.model_fields[str(section)].annotation
        inner = [kind for kind in (annotation, *typing.get_args(annotation)) if isinstance(kind, type)]
        model = next(kind for kind in inner if issubclass(kind, BaseModel))
    return list(model.model_fields)


def _shown(value: Any) -> str:
    """Show a value in a message, not longer than a line."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
