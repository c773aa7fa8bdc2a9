"""How a study's wall time falls with its workers: one process of one thread, two of one, one of two threads.

    python -m benchmarks.study_scaling [--seeds N] [--repeats N] [--json FILE]

Each is the demo's study, from the start of the command to its end, into a folder of its own, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine

WAYS = {"1 worker, 1 thread": (1, 1), "2 workers, 1 thread each": (2, 1), "1 worker, 2 threads": (1, 2)}
# A run computes on one thread a process. To show why, this lets it have more.
WITH_THREADS = """
import sys, torch
threads, set_threads = int(sys.argv[1]), torch.set_num_threads
torch.set_num_threads = lambda number: set_threads(threads)
from subclass_kd.cli import main
main(sys.argv[2:])
"""


def measure(workers: int, threads: int, seeds: int) -> tuple[float, str]:
    """Give the seconds of a study and what its results are, timings aside."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        arguments = ["demo", "--out", str(out), "--workers", str(workers), "--seeds", str(seeds)]
        plain = [sys.executable, "-m", "subclass_kd.cli", *arguments]
        command = plain if threads == 1 else [sys.executable, "-c", WITH_THREADS, str(threads), *arguments]
        started = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        seconds = time.perf_counter() - started
        results = json.loads((out / "results.json").read_text())
        answers = {arm: result["f1"]["per_seed"] for arm, result in results["arms"].items()}
        return seconds, json.dumps(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, str] = {}
    for _ in range(options.repeats):
        for way, (workers, threads) in WAYS.items():
            taken, answers[way] = measure(workers, threads, options.seeds)
            seconds[way].append(taken)
    print(f"skd demo, {options.seeds} seeds, {options.repeats} runs of each way; {describe_machine()}")
    base = next(iter(WAYS))
    ratios = {way: [first / own for first, own in zip(seconds[base], seconds[way], strict=True)] for way in WAYS}
    for way, values in seconds.items():
        median, ratio = statistics.median(values), statistics.median(ratios[way])
        print(
            f"{way:26} {median:6.1f} s ({min(values):.1f} to {max(values):.1f}), {ratio:.2f} times as fast as the first"
        )
    same = answers["2 workers, 1 thread each"] == answers[base]
    print(f"F1 of every arm and seed, 2 workers against 1: {'equal to the last digit' if same else 'DIFFERENT'}")
    if options.json:
        content = {
            "machine": describe_machine(),
            "seeds": options.seeds,
            "seconds": seconds,
            "speed": ratios,
            "same": same,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
