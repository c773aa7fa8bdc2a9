"""A finished run's study and results, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subclass_kd.config import Study
from subclass_kd.errors import UserError, nearest
from subclass_kd.plan import RESULTS


def read_run(folder: Path, arm: str) -> tuple[Study, dict[str, Any]]:
    """Read the study and the results.json of a finished run.

    Args:
        folder: as ``skd run`` left it; of a study of folds, one fold's.
        arm: that the run must have.

    Raises:
        UserError: no finished run is there, it is one of several folds, or it has no such arm.
    """
    plain, results = (_read(folder, name) for name in ("study.json", RESULTS))
    try:
        study = Study.model_validate(plain)
        arms, _, _ = results["arms"], results["study"]["seeds"], results["data"]["fingerprint"]
    except (ValidationError, KeyError, TypeError):
        expected, remedy = "a run of this version", "Give skd run again with a new --out."
        raise UserError(str(folder), "a run that cannot be read", expected, remedy) from None
    if study.data.folds is not None and study.data.fold is None:
        found = f"a run of {study.data.folds} folds, whose students were chosen on different images"
        remedy = f"Export one fold's student: skd export {folder / 'fold-0'}."
        raise UserError(str(folder), found, "a run of one split", remedy)
    if arm not in arms:
        raise UserError("--arm", f'"{arm}"', f"one of {', '.join(arms)}", nearest(arm, arms))
    return study, results


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(str(folder), f"no {name}", "the folder of a finished run", "Run it: skd run.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            str(path), f"a file that cannot be read ({error})", "a file of a run", "Run it again."
        ) from None
    if not isinstance(content, dict):
        raise UserError(str(path), "no keys and values", "a file of a run", "Run it again.")
    return content
