"""Jobs in their order, in this process or in several side by side."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from subclass_kd.config import Study
from subclass_kd.errors import UserError
from subclass_kd.plan import Job

# What happened to a job: "started", "epoch" (with an Epoch) or "finished".
OnEvent = Callable[[Job, str, Any], None]


def run_jobs(study: Study, out: Path, jobs: Sequence[Job], workers: int, on_event: OnEvent) -> None:
    """Make the files of these jobs, each as soon as what it needs is there.

    On a CPU every job computes on one thread, whatever the number of workers: results stay the same, and processes
    of one thread each use the cores better than one process with many threads on networks this small.

    Args:
        study: what to run.
        out: the run folder.
        jobs: in order of preference; what one needs stands before it, or is on disk already.
        workers: processes; 1 works in this one.
        on_event: called in this process.

    Raises:
        UserError: a job found the user's input wrong.
        RuntimeError: a job failed otherwise, or its process died.
    """
    if workers == 1 or len(jobs) == 1:
        _run_here(study, out, jobs, on_event)
    else:
        _run_side_by_side(study, out, jobs, min(workers, len(jobs)), on_event)


def _run_here(study: Study, out: Path, jobs: Sequence[Job], on_event: OnEvent) -> None:
    import torch

    from subclass_kd.work import make

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in jobs:
            on_event(job, "started", None)
            make(study, out, job, lambda epoch, job=job: on_event(job, "epoch", epoch))  # type: ignore[misc]
            on_event(job, "finished", None)
    finally:
        torch.set_num_threads(threads)


def _run_side_by_side(study: Study, out: Path, jobs: Sequence[Job], workers: int, on_event: OnEvent) -> None:
    # "spawn", since a forked copy of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[tuple[int, Job, str, Any]] = context.Queue()
    inboxes = [context.SimpleQueue() for _ in range(workers)]
    processes = [
        context.Process(target=_work, args=(study, out, number, inbox, events), daemon=True)
        for number, inbox in enumerate(inboxes)
    ]
    waiting, missing, idle = list(jobs), {job.path for job in jobs}, set(range(workers))
    try:
        for process in processes:
            process.start()
        while missing:
            for job in [job for job in waiting if missing.isdisjoint(job.needs)][: len(idle)]:
                waiting.remove(job)
                inboxes[idle.pop()].put(job)
            try:
                number, job, event, content = events.get(timeout=1)
            except queue.Empty:
                _check_alive(processes)
                continue
            if event == "failed":
                raise content if isinstance(content, UserError) else RuntimeError(f"{job.path}: {content}")
            if event == "finished":
                missing.discard(job.path)
                idle.add(number)
            on_event(job, event, content)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _check_alive(processes: Sequence[Any]) -> None:
    for process in processes:
        if not process.is_alive():
            raise RuntimeError(f"a worker process died (exit code {process.exitcode}); is there enough memory?")


def _work(study: Study, out: Path, number: int, inbox: Any, events: Any) -> None:
    """Do jobs from the inbox until terminated."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle: it stops this one
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from subclass_kd.work import make

    torch.set_num_threads(1)
    while True:
        job = inbox.get()
        events.put((number, job, "started", None))
        try:
            make(study, out, job, lambda epoch, job=job: events.put((number, job, "epoch", epoch)))  # type: ignore[misc]
        except UserError as error:
            events.put((number, job, "failed", error))
        except Exception:
            events.put((number, job, "failed", traceback.format_exc()))
        else:
            events.put((number, job, "finished", None))
