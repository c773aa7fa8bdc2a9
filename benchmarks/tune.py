"""A search by two processes, one of which is killed in the middle of a trial and started again: is any trial lost?

    python -m benchmarks.tune [--trials N] [--json docs/tune.json]

Three arms, ten trials each, by two commands `skd tune` side by side, once with SQLite and once with a PostgreSQL that
is started for it (Debian's package postgresql; skipped where it is not installed). After a third of the trials one
process is killed (SIGKILL) while it has a trial, and the same command is given again. At the end each arm must have its
trials, the killed one must be among them under a new number, and no prediction must have been made.

Exit 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import describe_machine

STUDY: dict[str, Any] = {
    "data": {"train_images": 600},
    "teacher": {"options": {"width": 4}, "epochs": 3},
    "student": {"options": {"width": 4}, "epochs": 12},
    "distillation": {"views": 2},
    "arms": ["scratch", "kd", "skd"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
}


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str | None]:
    """Start a PostgreSQL of our own, and give its URL; None where it is not installed. It refuses to be root's."""
    places = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ["PATH"]]
    initdb, server = (shutil.which(name, path=os.pathsep.join(places)) for name in ("initdb", "postgres"))
    if initdb is None or server is None:
        yield None
        return
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    data = folder / "data"
    data.mkdir()
    if user:
        shutil.chown(folder, "postgres")
        shutil.chown(data, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "skd", "--no-sync"], check=True, **calls)
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
    options = [word for setting in settings for word in ("-c", setting)]
    process = subprocess.Popen([server, "-D", str(data), *options], **calls)
    try:
        yield f"postgresql://skd@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        process.wait()


def start(study: Path, out: Path, url: str, trials: int) -> subprocess.Popen[bytes]:
    """Start a search, or go on with one."""
    command = [sys.executable, "-m", "subclass_kd.cli", "tune", study, "--out", out, "--storage", url]
    log = (out.parent / "log").open("ab")
    return subprocess.Popen(
        [*command, "--set", f"tune.trials={trials}"], start_new_session=True, stdout=log, stderr=log
    )


def trials_of(url: str) -> list[Any]:
    """Read all trials of all arms; none while the database is being made."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        engine = url.replace("postgresql://", "postgresql+psycopg://")
        storage = optuna.storages.RDBStorage(engine, skip_table_creation=True)
        return [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    except Exception:
        return []


def has_one(process: subprocess.Popen[bytes], trials: list[Any]) -> bool:
    """Say whether a process of a command's group has a trial and has begun to train its student."""
    for trial in trials:
        by = trial.user_attrs.get("by", "").rpartition(" ")[2]
        if trial.state.name == "RUNNING" and by and trial.intermediate_values:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(by)) == process.pid:
                    return True
    return False


def search(url: str, folder: Path, trials: int) -> dict[str, Any]:
    """Search with two commands, kill one and give it again; say what came of it."""
    folder.mkdir(exist_ok=True)
    study, out = folder / "study.yaml", folder / "search"
    study.write_text(yaml.safe_dump(STUDY))
    started = time.perf_counter()
    both = [start(study, out, url, trials) for _ in range(2)]
    wanted = trials * len(STUDY["arms"])
    while True:
        found = trials_of(url)
        ended = sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in found)
        if ended >= wanted // 3 and has_one(both[0], found):
            os.killpg(both[0].pid, signal.SIGSTOP)  # and now it cannot end the trial while we look again
            if has_one(both[0], trials_of(url)):
                break
            os.killpg(both[0].pid, signal.SIGCONT)
        if any(process.poll() is not None for process in both):
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.05)
    os.killpg(both[0].pid, signal.SIGKILL)
    both[0].wait()
    killed_at = ended
    both[0] = start(study, out, url, trials)
    codes = [process.wait() for process in both]
    if any(codes):
        print((folder / "log").read_text(), file=sys.stderr)
    seconds = time.perf_counter() - started
    outcome = json.loads((out / "tune.json").read_text())
    rows = [trial for arm in outcome["arms"].values() for trial in arm["all"]]
    return {
        "exit_codes": codes,
        "trials": {arm: row["trials"] for arm, row in outcome["arms"].items()},
        "given_up": {arm: row["pruned"] for arm, row in outcome["arms"].items()},
        "ended_when_killed": killed_at,
        "gone_on_with": sum(bool(trial["went_on_from"]) for trial in rows),
        "by_process": sorted(Counter(trial["by"] for trial in rows).values()),
        "teachers_trained": len(list(out.glob("teachers/*.safetensors"))),
        "predictions": len(list(out.rglob("predictions"))),
        "best_validation_f1": {arm: row["best"]["validation_f1"] for arm, row in outcome["arms"].items()},
        "seconds": round(seconds, 1),
    }


def is_whole(found: dict[str, Any], trials: int) -> bool:
    """Say whether nothing was lost."""
    equal = set(found["trials"].values()) == {trials} and found["exit_codes"] == [0, 0]
    return equal and found["gone_on_with"] >= 1 and found["teachers_trained"] == 4 and not found["predictions"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10, help="of each of three arms")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "command": "python -m benchmarks.tune"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the server's user must find its own part of it
        report["sqlite"] = search(f"sqlite:///{folder / 'tune.db'}", folder / "sqlite", options.trials)
        (folder / "server").mkdir()
        with postgresql(folder / "server") as url:
            report["postgresql"] = None if url is None else search(url, folder / "postgresql", options.trials)
    print(report["machine"])
    lost = False
    for name in ("sqlite", "postgresql"):
        if report[name] is None:
            print(f"{name}: skipped, it is not installed (apt install {name})")
            continue
        lost |= not is_whole(report[name], options.trials)
        print(f"{name}: {json.dumps(report[name])}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
