"""From a YAML file and ``--set`` options to a Study, or to one message that says what is wrong."""

from __future__ import annotations

import re
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from subclass_kd import passwords
from subclass_kd.config import Study
from subclass_kd.errors import UserError, nearest

DEEPEST = 20  # no study needs more levels; a file of brackets would exhaust the stack


class _Loader(yaml.SafeLoader):
    """YAML of plain values: no key twice, no aliases, nothing nested without end.

    A few lines of aliases to aliases can stand for more values than fit into memory ("billion laughs").
    """

    level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise UserError(where, f'the alias "*{event.anchor}"', "values written out", "Copy what it stands for.")
        self.level += 1
        if self.level > DEEPEST:
            raise UserError(where, f"more than {DEEPEST} levels", "a section, its keys and their values")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # what is not is refused below
                if key in seen:
                    where = f"line {key_node.start_mark.line + 1}"
                    raise UserError(where, f'the key "{key}" twice', "each key once", "Remove one of them.")
                seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-3 for text, since it has no point; here it is the number that it looks like, as in YAML 1.2.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$"), "-+.0123456789")


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
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(str(path), "no such file", "a study file", "Check the path.") from None
    except IsADirectoryError:
        raise UserError(str(path), "a folder", "a study file in YAML", "Give the file itself.") from None
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"a byte that is not UTF-8 at {error.start}", "UTF-8 text") from None
    except OSError as error:
        raise UserError(str(path), error.strerror or str(error), "a readable file") from None
    return parse_study(text, overrides, str(path))


def parse_study(text: str, overrides: Sequence[str] = (), source: str = "study") -> Study:
    """Turn the text of a study file into a Study.

    Args:
        text: YAML of a mapping.
        overrides: as for :func:`load_study`.
        source: the name that errors give to the text.

    Raises:
        UserError: the text is no YAML, or a key or value is wrong.

    >>> parse_study("seeds: 2").seeds
    [0, 1]
    """
    content = _parse(text, source)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(source, _shown(content), 'keys and values such as "seeds: 5"')
    return make_study(content, overrides, source)


def _parse(text: str, source: str) -> Any:
    """Read YAML to plain values, or say where it is wrong."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (derived from SafeLoader)
    except UserError as error:
        raise UserError(f"{source}, {error.where}", error.found, error.expected, error.remedy) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        problem = getattr(error, "problem", None) or getattr(error, "reason", "")
        raise UserError(where, f"text that YAML cannot read ({problem})", "YAML", "Quote it if it is text.") from None
    except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
        # PyYAML lets these through for a value that does not fit its tag, such as the date 2020-13-01.
        raise UserError(source, f"a value that YAML cannot read ({error})", "YAML", "Quote it if it is text.") from None


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
        raise _explain(error, source, overrides) from None


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key, copying the sections on its way so that the caller's values stay as they are."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {override}", f'"{override}"', "KEY=VALUE", 'For example "--set seeds=3".')
    value = _parse(text, f"--set {override}")
    *sections, last = key.split(".")
    for section in sections:
        inside = content.get(section)
        if inside is not None and not isinstance(inside, dict):
            raise UserError(f"--set {override}", f'{_shown(inside)} for "{section}"', "keys and values there")
        content[section] = dict(inside or {})
        content = content[section]
    content[last] = value


# Keys that take values of two types, of which pydantic tells each apart.
UNIONS = (("workers",), ("distillation", "views"), ("data", "root"))
# What may stand there, in our words, by key or by pydantic's kind of error; its own words do for the rest.
EXPECTED = {
    "data.root": "a path",
    "workers": "auto, or a whole number of at least 1",
    "distillation.views": "online, or a whole number from 1 to 1000",
    "device": "auto, cpu, mps, cuda or cuda:N",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "float_type": "a number",
    "int_type": "a whole number",
    "invalid_key": "a key that is text",
    "list_type": "a list",
    "model_type": "keys and values",
    "path_type": "a path",
    "string_type": "text, in quotes if need be",
    "too_long": "a shorter list",
    "too_short": "at least one",
}


def _explain(error: ValidationError, source: str, overrides: Sequence[str]) -> UserError:
    """Turn pydantic's findings into one message in our words."""
    first, kind = error.errors()[0], error.errors()[0]["type"]
    path, *others = dict.fromkeys(_keys(finding["loc"]) for finding in error.errors())
    key = ".".join(path)
    for override in overrides:
        changed = override.partition("=")[0]
        if f"{key}.".startswith(f"{changed}.") or f"{changed}.".startswith(f"{key}."):
            source = f"--set {changed if passwords.holds_password(override) else override}"
    where = f'{source}, key "{key}"'
    more = f"{len(others)} more wrong: {', '.join('.'.join(other) for other in others)}." if others else ""
    if kind == "extra_forbidden":
        valid = _valid_keys(path[:-1])
        remedy = nearest(path[-1], valid)
        return UserError(where, "an unknown key", f"one of {', '.join(valid)}", f"{remedy} {more}".strip())
    if kind == "password":
        return UserError(where, _shown(first["input"]), passwords.EXPECTED, f"{passwords.REMEDY} {more}".strip())
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = EXPECTED.get(key) or EXPECTED.get(kind) or message[0].lower() + message[1:]
    remedy = nearest(str(first["input"]), re.findall("'(.+?)'", message)) if kind == "literal_error" else ""
    return UserError(where, _shown(first["input"]), expected, f"{remedy} {more}".strip())


def _keys(location: Sequence[int | str]) -> tuple[str, ...]:
    """Turn pydantic's place of an error into keys: without its marks for a key itself and for a choice of types."""
    union = next((key for key in UNIONS if location[: len(key)] == key), location)
    return tuple(str(part) for part in union if part != "[key]")


def _valid_keys(sections: Sequence[str]) -> list[str]:
    """List the keys that a section of the study may have."""
    model: type[BaseModel] = Study
    for section in sections:
        if section not in model.model_fields:  # the name of an arm
            continue
        annotation = model.model_fields[section].annotation
        inner = [kind for kind in (annotation, *typing.get_args(annotation)) if isinstance(kind, type)]
        model = next(kind for kind in inner if issubclass(kind, BaseModel))
    return list(model.model_fields)


def _shown(value: Any) -> str:
    """Show a value in a message as YAML would have it, not longer than a line."""
    named = {None: "nothing", True: "true", False: "false"}
    if isinstance(value, str):
        text = f'"{value}"'
    else:
        text = named[value] if value is None or isinstance(value, bool) else repr(value)
    if passwords.holds_password(text):
        return passwords.FOUND
    return text if len(text) <= 80 else f"{text[:77]}..."
