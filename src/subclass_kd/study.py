"""A study from beginning to end: check, plan, make what is missing, judge."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from subclass_kd import store
from subclass_kd.config import Study
from subclass_kd.data.check import check_samples
from subclass_kd.data.findings import Findings
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_rows, load_samples
from subclass_kd.data.scan import Look
from subclass_kd.engine import run_jobs
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole, write_json
from subclass_kd.models import check_model_name
from subclass_kd.plan import RESULTS, Job, plan
from subclass_kd.prediction_files import inert

CHECK = "check.json"
ARITHMETIC = "arithmetic.json"


class Progress(Protocol):
    """What a run tells while it works; see display.py for the one that prints."""

    def decoding(self, done: int, total: int) -> None:
        """Tell how many of how many images are decoded."""

    def fold(self, number: int, folds: int) -> None:
        """Tell which fold, from 0, comes now; not called where one split is all."""

    def begin(self, jobs: Sequence[Job], finished: int, workers: int, arithmetic: dict[str, Any]) -> None:
        """Tell which jobs are left, how many were done before, and how the networks compute (arithmetic.json)."""

    def event(self, job: Job, event: str, content: Any) -> None:
        """Tell that a job "started", ended an "epoch" (with an Epoch) or is "finished"."""


class Silent:
    """Progress that nobody watches."""

    def decoding(self, done: int, total: int) -> None:
        """Say nothing."""

    def fold(self, number: int, folds: int) -> None:
        """Say nothing."""

    def begin(self, jobs: Sequence[Job], finished: int, workers: int, arithmetic: dict[str, Any]) -> None:
        """Say nothing."""

    def event(self, job: Job, event: str, content: Any) -> None:
        """Say nothing."""


def run_study(study: Study, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run a study into a folder, or what is left of it, and give its results.

    Files that are there and valid are kept: a finished run trains nothing, an interrupted one goes on.

    With ``data.folds`` and no ``data.fold`` every fold is a run of its own, in ``fold-0`` and so on, and the results
    are those of all test images of all folds: each image of the data is tested once a seed.

    Args:
        study: what to run; ``workers`` and ``data.store_limit`` may differ from run to run, and ``seeds`` may be added
            to; every other key must stay for a given folder.
        out: the run folder; made if it is not there, which is after everything has been checked.
        progress: hears of every job.

    Returns:
        results.json as plain values.

    Raises:
        UserError: data, models or the folder do not fit the study.
        RuntimeError: a job failed.
    """
    watching = progress or Silent()
    check_model_name(study.teacher, "teacher")
    check_model_name(study.student, "student")
    _check_folder(study, out)
    if study.data.folds is not None and study.data.fold is None:
        return _run_folds(study, out, watching)
    return _run_split(study, out, watching, _read(out / ARITHMETIC))


def _run_folds(study: Study, out: Path, watching: Progress) -> dict[str, Any]:
    """Run each fold as a study of its own, and judge their predictions together."""
    folds = [
        study.model_copy(update={"data": study.data.model_copy(update={"fold": fold})})
        for fold in range(study.data.folds or 0)
    ]
    for each in folds:  # what is wrong with the last fold's rows must not show when the others have run for hours
        load_rows(each, Findings())
    marks = []
    for fold, each in enumerate(folds):
        watching.fold(fold, len(folds))
        folder = out / f"fold-{fold}"
        _check_folder(each, folder)
        chosen = _read(folder / ARITHMETIC) or _read(out / "fold-0" / ARITHMETIC)  # all folds compute alike
        marks.append(_run_split(each, folder, watching, chosen)["data"]["fingerprint"])
        if fold == 0:
            for name in (CHECK, ARITHMETIC):
                write_json(out / name, _read(folder / name))
            write_json(out / "study.json", study.model_dump(mode="json"))
    before = _results(out, study, fingerprint(*marks))
    if before is not None:
        return before
    from subclass_kd.arithmetic import from_dict
    from subclass_kd.results import Part, assemble  # torch, for the first time in this process

    parts = [Part(load_samples(each, verify=False), out / f"fold-{fold}") for fold, each in enumerate(folds)]
    results = assemble(study, parts, from_dict(_read(out / ARITHMETIC) or {}))
    write_json(out / "data.json", results["data"])
    write_json(out / RESULTS, results)
    return results


