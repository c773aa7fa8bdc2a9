"""A study from beginning to end: check, plan, make what is missing, judge."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from subclass_kd import store
from subclass_kd.config import Study
from subclass_kd.data.check import check_samples
from subclass_kd.data.findings import Findings
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_rows, load_samples
from subclass_kd.data.scan import Look, scan
from subclass_kd.engine import Engine, run_jobs
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, whole, write_json
from subclass_kd.lock import FolderLock
from subclass_kd.models import check_model_name
from subclass_kd.plan import RESULTS, Job, asked_networks, made_from, marks_of, plan
from subclass_kd.run_folder import (
    check_folder,
    check_same_data,
    drop_damaged,
    drop_sums,
    has_sum,
    read_json,
    write_sums,
)
from subclass_kd.spreadsheet import csv_line
from subclass_kd.tracking import Tracking, tell_results
from subclass_kd.watching import Progress, Silent, Telling

CHECK = "check.json"
ARITHMETIC = "arithmetic.json"


def run_study(study: Study, out: Path, progress: Progress | None = None, engine: Engine = run_jobs) -> dict[str, Any]:
    """Run a study into a folder, or what is left of it, and give its results.

    Files that are there and valid are kept: a finished run trains nothing, an interrupted one goes on.

    With ``data.folds`` and no ``data.fold`` every fold is a run of its own, in ``fold-0`` and so on, and the results
    are those of all test images of all folds: each image of the data is tested once a seed.

    Args:
        study: what to run; ``workers``, ``data.store_limit`` and ``teacher.shard`` may differ from run to run, and
            ``seeds`` may be added to; every other key must stay for a given folder.
        out: the run folder; made if it is not there, which is after everything has been checked.
        progress: hears of every job.
        engine: runs the jobs; that of this machine, or what :func:`subclass_kd.engine_ray.on_cluster` gives.

    Returns:
        results.json as plain values.

    Raises:
        UserError: data, models or the folder do not fit the study.
        RuntimeError: a job failed.
    """
    with Tracking(study.track, out) as tracking:
        watching = progress or Silent()
        results = _run(study, out, Telling(watching, tracking, study) if study.track else watching, engine)
        if study.track:
            tell_results(tracking, results)
    return results


def _run(study: Study, out: Path, watching: Progress, engine: Engine) -> dict[str, Any]:
    check_model_name(study.teacher, "teacher")
    check_model_name(study.student, "student")
    with _alone(study, out) as claim:
        if study.data.folds is not None and study.data.fold is None:
            return _run_folds(study, out, watching, claim, engine)
        return _run_split(study, out, watching, read_json(out / ARITHMETIC), begin=claim, engine=engine)


@contextlib.contextmanager
def _alone(study: Study, out: Path) -> Iterator[Callable[[], None]]:
    """Keep other runs out of a run folder while the block goes on, or, if it is not there, from the call given on."""
    with FolderLock(out) as lock:

        def claim() -> None:
            lock.take()
            check_folder(study, out)  # another run may have begun there while this one looked at its data

        if out.is_dir():
            with contextlib.suppress(OSError):  # a finished run may lie where nothing can be written
                lock.take()
        check_folder(study, out)
        yield claim


def _run_folds(
    study: Study, out: Path, watching: Progress, claim: Callable[[], None], engine: Engine
) -> dict[str, Any]:
    """Run each fold as a study of its own, and judge their predictions together."""
    folds = [
        study.model_copy(update={"data": study.data.model_copy(update={"fold": fold})})
        for fold in range(study.data.folds or 0)
    ]
    folders = [out / f"fold-{fold}" for fold in range(len(folds))]
    broken = drop_damaged(out)
    if broken:
        watching.damaged(broken)
    looks = _check_folds(folds, folders, watching)

    def begin() -> None:  # with the first file of the first fold: from here on it is this study's folder
        claim()
        drop_sums(out)
        write_json(out / "study.json", study.model_dump(mode="json"))

    marks = []
    for fold, (each, folder) in enumerate(zip(folds, folders, strict=True)):
        watching.fold(fold, len(folds))
        with _alone(each, folder) as claim_fold:  # of a run of this fold alone, which the lock above does not keep out

            def begin_fold(claim_fold: Callable[[], None] = claim_fold) -> None:
                begin()
                claim_fold()

            chosen = read_json(folder / ARITHMETIC) or read_json(folders[0] / ARITHMETIC)  # all folds compute alike
            marks.append(_run_split(each, folder, watching, chosen, looks, begin_fold, engine)["data"]["fingerprint"])
    before = _results(out, study, fingerprint(*marks))
    made = max((folder / RESULTS).stat().st_mtime_ns for folder in folders)
    if before is not None and not broken and (out / RESULTS).stat().st_mtime_ns >= made:
        return before
    import torch

    from subclass_kd.arithmetic import from_dict
    from subclass_kd.results import Part, assemble

    torch.set_num_threads(1)  # the last digit of a sum depends on their number
    parts = [Part(load_samples(each, verify=False), folder) for each, folder in zip(folds, folders, strict=True)]
    if [part.samples.fingerprint for part in parts] != marks:
        remedy = "Restore the data and run again, or give another --out."
        where = parts[0].samples.table.where
        raise UserError(where, "data that changed while the run went on", "data that stay", remedy)
    results = assemble(study, parts, from_dict(read_json(folders[0] / ARITHMETIC) or {}))
    for name in (CHECK, ARITHMETIC):
        write_json(out / name, read_json(folders[0] / name))
    write_json(out / "study.json", study.model_dump(mode="json"))
    write_json(out / "data.json", results["data"])
    write_json(out / RESULTS, results)
    write_sums(out)
    return results


def _check_folds(folds: Sequence[Study], folders: Sequence[Path], watching: Progress) -> list[Look]:
    """Refuse what is wrong with any fold before the first trains, a copy in two folds say; give what was looked at."""
    rows = [load_rows(each, Findings()) for each in folds]
    if all((folder / CHECK).exists() for folder in folders):  # a run that goes on; each fold holds its own
        return []
    looks: list[Look] = []
    samples = load_samples(folds[0], watching.decoding, looks=looks)
    if samples.table.images is not None:
        return []
    found = looks or scan(samples.table, folds[0].data, watching.decoding).looks
    looks = [look for look in found if isinstance(look, Look)]  # all: those that cannot be read are refused above
    for each, of_fold in zip(folds, rows, strict=True):
        findings = Findings()
        check_samples(of_fold, each, findings, looks=looks)
        findings.raise_first()
    return looks


def _run_split(
    study: Study,
    out: Path,
    watching: Progress,
    chosen: dict[str, Any] | None,
    looked: Sequence[Look] = (),
    begin: Callable[[], None] = lambda: None,
    engine: Engine = run_jobs,
) -> dict[str, Any]:
    """Run a study of one split.

    Args:
        study: of one split.
        out: its run folder.
        watching: hears of every job.
        chosen: how its networks shall compute, if that is settled.
        looked: what is known of each image already.
        begin: called before the first file is written.
        engine: runs the jobs.
    """
    broken = drop_damaged(out)
    chosen = None if ARITHMETIC in broken else chosen
    findings = Findings()
    looks = list(looked)  # of images that are decoded now: once serves the store and the check
    samples = load_samples(study, watching.decoding, findings, looks=None if looks else looks)
    check_same_data(samples, out)
    jobs = plan(study, samples.fingerprint)
    missing = _to_make(study, out, jobs)
    results = _results(out, study, samples.fingerprint)
    if results is not None and not missing and not broken:
        with contextlib.suppress(OSError):  # it may lie where nothing can be written
            _tidy(out)
            if not has_sum(out, RESULTS):  # killed just before
                write_sums(out)
        return results
    damaged = broken + [job.path for job in missing if store.is_damaged(out / job.path)]
    if damaged:
        watching.damaged(damaged)
    anew = {job.path for job in missing}
    unsure = any(anew & set(made_from(study, job)) for job in jobs[:-1] if job.path not in anew)
    missing.append(jobs[-1])  # the results, anew
    checked = _check_images(study, samples, findings, out, watching, looks)
    looks.clear()  # 1 kB an image

    def prepare(workers: int, arithmetic: dict[str, Any]) -> None:
        try:
            begin()
            drop_sums(out)
            if results is not None:  # of files that are made anew: after a stop nobody could tell that it is of others
                (out / RESULTS).unlink()
            write_json(out / "study.json", study.model_dump(mode="json"))
            write_json(out / "data.json", samples.describe())
            write_json(out / CHECK, checked)
            write_json(out / ARITHMETIC, arithmetic)
            _write_listing(out / "samples.csv", samples)
            write_sums(out, but=RESULTS)
        except OSError as error:
            found = error.strerror or str(error)
            raise UserError(str(out), found, "a folder that can be written", "Give another --out.") from None
        watching.checked(checked)
        watching.begin(missing, len(jobs) - len(missing), workers, arithmetic)

    engine(study, samples, out, missing, prepare, watching.event, chosen)
    _tidy(out)
    if unsure and _to_make(study, out, jobs):  # a teacher came out otherwise than the one whose students are here
        return _run_split(study, out, watching, read_json(out / ARITHMETIC), looked, begin, engine)
    made = read_json(out / RESULTS)
    if made is None:
        raise RuntimeError(f"{out / RESULTS} was written and cannot be read")
    write_sums(out)
    return made


def _to_make(study: Study, out: Path, jobs: Sequence[Job]) -> list[Job]:
    """List the jobs but the results whose file is not there, damaged, of another recipe, or of other files than these.

    Of what is made anew only the predictions are made anew at once: a teacher of the same recipe comes out the same on
    the same machine, and its targets and students are held against it when it is there.
    """
    anew: set[str] = set()
    others: set[str] = set()  # those of them that were made from other files, and whose dependents are so too
    for job in jobs[:-1]:
        if not store.is_valid(out / job.path, job.recipe):
            anew.add(job.path)
        elif others & set(made_from(study, job)) or _of_others(study, out, job, anew):
            anew.add(job.path)
            others.add(job.path)
        elif anew & set(asked_networks(study, job)):
            anew.add(job.path)
    return [job for job in jobs if job.path in anew]


def _of_others(study: Study, out: Path, job: Job, anew: set[str]) -> bool:
    """Tell whether a valid file was made from other files than those that are there; older versions did not note it."""
    noted = store.notes(out / job.path).get("made_from") or {}
    return any(noted.get(path, mark) != mark for path, mark in marks_of(study, out, job).items() if path not in anew)


def _tidy(out: Path) -> None:
    """Remove what a process left that was killed while it wrote, or just after."""
    for pattern in (".*.part", ".*.checkpoint", ".*.parts"):
        for left in out.rglob(pattern):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _results(out: Path, study: Study, mark: str) -> dict[str, Any] | None:
    """Read results.json if it tells of all of these seeds, of the data of this fingerprint, and all that it should."""
    results = read_json(out / RESULTS)
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
    before = read_json(out / CHECK)
    if before is not None and before.get("fingerprint") == samples.fingerprint:
        return before
    if samples.table.images is None:
        check_samples(samples, study, findings, watching.decoding, looks)
        findings.raise_first()
    return findings.as_dict() | {"fingerprint": samples.fingerprint}


def _write_listing(path: Path, samples: Samples) -> None:
    """Write which sample went where, for who wants to see that no patient is on two sides."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_line(row) for row in samples.listing())
