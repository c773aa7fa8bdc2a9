"""Wall time and memory of ``skd demo``, all its processes together.

    python -m benchmarks.demo_cost [--repeats N] [--json FILE]

Memory is read from /proc (Linux) four times a second: the sum of resident memory over the processes, in which a page
that they share counts once for each, and the sum of proportional set sizes, in which it counts once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
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


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [sys.executable, "-m", "subclass_kd.cli", "demo"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks = {"Rss": 0.0, "Pss": 0.0}
        while process.poll() is None:
            now = memory(process.pid)
            peaks = {key: max(peak, now[key]) for key, peak in peaks.items()}
            time.sleep(0.25)
        if process.returncode:
            raise RuntimeError(f"skd demo ended with {process.returncode}")
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "resident_gb": peaks["Rss"], "proportional_gb": peaks["Pss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = [measure() for _ in range(options.repeats)]
    print(f"skd demo, {options.repeats} runs; {describe_machine()}")
    for key in runs[0]:
        values = [run[key] for run in runs]
        print(f"{key:16} median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}")
    if options.json:
        options.json.write_text(json.dumps({"machine": describe_machine(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
