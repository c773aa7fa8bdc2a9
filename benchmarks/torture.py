"""Runs that are killed at random moments, and folders whose files are spoiled: is anything lost, or wrong in silence?

    python -m benchmarks.torture [--kills N] [--faults N] [--workers N...] [--json docs/torture.json]

A small study (two seeds, three arms) is first run without a disturbance. Then `skd run` is begun in a new folder, with
one worker or two, and stopped after a random time by SIGKILL, SIGTERM or SIGINT, again and again until it ends, in as
many folders as it takes for all stops; with one worker, checkpoints are written ten times a second instead of twice a
minute, so that there is one to go on from. What it ends with must be the results.json of the undisturbed run, but for
keys that end in "seconds"; a run that is asked to stop must exit 143 or 130 within a minute. Then --faults times each:

- a bit of a random file is flipped, or a file cut short: the next run must name it and end with the same results, or
  refuse with one message, and never give other numbers;
- a file of a finished run is gone, mostly one with tensors, and files may not grow to its size, as on a full disk; or
  the folder of a run that is half done, or a part of it, may not be written: the run must stop with one message, and
  end well when that is over.

Exit 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from subclass_kd import checkpoint, cli, study
from subclass_kd.data.rows import Samples
from subclass_kd.run_folder import SUMS

STUDY: dict[str, Any] = {
    "data": {"train_images": 300},
    "teacher": {"options": {"width": 4}, "epochs": 3},
    "student": {"options": {"width": 4}, "epochs": 12},
    "distillation": {"views": 2},
    "arms": ["scratch", "kd", "skd"],
    "seeds": 2,
    "device": "cpu",
}
WORKERS = [1, 2]
REFUSED, FAULT = 2, 1  # exit codes
# Copies of this process, which has loaded torch and computed nothing: a start takes no seconds.
FORK = multiprocessing.get_context("fork")


def once(out: Path, told: Path, workers: int, most_bytes: int | None) -> None:
    """Run the study in this process as the command line does, with what it says in a file."""
    if most_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the write instead
        limit_files(most_bytes)
        write_listing = study._write_listing

        def unlimited(path: Path, samples: Samples) -> None:
            # The first file of size, and the largest: under one limit with it, no run would come as far as a tensor.
            limit_files(resource.RLIM_INFINITY)
            write_listing(path, samples)
            limit_files(most_bytes)

        study._write_listing = unlimited
    # No capabilities (Linux): what may not be written may not be written by root either. Version 3, this process.
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, nothing)
    checkpoint.Checkpoint.__init__.__defaults__ = (0.1,)  # seconds between two of them
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code: Any = FAULT
    try:
        cli.main(["run", str(out.parent / "study.yaml"), "--out", str(out), "--workers", str(workers)])
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else FAULT)


def limit_files(most_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def attempt(
    out: Path,
    told: Path,
    workers: int = 1,
    seconds: float | None = None,
    stop: signal.Signals = signal.SIGKILL,
    most_bytes: int | None = None,
) -> int | None:
    """Run the study in a process of its own; give its exit code, negative after a SIGKILL.

    Raises:
        TimeoutError: it was stopped after so many seconds, and still there a minute later.
    """
    process = FORK.Process(target=once, args=(out, told, workers, most_bytes))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid or 0, stop)
        process.join(60)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"a run of {workers} workers went on a minute after {stop.name}")
    return process.exitcode


def without_times(value: Any) -> Any:
    """Leave out every key that ends in "seconds"."""
    if isinstance(value, dict):
        return {name: without_times(own) for name, own in value.items() if not name.endswith("seconds")}
    return [without_times(own) for own in value] if isinstance(value, list) else value


def results(out: Path) -> Any:
    """Read results.json without its times; None if it is not there."""
    path = out / "results.json"
    return without_times(json.loads(path.read_text())) if path.exists() else None


def kill(folder: Path, whole: Any, kills: int, seconds: float, draw: random.Random) -> Counter[str]:
    """Stop runs until there were so many stops; count what came of them."""
    count: Counter[str] = Counter()
    stopped: dict[int, signal.Signals] = {-9: signal.SIGKILL, 143: signal.SIGTERM, 130: signal.SIGINT}
    while sum(count[sign.name] for sign in stopped.values()) < kills:
        out, code = folder / f"stopped-{count['runs']}", None
        while code is None or code in stopped:
            workers, stop = draw.choice(WORKERS), draw.choice((*stopped.values(),))
            enough = sum(count[sign.name] for sign in stopped.values()) >= kills
            code = attempt(out, folder / "told", workers, None if enough else draw.uniform(0, seconds), stop)
            if code in stopped:
                count[stopped[code].name] += 1
        count["runs"] += 1
        count["ended" if code == 0 else f"DID NOT END ({code}: {(folder / 'told').read_text()})"] += 1
        count["same results" if results(out) == whole else "OTHER RESULTS"] += 1
        count["with files left over"] += any(path.is_file() for path in out.rglob(".*"))
        shutil.rmtree(out, ignore_errors=True)
    return count


def spoil(folder: Path, whole: Any, change: Callable[[bytes], bytes], draw: random.Random) -> str:
    """Change a random file of a finished run, run it again, and say what came of it."""
    out, told = folder / "spoiled", folder / "told"
    shutil.copytree(folder / "whole", out)
    # The report is made anew at the end of each run.
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "report.html")
    path = draw.choice(files)
    before = path.read_bytes()
    path.write_bytes(change(before))
    code = attempt(out, told, draw.choice(WORKERS))
    said = told.read_text()
    name = path.relative_to(out).as_posix()
    same = results(out) == whole
    shutil.rmtree(out)
    if code == REFUSED:
        return "refused with a message"
    if code != 0:
        return f"A FAULT OF OURS ({name}: {said})"
    if not same:
        return f"OTHER RESULTS ({name})"
    # Where the list of checksums itself is changed, the file that it then speaks wrongly of is named.
    named = f"{name} is damaged" in said or (" is damaged" in said and name == SUMS)
    return "named and made again" if named else f"NOT NAMED ({name})"


def fill(folder: Path, whole: Any, draw: random.Random) -> str:
    """Run where a file of a run is gone and too large to be written, then where it fits, and say what came of it."""
    out, told, whole_run = folder / "full", folder / "told", folder / "whole"
    tensors = sorted(whole_run.rglob("*.safetensors"))
    path = draw.choice([*draw.choices(tensors, k=4), whole_run / "study.json"])
    size = path.stat().st_size
    shutil.copytree(whole_run, out)
    (out / "results.json").unlink()
    if path in tensors:  # the folder is the study's as long as the other one is there
        (out / path.relative_to(whole_run)).unlink()
    code = attempt(out, told, draw.choice(WORKERS), most_bytes=draw.randrange(size // 2, size))
    where = "tensors" if ".safetensors" in told.read_text() else "another file"
    return f"{then_end(out, told, whole, code)} ({where})"


def close(folder: Path, whole: Any, draw: random.Random) -> str:
    """Run where a run is half done and some folder may not be written, then where it may, and say what came of it."""
    out, told = folder / "closed", folder / "told"
    shutil.copytree(folder / "whole", out)
    made = [out / "results.json", *sorted(out.glob("students/*")), *sorted(out.glob("predictions/*/*"))]
    needed = draw.choice(made)
    for path in made:
        if path == needed or draw.random() < 0.5:
            path.unlink()
    closed = draw.choice([[needed.parent], [out, *out.rglob("*/")]])
    for path in closed:
        path.chmod(0o555)
    code = attempt(out, told, draw.choice(WORKERS))
    for path in closed:
        path.chmod(0o755)
    return then_end(out, told, whole, code)


def then_end(out: Path, told: Path, whole: Any, code: int | None) -> str:
    """Run again when the fault is over, and say what came of both."""
    said = told.read_text()
    again = attempt(out, told)
    same = results(out) == whole
    shutil.rmtree(out, ignore_errors=True)
    if code not in (0, REFUSED):
        return f"A FAULT OF OURS ({said})"
    if again != 0 or not same:
        return "OTHER RESULTS"
    return "refused with a message, then went on" if code == REFUSED else "was not reached"


def flip(content: bytes, draw: random.Random) -> bytes:
    """Flip one bit."""
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="drawn from these for each run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import subclass_kd.report
    import subclass_kd.results
    import subclass_kd.work  # noqa: F401 - with torch, before the first copy

    WORKERS[:] = options.workers
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "study.yaml").write_text(json.dumps(STUDY))
        os.environ["COLUMNS"] = "1000"  # one line for each thing that is said
        started = time.perf_counter()
        if attempt(folder / "whole", folder / "told") != 0:
            raise RuntimeError((folder / "told").read_text())
        seconds = time.perf_counter() - started
        whole = results(folder / "whole")
        found = {"stopped": dict(kill(folder, whole, options.kills, seconds, draw))}
        for name, change in (
            ("bit flipped", flip),
            ("cut short", lambda content, d: content[: d.randrange(len(content))]),
        ):
            each = (
                spoil(folder, whole, lambda content, change=change: change(content, draw), draw)
                for _ in range(options.faults)
            )
            found[name] = dict(Counter(each))
        found["disk full"] = dict(Counter(fill(folder, whole, draw) for _ in range(options.faults)))
        found["read-only"] = dict(Counter(close(folder, whole, draw) for _ in range(options.faults)))
    machine = describe_machine()
    print(f"{machine}; undisturbed {seconds:.1f} s")
    for name, counts in found.items():
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "seconds": seconds, **found}, indent=1) + "\n")
    # What must not be is in capitals.
    bad = [what for counts in found.values() for what in counts if what[:3].isupper() and not what.startswith("SIG")]
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