def _run_split(study: Study, out: Path, watching: Progress, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """Run a study of one split; ``chosen`` is how its networks shall compute, if that is settled."""
    findings = Findings()
    looks: list[Look] = []  # of images that are decoded now: once serves the store and the check
    samples = load_samples(study, watching.decoding, findings, looks=looks)
    _check_same_data(samples, out)
    jobs = plan(study, samples.fingerprint)
    missing = [job for job in jobs if job.path != RESULTS and not store.is_valid(out / job.path, job.recipe)]
    results = None if missing else _results(out, study, samples.fingerprint)
    if results is not None:
        return results
    missing.append(jobs[-1])  # the results, anew
    checked = _check_images(study, samples, findings, out, watching, looks)
    looks.clear()  # 1 kB an image

    def prepare(workers: int, arithmetic: dict[str, Any]) -> None:
        try:
            write_json(out / "study.json", study.model_dump(mode="json"))
            write_json(out / "data.json", samples.describe())
            write_json(out / CHECK, checked)
            write_json(out / ARITHMETIC, arithmetic)
            _write_listing(out / "samples.csv", samples)
        except OSError as error:
            found = error.strerror or str(error)
            raise UserError(str(out), found, "a folder that can be written", "Give another --out.") from None
        watching.begin(missing, len(jobs) - len(missing), workers, arithmetic)

    run_jobs(study, samples, out, missing, prepare, watching.event, chosen)
    for part in out.rglob(".*.part"):  # left by a process that was killed while it wrote
        part.unlink()
    results = _read(out / RESULTS)
    if results is None:
        raise RuntimeError(f"{out / RESULTS} was written and cannot be read")
    return results


def _results(out: Path, study: Study, mark: str) -> dict[str, Any] | None:
    """Read results.json if it tells of all of these seeds, of the data of this fingerprint, and all that it should."""
    results = _read(out / RESULTS)
    if results is None or "diagnosis" not in results:  # which older versions did not write
        return None
    try:
        fits = (results["data"]["fingerprint"], results["study"]["seeds"]) == (
            mark,
            study.seeds,
        )
    except (KeyError, TypeError):
        return None
    return results if fits else None


def _check_images(
    study: Study, samples: Samples, findings: Findings, out: Path, watching: Progress, looks: list[Look]
) -> dict[str, Any]:
    """Refuse images that would spoil the answer, a test image among the training images say; once for a run's data.

    Sets that come decoded are known, and their owners' business. ``findings`` has what reading the rows gave.
    """
    before = _read(out / CHECK)
    if before is not None and before.get("fingerprint") == samples.fingerprint:
        return before
    if samples.table.images is None:
        check_samples(samples, study, findings, watching.decoding, looks)
        findings.raise_first()
    return findings.as_dict() | {"fingerprint": samples.fingerprint}


def _write_listing(path: Path, samples: Samples) -> None:
    """Write which sample went where, for who wants to see that no patient is on two sides."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([inert(cell) for cell in row] for row in samples.listing())


def _read(path: Path) -> dict[str, Any] | None:
    """Read one of the run's JSON files, or give None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that holds something else, or a run of another study."""
    file = out / "study.json"
    if out.is_file():
        raise UserError(str(out), "a file", "a folder for the run, or no such path", "Give another --out.")
    try:
        text = file.read_text("utf-8") if file.exists() else None
        holds_others = text is None and out.exists() and any(out.iterdir())
    except OSError as error:
        expected = "a folder for the run, or no such path"
        raise UserError(str(out), error.strerror or str(error), expected, "Give another --out.") from None
    if holds_others:
        raise UserError(str(out), "other files", "an empty folder, a run, or no such path", "Give another --out.")
    if text is None:
        return
    try:
        before = json.loads(text)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise UserError(str(file), "no study", "the study of this run", "Give another --out.")
    now = study.model_dump(mode="json")
    if isinstance(before.get("seeds"), list) and set(before["seeds"]) <= set(now["seeds"]):
        before["seeds"] = now["seeds"]  # more of the same
    for content in (before, now):  # what decides how fast results come, not which
        content.pop("workers", None)
        if isinstance(content.get("data"), dict):
            content["data"].pop("store_limit", None)
    # As text: the order of classes and subclasses is part of the study.
    if json.dumps(before) != json.dumps(now):
        then, present = _flat(before), _flat(now)
        changed = sorted(key for key in then | present if then.get(key, ...) != present.get(key, ...))
        shown = "; ".join(f"{key}: {then.get(key, 'none')} before, {present.get(key, 'none')} now" for key in changed)
        remedy = "Give another --out, or restore these keys."
        found = f"a run of another study ({shown or 'the order of its hierarchy'})"
        raise UserError(str(out), found, "the same study", remedy)


def _check_same_data(samples: Samples, out: Path) -> None:
    """Refuse a folder whose run was made from other images, labels or splits."""
    try:
        before = json.loads((out / "data.json").read_text("utf-8"))["fingerprint"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError):
        before = "unreadable"
    if before != samples.fingerprint:
        found = f"a run made from other data (fingerprint {before} before, {samples.fingerprint} now)"
        raise UserError(str(out), found, "the same images, labels and splits", "Give another --out.")


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys to dotted ones.

    >>> _flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
