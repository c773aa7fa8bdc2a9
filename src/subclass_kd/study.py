"""A study from beginning to end: check, plan, make what is missing, judge."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from subclass_kd import store
from subclass_kd.config import Study
from subclass_kd.data import load_samples
from subclass_kd.errors import UserError
from subclass_kd.files import write_json
from subclass_kd.models import check_model_name
from subclass_kd.plan import Job, plan


class Progress(Protocol):
    """What a run tells while it works; see display.py for the one that prints."""

    def begin(self, jobs: Sequence[Job], finished: int, workers: int) -> None:
        """Tell which jobs are left, and how many were done before."""

    def event(self, job: Job, event: str, content: Any) -> None:
        """Tell that a job "started", ended an "epoch" (with an Epoch) or is "finished"."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, jobs: Sequence[Job], finished: int, workers: int) -> None:
        """Say nothing."""

    def event(self, job: Job, event: str, content: Any) -> None:
        """Say nothing."""


def run_study(study: Study, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run a study into a folder, or what is left of it, and give its results.

    Files that are there and valid are kept: a finished run trains nothing, an interrupted one goes on.

    Args:
        study: what to run; ``workers`` may differ from run to run, every other key must stay for a given folder.
        out: the run folder; made if it is not there, which is after everything has been checked.
        progress: hears of every job.

    Returns:
        results.json as plain values.

    Raises:
        UserError: data, models or the folder do not fit the study.
        RuntimeError: a job failed.
    """
    progress = progress or Silent()
    check_model_name(study.teacher, "teacher")
    check_model_name(study.student, "student")
    _check_folder(study, out)
    samples = load_samples(study)
    jobs = plan(study, samples.fingerprint)
    missing = [job for job in jobs if not store.is_valid(out / job.path, job.recipe)]
    results_file = out / "results.json"
    if missing or not results_file.exists():
        from subclass_kd.engine import run_jobs
        from subclass_kd.results import assemble
        from subclass_kd.work import check_device, check_models

        check_device(study)
        check_models(study, samples)
        for part in out.rglob(".*.part"):  # left by a process that was killed while it wrote
            part.unlink()
        write_json(out / "study.json", study.model_dump(mode="json"))
        workers = count_workers(study)
        progress.begin(missing, len(jobs) - len(missing), workers)
        run_jobs(study, out, missing, workers, progress.event)
        write_json(results_file, assemble(study, samples, out))
    results: dict[str, Any] = json.loads(results_file.read_text("utf-8"))
    return results


def count_workers(study: Study) -> int:
    """Say how many processes a study uses: as given, or one for each core; on a GPU one."""
    if study.workers != "auto":
        return study.workers
    from subclass_kd.work import make_fabric

    if make_fabric(study).device.type != "cpu":
        return 1
    # The cores that this process may use, where the system says (Linux): a container often has fewer than the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that holds something else, or a run of another study."""
    if out.exists() and not out.is_dir():
        raise UserError(str(out), "a file", "a folder for the run, or no such path", "Give another --out.")
    file = out / "study.json"
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(str(out), "other files", "an empty folder, a run, or no such path", "Give another --out.")
        return
    try:
        before = json.loads(file.read_text("utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no object of keys and values")
    except ValueError as error:
        raise UserError(str(file), f"no study ({error})", "the study of this run", "Give another --out.") from None
    now = study.model_dump(mode="json")
    changed = [key for key in _flat(before) | _flat(now) if _flat(before).get(key) != _flat(now).get(key)]
    changed = sorted(key for key in changed if key != "workers")
    if changed:
        shown = "; ".join(f"{key}: {_flat(before).get(key)} before, {_flat(now).get(key)} now" for key in changed)
        remedy = "Give another --out, or restore these keys."
        raise UserError(str(out), f"a run of another study ({shown})", "the same study", remedy)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys to dotted ones.

    >>> _flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
