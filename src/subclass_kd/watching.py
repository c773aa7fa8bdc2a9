"""Who hears of a run while it works: a screen, trackers, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from subclass_kd.config import Study
from subclass_kd.plan import Job
from subclass_kd.tracking import Tracking, settings_of


class Progress(Protocol):
    """What a run tells while it works; see display.py for the one that prints."""

    def decoding(self, done: int, total: int) -> None:
        """Tell how many of how many images are decoded."""

    def fold(self, number: int, folds: int) -> None:
        """Tell which fold, from 0, comes now; not called where one split is all."""

    def damaged(self, paths: Sequence[str]) -> None:
        """Tell which files of the run are not as they were written, and are made again."""

    def checked(self, report: Mapping[str, Any]) -> None:
        """Tell what was found in the data (check.json), none of which stops the run; once for each fold."""

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

    def damaged(self, paths: Sequence[str]) -> None:
        """Say nothing."""

    def checked(self, report: Mapping[str, Any]) -> None:
        """Say nothing."""

    def begin(self, jobs: Sequence[Job], finished: int, workers: int, arithmetic: dict[str, Any]) -> None:
        """Say nothing."""

    def event(self, job: Job, event: str, content: Any) -> None:
        """Say nothing."""


class Telling:
    """Progress that tells the study's trackers of each training, beside who watches."""

    def __init__(self, watching: Progress, tracking: Tracking, study: Study) -> None:
        self._tracking, self._study, self._folder = tracking, study, ""
        self.decoding, self.damaged = watching.decoding, watching.damaged
        self.checked, self.begin = watching.checked, watching.begin
        self._watching = watching

    def fold(self, number: int, folds: int) -> None:
        """Note which fold comes now."""
        self._folder = f"fold-{number}/"
        self._watching.fold(number, folds)

    def event(self, job: Job, event: str, content: Any) -> None:
        """Tell an epoch, and the end of a job."""
        if event == "epoch":
            self._tracking.epoch(job, settings_of(self._study, job), content, self._folder)
        elif event == "finished":
            self._tracking.finish_job(job, self._folder)
        self._watching.event(job, event, content)
