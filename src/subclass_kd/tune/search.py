"""A search from beginning to end: check, let processes take trials, write what was best."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import URL

from subclass_kd import store
from subclass_kd.build import check
from subclass_kd.config import Study
from subclass_kd.cores import count_cores
from subclass_kd.data.check import check_samples
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import load_samples
from subclass_kd.data.scan import Look
from subclass_kd.engine import PATIENCE, count_workers
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, write_json
from subclass_kd.lock import LOCK, FolderLock
from subclass_kd.models import check_model_name, model_version
from subclass_kd.processes import no_main, worker_context
from subclass_kd.run_folder import flattened, read_json
from subclass_kd.study import ARITHMETIC, CHECK
from subclass_kd.tune import storage
from subclass_kd.tune.outcome import write_outcome
from subclass_kd.tune.trial import judged_seeds, wait_for
from subclass_kd.tune.worker import Search, finished, process

SEARCH, DATABASE = "search.json", "tune.db"
OnTrial = Callable[[str, Any], None]  # an arm and a trial of it that has ended, as Optuna has it


def tune(
    study: Study,
    out: Path,
    url: str | None = None,
    on_cluster: bool = False,
    address: str | None = None,
    decoding: Callable[[int, int], None] | None = None,
    on_trial: OnTrial = lambda arm, trial: None,
    grace: int = storage.GRACE,
) -> dict[str, Any]:
    """Search for each arm's best settings, or go on with a search.

    Any number of processes on any number of machines may do so at once with the same folder and database.

    Args:
        study: what is tuned, and in ``tune`` how.
        out: the folder; made if it is not there.
        url: of the database; one in the folder if not given.
        on_cluster: let Ray start the processes.
        address: of Ray's cluster.
        decoding: hears how many of how many images are decoded.
        on_trial: hears of each trial that ends, by whichever process.
        grace: seconds without a word after which a process is believed dead, and its trial taken over.

    Returns:
        What tune.json holds.

    Raises:
        UserError: data, models, folder or database do not fit, or no trial of an arm came to an end.
        RuntimeError: the processes failed.
    """
    check_model_name(study.teacher, "teacher")
    check_model_name(study.student, "student")
    if study.data.folds is not None and study.data.fold is None:
        remedy = "Give --set data.fold=0: what is found never saw that part, but it saw what the other folds test."
        raise UserError('key "data.folds"', f"{study.data.folds} folds", "data.fold beside it", remedy)
    out = out.resolve()
    _check_folder(study, out)
    findings = Findings()
    looks: list[Look] = []
    samples = load_samples(study, decoding, findings, looks=looks, test=False)
    models = [model_version(network) for network in (study.teacher, study.student)]  # the user may edit one in between
    mark = fingerprint(store.FORMAT, json.dumps(_searched(study)), samples.fingerprint, models)
    with _alone(out):
        _check_folder(study, out)
        before = read_json(out / SEARCH) or {}
        if before.get("data", samples.fingerprint) != samples.fingerprint:
            found = f"a search with other data (fingerprint {before['data']} before, {samples.fingerprint} now)"
            raise UserError(str(out), found, "the same images, labels and splits", "Give another --out.")
        if samples.table.images is None and "data" not in before:
            check_samples(samples, study, findings, decoding, looks)
            findings.raise_first()
            write_json(out / CHECK, findings.as_dict() | {"fingerprint": samples.fingerprint})
        search = Search(study, out, url or own_url(out), mark, samples.fingerprint, grace=grace)
        studies = search.studies()  # with the tables, before several processes want them
        write_json(out / SEARCH, {"study": study.model_dump(mode="json"), "data": samples.fingerprint})
        if not finished(studies, study.tune.trials):
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            choices = check(study, samples, read_json(out / ARITHMETIC)).as_dict()
            torch.set_num_threads(threads)
            write_json(out / ARITHMETIC, choices)
            search = replace(search, choices=choices)
    told: set[tuple[str, int]] = set()

    def watch() -> None:
        for arm, each in studies.items():
            for trial in each.get_trials(deepcopy=False, states=storage.ENDED):
                if (arm, trial.number) not in told:
                    told.add((arm, trial.number))
                    on_trial(arm, trial)

    if search.choices is None:
        pass
    elif on_cluster:
        from subclass_kd.tune.cluster import run_on_cluster

        run_on_cluster(search, search.choices["device"], address, watch)
    else:
        _run_here(search, search.choices["device"], watch)
    storage.lost(watch)
    with _alone(out):
        return write_outcome(study, studies, samples.describe(), out)


def own_url(out: Path) -> str:
    """Give the URL of the database in a search's folder, whatever that is called."""
    return URL.create("sqlite", database=str(out / DATABASE)).render_as_string(hide_password=False)


