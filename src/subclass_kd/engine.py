"""Jobs in their order, in this process or in several side by side."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from subclass_kd.config import Study
from subclass_kd.cores import count_cores
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.plan import Job

# What happened to a job: "started", "epoch" (with an Epoch) or "finished".
OnEvent = Callable[[Job, str, Any], None]
MOST_AUTOMATIC_WORKERS = 8  # each takes about 0.8 GB


def run_jobs(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    prepare: Callable[[int], None],
    on_event: OnEvent,
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
        prepare: called once with the number of workers, when device and models are known to be right, before any job.
        on_event: called in this process.

    Raises:
        UserError: device, models, or what a job found, are the user's to mend.
        RuntimeError: a job failed otherwise, or its process died.
    """
    workers = count_workers(study)
    if min(workers, len(jobs)) == 1:
        _run_here(study, samples, out, jobs, prepare, on_event)
    else:
        _run_side_by_side(study, samples, out, jobs, min(workers, len(jobs)), prepare, on_event)


def count_workers(study: Study) -> int:
    """Count the processes that a study asks for on a CPU."""
    return min(count_cores(), MOST_AUTOMATIC_WORKERS) if study.workers == "auto" else study.workers


def _run_here(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    prepare: Callable[[int], None],
    on_event: OnEvent,
) -> None:
    import torch

    from subclass_kd.work import check, make

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        check(study, samples)
        prepare(1)
        for job in jobs:
            on_event(job, "started", None)
            make(study, samples, out, job, lambda epoch, job=job: on_event(job, "epoch", epoch))  # type: ignore[misc]
            on_event(job, "finished", None)
    finally:
        torch.set_num_threads(threads)


def _run_side_by_side(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    workers: int,
    prepare: Callable[[int], None],
    on_event: OnEvent,
) -> None:
    # "spawn", since a forked copy of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[tuple[int, Job | None, str, Any]] = context.Queue()
    inboxes = [context.SimpleQueue() for _ in range(workers)]
    processes = [
        context.Process(target=_work, args=(study, samples.fingerprint, out, number, inbox, events), daemon=True)
        for number, inbox in enumerate(inboxes)
    ]
    waiting, missing, idle = list(jobs), {job.path for job in jobs}, set(range(1, workers))
    prepared = False  # the first worker checks device and models; until then nothing is made
    try:
        for process in processes:
            process.start()
        while missing:
            if prepared and idle:
                for job in [job for job in waiting if missing.isdisjoint(job.needs)][: len(idle)]:
                    waiting.remove(job)
                    inboxes[idle.pop()].put(job)
            try:
                number, job_done, event, content = events.get(timeout=1)
            except queue.Empty:
                _check_alive(processes)
                continue
            if event == "failed":
                raise content if isinstance(content, UserError) else RuntimeError(content)
            if job_done is None:  # the check, with the kind of device
                alone = study.workers == "auto" and content != "cpu"
                idle = {number} if alone else {number, *idle}
                prepare(len(idle))
                prepared = True
                continue
            if event == "finished":
                missing.discard(job_done.path)
                idle.add(number)
            on_event(job_done, event, content)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _check_alive(processes: Sequence[Any]) -> None:
    for process in processes:
        if not process.is_alive():
            raise RuntimeError(f"a worker process died (exit code {process.exitcode}); is there enough memory?")


def _load_again(study: Study, fingerprint: str) -> Samples:
    """Read the data as the main process did, or refuse those that have changed since."""
    samples = load_samples(study)
    if samples.fingerprint != fingerprint:
        remedy = "Restore the data and run again, or give another --out."
        raise UserError(samples.table.where, "data that changed while the run went on", "data that stay", remedy)
    return samples


def _work(study: Study, fingerprint: str, out: Path, number: int, inbox: Any, events: Any) -> None:
    """Do jobs from the inbox until terminated; the first worker begins with the check."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle: it stops this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from subclass_kd.work import check, make

    torch.set_num_threads(1)

    def attempt(job: Job | None, action: Callable[[], Any]) -> None:
        try:
            events.put((number, job, "finished", action()))
        except UserError as error:
            events.put((number, job, "failed", error))
        except Exception:
            name = job.path if job else "check"
            events.put((number, job, "failed", f"{name}: {traceback.format_exc()}"))

    load = cache(lambda: _load_again(study, fingerprint))
    if number == 0:
        attempt(None, lambda: check(study, load()))
    while True:
        job: Job = inbox.get()
        events.put((number, job, "started", None))
        attempt(job, lambda job=job: make(study, load(), out, job, lambda e: events.put((number, job, "epoch", e))))  # type: ignore[misc]


def _end_with_parent() -> None:
    """End this process when its parent has ended without a word, as after kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
