"""One trial: students of one arm by one draw of settings, judged on the validation split while they train."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from subclass_kd import store
from subclass_kd.arithmetic import Choices
from subclass_kd.cli_shared import say
from subclass_kd.config import Own, Study
from subclass_kd.data.rows import Samples
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint
from subclass_kd.lock import FolderLock
from subclass_kd.plan import Job, plan
from subclass_kd.work import make

WAIT = 0.5  # seconds between two looks at what another process makes
QUIET = 60.0  # seconds of waiting for a process that cannot be seen, before the user is told

# Hears of each epoch of a student: the job, the epoch, what the trial is worth by now, and how many epochs it has done.
OnEpoch = Callable[[Job, Epoch, float, int], None]


@dataclass(frozen=True)
class Shop:
    """What every trial of a process uses.

    Args:
        study: what is tuned.
        samples: its data, without the test split.
        out: the folder that all trials share.
        choices: how the networks compute.
    """

    study: Study
    samples: Samples
    out: Path
    choices: Choices


def judged_seeds(study: Study) -> list[int]:
    """Name the seeds that judge a trial."""
    return study.seeds[: study.tune.seeds]


def of_trial(study: Study, arm: str, own: Own) -> Study:
    """Give the study of one arm with settings of its own."""
    return study.model_copy(update={"arms": [arm], "seeds": judged_seeds(study), "per_arm": {arm: own}})


def jobs_of(study: Study, arm: str, own: Own, data_fingerprint: str) -> list[Job]:
    """List what a trial trains: teachers and targets that all trials share, and students in a folder of their own.

    Nothing here predicts: that is for the test split, which a search does not touch. The folder is named by what was
    drawn, so that equal draws are trained once, and a trial that was killed is found again.
    """
    folder = f"trials/{arm}-{fingerprint(own.model_dump(exclude_none=True))}/"
    planned = plan(of_trial(study, arm, own), data_fingerprint)
    shared = [job for job in planned if job.kind in ("teachers", "targets")]
    return shared + [replace(job, under=folder) for job in planned if job.kind == "students"]


def judge(
    shop: Shop,
    arm: str,
    own: Own,
    on_epoch: OnEpoch,
    on_teacher: Callable[[Job, Epoch], None] = lambda job, epoch: None,
) -> float:
    """Train what a trial needs and is not there yet; give its validation F1, 0 to 1, the mean over seeds.

    After each epoch the trial is worth the mean over the seeds so far, of each its best epoch: at the last epoch that
    is its result, and at any earlier one what it would be if it stopped there.

    Args:
        shop: what trials share.
        arm: which.
        own: its settings.
        on_epoch: hears of each epoch of a student, also of those that were done before; may raise to end the trial.
        on_teacher: hears of each epoch of a teacher that this trial is the first to need.
    """
    study = of_trial(shop.study, arm, own)
    jobs = jobs_of(shop.study, arm, own, shop.samples.fingerprint)
    done: list[float] = []  # of each seed, F1 of its best epoch
    for seed in study.seeds:
        best = 0.0

        def note(job: Job, epoch: Epoch) -> None:
            nonlocal best
            best = max(best, epoch.validation_f1)
            steps = len(done) * study.student.epochs + epoch.epoch
            on_epoch(job, epoch, statistics.mean([*done, best]), steps)

        own_jobs = [job for job in jobs if job.seed == seed]
        for job in own_jobs[:-1]:
            once(shop, study, job, on_teacher)
        student = own_jobs[-1]
        if not once(shop, study, student, note):  # another trial drew the same
            for epoch in store.notes(shop.out / student.path)["history"]:
                note(student, Epoch(**epoch))
        done.append(store.notes(shop.out / student.path)["best"]["validation_f1"])
    return statistics.mean(done)


def once(shop: Shop, study: Study, job: Job, on_epoch: Callable[[Job, Epoch], None]) -> bool:
    """Make a file, unless it is there or another process makes it; say whether it was made here."""
    path = shop.out / job.path
    if store.is_valid(path, job.recipe):
        return False
    with FolderLock(path.parent, f".{path.stem}.lock") as lock:
        wait_for(lock)
        if store.is_valid(path, job.recipe):
            return False
        make(study, shop.samples, shop.out, [job], shop.choices, on_epoch)
    return True


def wait_for(lock: FolderLock) -> None:
    """Take a lock as soon as whoever has it lets go; tell the user once of a lock that may be a dead machine's."""
    tell_at: float | None = time.monotonic() + QUIET
    while True:
        try:
            return lock.take()
        except UserError as error:
            if lock.believed and tell_at is not None and time.monotonic() > tell_at:
                tell_at = None
                say(f"waiting: {error}")
            time.sleep(WAIT)


def forget(out: Path, jobs: Sequence[Job]) -> None:
    """Remove what a trial that is given up left to go on from."""
    for job in jobs:
        if job.kind == "students":
            path = out / job.path
            path.with_name(f".{path.stem}.checkpoint").unlink(missing_ok=True)