def _searched(study: Study) -> dict[str, Any]:
    """Give what decides a trial's result; arms and trials may be added to a search."""
    content = study.model_dump(mode="json", exclude={"workers", "track", "arms", "per_arm"})
    content["data"].pop("store_limit")
    content["teacher"].pop("shard")
    content["tune"].pop("trials")
    content["seeds"] = judged_seeds(study)
    return content


def _check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that holds something else, or a search of another study."""
    expected = "a folder for the search, or no such path"
    if out.exists() and not out.is_dir():
        raise UserError(str(out), "a file", expected, "Give another --out.")
    before = read_json(out / SEARCH)
    if before is None:
        if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
            raise UserError(str(out), "other files", expected, "Give another --out.")
        return
    try:
        then, now = (
            flattened(_searched(Study.model_validate_json(json.dumps(before["study"])))),
            flattened(_searched(study)),
        )
    except (ValueError, KeyError):
        raise UserError(str(out / SEARCH), "no search", "what skd tune wrote", "Give another --out.") from None
    changed = sorted(key for key in then | now if then.get(key, ...) != now.get(key, ...))
    if changed:
        shown = "; ".join(f"{key}: {then.get(key, 'none')} before, {now.get(key, 'none')} now" for key in changed)
        remedy = "Give another --out, or restore these keys."
        raise UserError(str(out), f"a search of another study ({shown})", "the same study", remedy)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let no other process of the search begin, or write what was best, meanwhile."""
    try:
        with FolderLock(out, LOCK) as lock:
            wait_for(lock)
            yield
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(out), found, "a folder that can be written", "Give another --out.") from None


def _run_here(search: Search, device: str, watch: Callable[[], None]) -> None:
    """Let processes of this machine take trials; if some die, the others go on, and take what those had begun."""
    context = worker_context(search.study.device)
    count = _processes(search.study, device)
    search = replace(search, cores=count_cores() // count)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=process, args=(search, dict(os.environ), sender), daemon=True)  # type: ignore[attr-defined]
        for _, sender in pipes
    ]
    try:
        with no_main():
            for each in processes:
                each.start()
        for _, sender in pipes:
            sender.close()
        left = {number: receiver for number, (receiver, _) in enumerate(pipes)}
        ended = 0
        while left:
            storage.lost(watch)
            for number, receiver in list(left.items()):
                if receiver.poll(0.5 / len(left)):
                    ended += _heard(receiver)
                    del left[number]
        if not ended:
            codes = ", ".join(str(each.exitcode) for each in processes)
            raise RuntimeError(f"every process of the search died (exit codes {codes}); is there enough memory?")
    finally:
        started = [each for each in processes if each.pid is not None]
        for each in started:
            each.terminate()
        for each in started:
            each.join(PATIENCE)
            if each.is_alive():
                each.kill()
                each.join()


def _processes(study: Study, device: str) -> int:
    """Count the processes that a study asks for; one alone on a GPU."""
    alone = study.workers == "auto" and not device.startswith("cpu")
    return 1 if alone else count_workers(study)


def _heard(receiver: Connection) -> bool:
    """Say whether a process has come to its end, and raise what it raised."""
    try:
        error = receiver.recv()
    except EOFError:  # killed
        return False
    if error is not None:
        raise error if isinstance(error, UserError) else RuntimeError(error)
    return True
