"""Jobs in their order, in this process or in several side by side."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from subclass_kd.config import Study
from subclass_kd.cores import count_cores
from subclass_kd.data.on_demand import OnDemand, decode_with
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.plan import Job, grouped
from subclass_kd.processes import end_with_parent, may_have_children, no_main, worker_context
from subclass_kd.team import current
from subclass_kd.together import summon

# Runs jobs: run_jobs here, or that of another engine with the same arguments.
Engine = Callable[..., None]
# What happened to a job: "started", "epoch" (with an Epoch) or "finished".
OnEvent = Callable[[Job, str, Any], None]
# Called with the number of workers and with what was chosen for this device, as Choices.as_dict gives it.
Prepare = Callable[[int, dict[str, Any]], None]
PATIENCE = 120.0  # seconds for a process to end its step and keep it
MOST_AUTOMATIC_WORKERS = 8  # each takes 0.5 to 0.8 GB


def run_jobs(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    prepare: Prepare,
    on_event: OnEvent,
    before: Any = None,
) -> None:
    """Make the files of these jobs, each as soon as what it needs is there.

    On a CPU every job computes on one thread, whatever the number of workers: results stay the same, and processes
    of one thread each use the cores better than one process with many threads on networks this small. Side by side,
    this process never loads torch.

    Args:
        study: what to run; ``workers`` is how many processes: 1 works in this one, "auto" is one for each core up to
            eight, and one alone on a GPU.
        samples: its data; each process side by side reads them again.
        out: the run folder.
        jobs: in order of preference; what one needs stands before it, or is on disk already.
        prepare: called once, when device and models are known to be right, before any job.
        on_event: called in this process.
        before: what was chosen for this device when the run began; None for a new run.

    Raises:
        UserError: device, models, or what a job found, are the user's to mend.
        RuntimeError: a job failed otherwise, or its process died.
    """
    workers = 1 if current().count > 1 else count_workers(study)  # a team does one job after another
    if min(workers, len(jobs)) == 1:
        _run_here(study, samples, out, jobs, prepare, on_event, before)
    else:
        _run_side_by_side(study, samples, out, jobs, min(workers, len(jobs)), prepare, on_event, before)


def count_workers(study: Study) -> int:
    """Count the processes that a study asks for on a CPU."""
    return min(count_cores(), MOST_AUTOMATIC_WORKERS) if study.workers == "auto" else study.workers


def _run_here(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    prepare: Prepare,
    on_event: OnEvent,
    before: Any,
) -> None:
    import torch

    from subclass_kd.build import check
    from subclass_kd.device import keep_freed_memory
    from subclass_kd.work import make

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    decode_with(samples.images, count_cores() // current().devices)  # the others of a team decode their shares
    try:
        choices = check(study, samples, before)
        prepare(1, choices.as_dict())
        for group in grouped(jobs, members_of(study, choices.student.chosen.members), study.distillation.unlabelled):
            for job in group:
                on_event(job, "started", None)
            summon(study, samples, out, group, choices)
            make(study, samples, out, group, choices, lambda job, epoch: on_event(job, "epoch", epoch))
            for job in group:
                on_event(job, "finished", None)
    finally:
        torch.set_num_threads(threads)


def _run_side_by_side(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    workers: int,
    prepare: Prepare,
    on_event: OnEvent,
    before: Any,
) -> None:
    context = worker_context(study.device)
    events: multiprocessing.Queue[tuple[int, tuple[Job, ...], str, Any]] = context.Queue()
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    inboxes = [sender for _, sender in pipes]
    processes = [
        context.Process(  # type: ignore[attr-defined]
            target=_work,
            args=(study, samples.fingerprint, out, dict(os.environ), number, receiver, events, before),
            daemon=True,
        )
        for number, (receiver, _) in enumerate(pipes)
    ]
    waiting, missing, idle = grouped(jobs, 1), {job.path for job in jobs}, set(range(1, workers))
    judge: int | None = None  # the worker that is to make the results
    choices: dict[str, Any] | None = None  # the first worker checks device and models; until then nothing is made
    try:
        with no_main():
            for process in processes:
                process.start()
        while missing:
            if choices and idle:
                for group in [group for group in waiting if may_begin(group, missing)][: len(idle)]:
                    waiting.remove(group)
                    number = judge if group[0].kind == "results" and judge in idle else min(idle)
                    idle.discard(number)
                    inboxes[number].send((group, choices))
                if idle and judge is None:  # while it waits, it may load what the results need
                    judge = max(idle)
                    inboxes[judge].send(((), choices))
            try:
                number, group, event, content = events.get(timeout=1)
            except queue.Empty:
                _check_alive(processes)
                continue
            if event == "failed":
                raise content if isinstance(content, UserError) else RuntimeError(content)
            if not group:  # the check
                choices = content
                members = members_of(study, content["student"]["chosen"]["members"])
                waiting = grouped(jobs, members, study.distillation.unlabelled)
                alone = study.workers == "auto" and not content["device"].startswith("cpu")
                idle = {number} if alone else {number, *idle}
                prepare(len(idle), content)
                continue
            if event == "finished":
                missing.difference_update(job.path for job in group)
                idle.add(number)
            for job in group:
                on_event(job, event, content)
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def members_of(study: Study, chosen: int) -> int:
    """Say how many students may train as one: not those with a learning rate of their own, nor those of a team."""
    return 1 if study.per_arm or current().count > 1 else chosen


def may_begin(group: tuple[Job, ...], missing: set[str]) -> bool:
    """Say whether all that a group needs is there."""
    return all(missing.isdisjoint(job.needs) for job in group)


def _check_alive(processes: Sequence[Any]) -> None:
    for process in processes:
        if not process.is_alive():
            raise RuntimeError(f"a worker process died (exit code {process.exitcode}); is there enough memory?")


def same_samples(study: Study, fingerprint: str, verify: bool = False) -> Samples:
    """Read the data as the main process did, or refuse those that have changed since.

    Args:
        study: whose data.
        fingerprint: of what the main process read.
        verify: whether to hold the store against its digests; on its own machine the main process has just done so.

    Raises:
        UserError: the data are others, or cannot be read.
    """
    samples = load_samples(study, verify=verify)
    if samples.fingerprint != fingerprint:
        remedy = "Restore the data and run again, or give another --out."
        raise UserError(samples.table.where, "data that changed while the run went on", "data that stay", remedy)
    return samples


def load_again(study: Study, fingerprint: str, verify: bool = False) -> Samples:
    """Read the data as :func:`same_samples` does, for one of several processes on a machine."""
    from subclass_kd.device import make_fabric

    samples = same_samples(study, fingerprint, verify)
    if isinstance(samples.images, OnDemand):
        alone = study.workers == "auto" and make_fabric(study).device.type != "cpu"
        sharing = current().devices if current().count > 1 else 1 if alone else count_workers(study)
        samples.images.processes = max(1, count_cores() // sharing)
    return samples


def _work(
    study: Study,
    fingerprint: str,
    out: Path,
    environment: dict[str, str],
    number: int,
    inbox: Connection,
    events: Any,
    before: Any,
) -> None:
    """Do jobs from the inbox until terminated; the first worker begins with the check."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle: it stops this one
    os.environ.update(environment)  # a copy of a process that was there before has the environment of then
    end_with_parent()
    may_have_children()  # those that decode images where there is no store of them
    import torch

    from subclass_kd.arithmetic import from_dict
    from subclass_kd.build import check
    from subclass_kd.checkpoint import end_if_asked, stop_at_a_checkpoint
    from subclass_kd.device import keep_freed_memory
    from subclass_kd.work import make

    torch.set_num_threads(1)
    keep_freed_memory()
    stop_at_a_checkpoint()
    events.cancel_join_thread()  # at the end nobody may be left who reads them

    def attempt(group: tuple[Job, ...], action: Callable[[], Any]) -> None:
        try:
            events.put((number, group, "finished", action()))
        except UserError as error:
            events.put((number, group, "failed", error))
        except Exception:
            name = ", ".join(job.path for job in group) or "check"
            events.put((number, group, "failed", f"{name}: {traceback.format_exc()}"))

    def do(group: tuple[Job, ...], choices: dict[str, Any]) -> None:
        tell = lambda job, epoch: events.put((number, (job,), "epoch", epoch))  # noqa: E731
        make(study, load(), out, group, from_dict(choices), tell)

    load = cache(lambda: load_again(study, fingerprint))
    if number == 0:
        attempt((), lambda: check(study, load(), before).as_dict())
    while True:
        # A signal that comes just before a call that blocks is heard after it: no call may block for long.
        while not inbox.poll(1):
            end_if_asked()
        end_if_asked()
        group, choices = inbox.recv()
        if not group:
            import subclass_kd.results  # noqa: F401  (it takes seconds)

            continue
        events.put((number, group, "started", None))
        attempt(group, partial(do, group, choices))
