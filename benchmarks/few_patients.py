"""How often a verdict errs when test images come from few patients: two arms that are equally good.

    python -m benchmarks.few_patients [--repeats N] [--json FILE]

Each patient has 30 test images, half of them positive. An arm is right with probability 0.8 on average, more or less
for each patient (standard deviation 0.1) and independently for each arm: what one arm gains on a patient is the
patient's chance. Five seeds share most of their errors. A false verdict is one that is not "inconclusive", at the level
of 5 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine
from subclass_kd.comparison import compare
from subclass_kd.files import write_json

PATIENTS = (2, 3, 5, 8, 15, 30, 100)
IMAGES, SEEDS = 30, 5


def false_verdict(patients: int, random: np.random.Generator) -> bool:
    """Simulate one study of two equal arms and say whether it claims a difference."""
    groups = np.repeat(np.arange(patients), IMAGES)
    labels = np.tile(np.arange(IMAGES) % 2, patients)
    predictions = {}
    for arm in ("one", "other"):
        right = np.clip(0.8 + 0.1 * random.standard_normal(patients), 0.3, 1)[groups]
        shared = random.random(len(groups))
        draws = [0.9 * shared + 0.1 * random.random(len(groups)) for _ in range(SEEDS)]
        predictions[arm] = np.stack([np.where(draw < right, labels, 1 - labels) for draw in draws])
    [row] = compare(predictions, labels, 1, [("one", "other")], groups)
    return bool(row["verdict"] != "inconclusive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    print("| patients | false verdicts, % | standard error |\n|---|---|---|")
    shares = {}
    for patients in PATIENTS:
        share = float(np.mean([false_verdict(patients, random) for _ in range(arguments.repeats)]))
        shares[patients] = share
        print(f"| {patients} | {100 * share:.1f} | {100 * (share * (1 - share) / arguments.repeats) ** 0.5:.1f} |")
    if arguments.json:
        write_json(arguments.json, {"machine": describe_machine(), "repeats": arguments.repeats, "false": shares})


if __name__ == "__main__":
    main()
