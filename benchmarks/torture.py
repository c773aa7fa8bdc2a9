"""Runs that are killed at random moments, and folders whose files are spoiled: is anything lost, or wrong in silence?

    python -m benchmarks.torture [--kills N] [--faults N] [--json docs/torture.json]

A small study (two seeds, three arms) is first run without a disturbance. Then it is begun in a new folder and killed
(SIGKILL) after a random time, again and again until it ends, in as many folders as it takes for all kills; checkpoints
are written ten times a second instead of twice a minute, so that there is one to go on from. Its results.json must be
that of the undisturbed run, but for keys that end in "seconds". Then --faults times each:

- a bit of a random file is flipped, or a file cut short: the next run must name it and end with the same results, or
  refuse with one message, and never give other numbers;
- files may not grow beyond a random size, as on a full disk: the run must stop with one message, and end well when
  there is room again.

Exit 1 if anything was lost.
"""

from __future__ import annotations

import argparse
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
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from subclass_kd import checkpoint
from subclass_kd.errors import UserError
from subclass_kd.run_folder import SUMS
from subclass_kd.study import Silent, run_study
from subclass_kd.study_file import make_study

STUDY: dict[str, Any] = {
    "data": {"train_images": 300},
    "teacher": {"options": {"width": 4}, "epochs": 3},
    "student": {"options": {"width": 4}, "epochs": 12},
    "distillation": {"views": 2},
    "arms": ["scratch", "kd", "skd"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
}
REFUSED, FAULT = 2, 1  # exit codes
# Copies of this process, which has loaded torch and computed nothing: a start takes no seconds.
FORK = multiprocessing.get_context("fork")


class Telling(Silent):
    """Notes what a run says is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def damaged(self, paths: Sequence[str]) -> None:
        """Note it where the parent process can read it."""
        self.path.write_text("\n".join(paths))


def once(out: Path, told: Path, most_bytes: int | None = None) -> None:
    """Run the study in this process, and exit as the command line does."""
    if most_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the write instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    checkpoint.Checkpoint.__init__.__defaults__ = (0.1,)  # seconds between two of them
    try:
        run_study(make_study(STUDY), out, Telling(told))
    except UserError as error:
        told.write_text(str(error))
        os._exit(REFUSED)
    except BaseException as error:
        told.write_text(repr(error))
        os._exit(FAULT)
    os._exit(0)


def attempt(out: Path, told: Path, seconds: float | None = None, most_bytes: int | None = None) -> int | None:
    """Run the study in a process of its own; give its exit code, or None if it was killed after so many seconds."""
    told.unlink(missing_ok=True)
    process = FORK.Process(target=once, args=(out, told, most_bytes))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return None
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
    """Kill runs until there were so many kills; count what came of them."""
    count: Counter[str] = Counter()
    while count["kills"] < kills:
        out = folder / f"killed-{count['runs']}"
        while (code := attempt(out, folder / "told", draw.uniform(0, 0.5 * seconds))) is None:
            count["kills"] += 1
            if count["kills"] >= kills:
                code = attempt(out, folder / "told")
                break
        count["runs"] += 1
        count["ended" if code == 0 else "did not end"] += 1
        count["same results" if results(out) == whole else "OTHER RESULTS"] += 1
        left = [path for path in out.rglob(".*") if path.is_file()]
        count["with files left over"] += bool(left)
        shutil.rmtree(out, ignore_errors=True)
    return count


def spoil(folder: Path, whole: Any, change: Callable[[bytes], bytes], draw: random.Random) -> str:
    """Change a random file of a finished run, run it again, and say what came of it."""
    out, told = folder / "spoiled", folder / "told"
    shutil.copytree(folder / "whole", out)
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "report.html")
    path = draw.choice(files)
    before = path.read_bytes()
    path.write_bytes(change(before))
    code = attempt(out, told)
    said = told.read_text() if told.exists() else ""
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
    return "named and made again" if name in said or (said and name == SUMS) else f"NOT NAMED ({name})"


def fill(folder: Path, whole: Any, draw: random.Random) -> str:
    """Run with a limit on the size of files, then without, and say what came of it."""
    out, told = folder / "full", folder / "told"
    code = attempt(out, told, most_bytes=draw.randrange(200, 60_000))
    said = told.read_text() if told.exists() else ""
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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import subclass_kd.results
    import subclass_kd.work  # noqa: F401 - with torch, before the first copy

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.perf_counter()
        if attempt(folder / "whole", folder / "told") != 0:
            raise RuntimeError((folder / "told").read_text())
        seconds = time.perf_counter() - started
        whole = results(folder / "whole")
        found = {"killed": dict(kill(folder, whole, options.kills, seconds, draw))}
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
    machine = describe_machine()
    print(f"{machine}; undisturbed {seconds:.1f} s")
    for name, counts in found.items():
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "seconds": seconds, **found}, indent=1) + "\n")
    bad = [what for counts in found.values() for what, count in counts.items() if what != what.lower() and count]
    return int(bool(bad) or found["killed"].get("did not end", 0) > 0)


if __name__ == "__main__":
    sys.exit(main())
