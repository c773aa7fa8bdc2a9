"""A finished run's study and results, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subclass_kd.config import Study
from subclass_kd.errors import UserError, nearest
from subclass_kd.files import require_json
from subclass_kd.plan import RESULTS


def read_run(folder: Path, arm: str) -> tuple[Study, dict[str, Any]]:
    """Read the study and the results.json of a finished run.

    Args:
        folder: as ``skd run`` left it; of a study of folds, one fold's.
        arm: that the run must have.

    Raises:
        UserError: no finished run is there, it is one of several folds, or it has no such arm.
    """
    words = "the folder of a finished run", "Run it: skd run.", "Run it again."
    plain, results = (require_json(folder / name, *words) for name in ("study.json", RESULTS))
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
