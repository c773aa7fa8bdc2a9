"""What several commands of ``skd`` share: an option, a line for the user, a file that may not be written."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from subclass_kd.errors import UserError


def _use_cache(folder: Path | None) -> Path | None:
    if folder is not None:
        os.environ["SUBCLASS_KD_CACHE"] = str(folder.expanduser().absolute())  # processes that are started inherit it
    return folder


Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep decoded images and measurements here; else SUBCLASS_KD_CACHE, or the system's cache folder.",
        callback=_use_cache,
        show_default=False,
    ),
]


def overrides(set_: list[str] | None, workers: int | None, track: list[str] | None = None) -> list[str]:
    """Give options as changes of the study's keys."""
    given = [f"workers={workers}"] if workers else []
    return [*(set_ or []), *given, *([f"track=[{', '.join(track)}]"] if track else [])]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a user whose disk refuses a file so."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(path), found, "a file that can be written", "Give another -o.") from None


def say(text: str) -> None:
    """Tell the user a line, on standard error; standard output is for results."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"skd: {text}\n")
