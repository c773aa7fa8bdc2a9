"""A process of a search: it takes trials of whichever arm has fewest, until every arm has as many as it shall have."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from subclass_kd.arithmetic import from_dict
from subclass_kd.checkpoint import stop_at_a_checkpoint
from subclass_kd.config import Study
from subclass_kd.data.on_demand import decode_with
from subclass_kd.data.samples import load_samples
from subclass_kd.device import keep_freed_memory
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.plan import Job
from subclass_kd.processes import end_with_parent, may_have_children
from subclass_kd.tracking import Tracking, settings_of
from subclass_kd.training import Diverged
from subclass_kd.tune import storage
from subclass_kd.tune.space import make_sampler, suggest
from subclass_kd.tune.trial import Shop, forget, jobs_of, judge, of_trial


class Surplus(Exception):  # noqa: N818 - nothing is wrong
    """A trial that began though its arm has enough."""


@dataclass(frozen=True)
class Search:
    """All that a process of a search is told.

    Args:
        study: what is tuned.
        out: the folder that all processes share.
        url: of the database that they share.
        mark: fingerprint of study, data and the models' code: searches of others lie in the same database apart.
        data: fingerprint of the data.
        choices: how the networks compute, as :meth:`Choices.as_dict` gives it; None where nothing is left to train.
        grace: as of :func:`subclass_kd.tune.storage.open_storage`.
        cores: that a process may decode images with, where there is no store of them.
    """

    study: Study
    out: Path
    url: str
    mark: str
    data: str
    choices: dict[str, Any] | None = None
    grace: int = storage.GRACE
    cores: int = 1

    def studies(self) -> dict[str, optuna.Study]:
        """Open each arm's trials."""
        opened = storage.open_storage(self.url, self.grace)
        epochs = self.study.student.epochs
        return {arm: storage.open_study(opened, self.mark, arm, epochs) for arm in self.study.arms}


def work(search: Search, verify: bool = False) -> None:
    """Take trials until there are none left, neither to take nor to wait for.

    Args:
        search: what to do.
        verify: whether to hold the store of decoded images against its digests; on its own machine the main process
            has just done so.

    Raises:
        UserError: data, disk or database are not what they were, or a teacher cannot be trained.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    samples = load_samples(search.study, verify=verify, test=False)
    if samples.fingerprint != search.data:
        raise UserError(samples.table.where, "data that changed while the search went on", "data that stay")
    decode_with(samples.images, search.cores)
    shop = Shop(search.study, samples, search.out, from_dict(search.choices))
    with Tracking(search.study.track, search.out) as tracking:
        storage.lost(lambda: _take(search, shop, tracking))


def process(search: Search, environment: dict[str, str], sender: Connection) -> None:
    """Work in a process of its own, and send what was wrong, or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle: it stops this one
    os.environ.update(environment)
    end_with_parent()
    may_have_children()  # those that decode images where there is no store of them
    stop_at_a_checkpoint()
    try:
        work(search)
        sender.send(None)
    except UserError as error:
        sender.send(error)
    except SystemExit as stop:  # Optuna's heartbeat may have begun outside of what would end it
        os._exit(int(stop.code or 0))
    except Exception:
        sender.send(traceback.format_exc())


def finished(studies: Mapping[str, optuna.Study], trials: int) -> bool:
    """Say whether every arm has its trials, and all have ended."""
    going = (TrialState.RUNNING, TrialState.WAITING)
    return all(
        storage.count(study, *storage.ENDED) >= trials and not storage.count(study, *going)
        for study in studies.values()
    )


def _take(search: Search, shop: Shop, tracking: Tracking) -> None:
    studies, trials = search.studies(), search.study.tune.trials
    seen: set[int] = set()
    while True:
        storage.queue_the_dead(list(studies.values()), seen)
        started = {arm: storage.count(study, *storage.TAKEN) for arm, study in studies.items()}
        queued = {arm for arm, study in studies.items() if storage.count(study, TrialState.WAITING)}
        wanting = [arm for arm in studies if started[arm] < trials or arm in queued]
        if wanting:
            arm = min(wanting, key=lambda arm: started[arm])
            _try(search, shop, tracking, studies[arm], arm)
        elif finished(studies, trials):
            return
        else:
            time.sleep(1)  # another process has trials, and may yet die


def _try(search: Search, shop: Shop, tracking: Tracking, study: optuna.Study, arm: str) -> None:
    """Do one trial of an arm."""
    number, own_fault = -1, None

    def objective(trial: optuna.Trial) -> float:
        nonlocal number, own_fault
        number = trial.number
        if storage.is_surplus(study, number, search.study.tune.trials):
            raise Surplus
        try:
            return _judge(search, shop, tracking, study, arm, trial)
        except SystemExit:  # this process is asked to stop: another may go on at once, if none does already
            with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
                study.tell(trial, state=TrialState.FAIL)
                storage.again(study, study.get_trials()[number])
            raise
        except optuna.exceptions.OptunaError:
            raise
        except Exception as error:
            own_fault = error
            raise

    try:
        study.optimize(objective, n_trials=1, catch=(Surplus,))
    except (ValueError, AssertionError, optuna.exceptions.UpdateFinishedTrialError) as error:
        # Another process took this one for dead, and the trial is queued: what was trained is kept, and found there.
        taken_over = number >= 0 and study.get_trials(deepcopy=False)[number].state.is_finished()
        if error is own_fault or not taken_over:
            raise


def _judge(search: Search, shop: Shop, tracking: Tracking, study: optuna.Study, arm: str, trial: optuna.Trial) -> float:
    study.sampler = make_sampler(search.mark, arm, trial.number, search.study.tune.trials)
    own = suggest(trial, arm, search.study.tune)
    trial.set_user_attr("settings", own.model_dump(exclude_none=True))
    trial.set_user_attr("by", f"{socket.gethostname()}, process {os.getpid()}")
    tuned = of_trial(search.study, arm, own)
    last = len(tuned.seeds) * tuned.student.epochs

    def tell(job: Job, epoch: Epoch) -> None:
        tracking.epoch(job, settings_of(tuned, job), epoch)

    def heard(job: Job, epoch: Epoch, value: float, step: int) -> None:
        tell(job, epoch)
        trial.report(value, step)
        if step < last and trial.should_prune():
            raise optuna.TrialPruned

    whole = False
    try:
        value = judge(shop, arm, own, heard, tell)
        whole = True
        return value
    except optuna.TrialPruned:
        whole = True
        forget(search.out, jobs_of(search.study, arm, own, search.data))
        raise
    except Diverged as error:
        if "student" not in error.where:
            raise
        whole = True
        raise optuna.TrialPruned(str(error)) from None  # a result like any other: as bad as can be
    finally:
        tracking.finish_all(whole)
