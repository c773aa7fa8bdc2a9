"""Wall time and memory of ``skd demo``, all its processes together.

    python -m benchmarks.demo_cost [--repeats N] [--json FILE]

Time is that of runs which nobody watches. One more is watched for its memory, which slows it: four times a second /proc
(Linux) gives the sum of resident memory over the processes, in which a page that they share counts once for each, and
the sum of proportional set sizes, in which it counts once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import describe_machine


def family(root: int) -> list[Path]:
    """List /proc folders of a process and all that it started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return [Path(f"/proc/{process}") for process in found]


def memory(root: int) -> dict[str, float]:
    """Sum resident and proportional memory of a family of processes, in GB."""
    totals = {"Rss": 0, "Pss": 0}
    for folder in family(root):
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(":")
            if key in totals:
                totals[key] += int(value.split()[0]) * 1024
    return {key: total / 1e9 for key, total in totals.items()}


def run(watch: Callable[[int], None] | None = None) -> float:
    """Run the demo, which ``watch`` may look at again and again, and give its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [sys.executable, "-m", "subclass_kd.cli", "demo"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while watch is not None and process.poll() is None:
            watch(process.pid)
            time.sleep(0.25)
        if process.wait():
            raise RuntimeError(f"skd demo ended with {process.returncode}")
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = [run() for _ in range(options.repeats)]
    peaks = {"Rss": 0.0, "Pss": 0.0}

    def watch(process: int) -> None:
        now = memory(process)
        peaks.update({key: max(peak, now[key]) for key, peak in peaks.items()})

    run(watch)
    machine = describe_machine()
    print(f"skd demo; {machine}")
    print(
        f"seconds: median of {len(seconds)} {statistics.median(seconds):.0f}, {min(seconds):.0f} to {max(seconds):.0f}"
    )
    print(f"memory, at most: {peaks['Pss']:.2f} GB proportional, {peaks['Rss']:.2f} GB resident")
    if options.json:
        content = {"machine": machine, "seconds": seconds, "proportional_gb": peaks["Pss"], "resident_gb": peaks["Rss"]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
