"""What a curriculum by agreement does on the LIDC votes: each arm with it, less the same arm without.

    python -m benchmarks.curriculum [--seeds N] [--json FILE]

Four studies, each that of examples/lidc_votes.yaml, differ in nothing but who follows the curriculum: the same seeds,
patients and number of steps.
Intervals and verdicts are those of the tool (docs/statistics.md), over seeds and test patients, Holm's correction over
all rows of the table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from subclass_kd import store
from subclass_kd.comparison import compare
from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.files import write_json
from subclass_kd.results import class_log_probs
from subclass_kd.study import run_study
from subclass_kd.study_file import load_study

ARMS = ["scratch", "soft-votes", "kd", "skd"]
WHO = {"nobody": [], "student": ["student"], "teacher": ["teacher"], "both": ["teacher", "student"]}
STUDY = Path(__file__).parent.parent / "examples/lidc_votes.yaml"


def decisions(study: Study, samples: Samples, out: Path, arm: str) -> NDArray[np.int64]:
    """Give the class (S, N) that each seed's student says of each test image."""
    files = [out / f"predictions/students/{arm}-seed{seed}.safetensors" for seed in study.seeds]
    return np.stack([class_log_probs(store.load(file)["test"], samples).argmax(-1) for file in files])


def measure(seeds: int) -> dict[str, Any]:
    decided: dict[str, NDArray[np.int64]] = {}
    f1: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for who, roles in WHO.items():
            changes = [f"arms=[{', '.join(ARMS)}]", f"seeds={seeds}"]
            changes += [f"curriculum.{role}=true" for role in roles]
            study, out = load_study(STUDY, changes), Path(folder) / who
            results = run_study(study, out)
            samples = load_samples(study)
            f1[who] = {arm: results["arms"][arm]["f1"] for arm in ARMS}
            decided |= {f"{arm}, {who}": decisions(study, samples, out, arm) for arm in ARMS}
    pairs = [
        (f"{arm}, {who}", f"{arm}, nobody")
        for arm in ARMS
        for who in ("student", "teacher", "both")
        if who == "student" or arm in ("kd", "skd")  # an arm without a teacher has one curriculum
    ]
    labels, groups = samples.class_labels[samples.test], samples.groups
    assert groups is not None
    rows = compare(decided, labels, samples.positive, pairs, groups[samples.test])
    patients = len(set(groups[samples.test].tolist()))
    return {"seeds": seeds, "test_images": len(labels), "test_patients": patients, "f1": f1, "comparisons": rows}


def table_row(row: dict[str, Any], f1: dict[str, Any]) -> str:
    """Give one line of the Markdown table in docs/data.md."""
    arm, who = row["arm"].split(", ")
    low, high = row["ci95"]
    without, with_it = (f"{100 * f1[name][arm]['mean']:.1f}" for name in ("nobody", who))
    points = f"{100 * row['difference']:+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"
    return f"| `{arm}` | {who} | {without} | {with_it} | {points} | {row['verdict']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measured = {"machine": describe_machine(), **measure(arguments.seeds)}
    print("| arm | who follows | F1 without | F1 with | difference | 95 % interval | verdict |")
    print("|---|---|---|---|---|---|---|")
    for row in measured["comparisons"]:
        print(table_row(row, measured["f1"]))
    if arguments.json:
        write_json(arguments.json, measured)


if __name__ == "__main__":
    main()
