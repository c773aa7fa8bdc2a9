"""Studies that have one fault each, beside one that has none: what the diagnosis measures, and what it names.

    python -m benchmarks.diagnosis [--seeds N] [--runs FOLDER] [--json FILE]

One recipe, and changes to it that provoke a condition of docs/diagnosis.md each. Of the package's own training images
of Fashion-MNIST 200 of each class teach and 100 stand in for a test split; test images choose nothing. The digits are
scikit-learn's, odd against even, enlarged to 32 pixels; the votes are those of examples/lidc_votes.yaml. With --runs, a
later call goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.demo_recipe import write_folder, write_idx
from benchmarks.machine import describe_machine
from subclass_kd.config import Study
from subclass_kd.data.fashion_mnist import EMBEDDED, NAMES
from subclass_kd.data.samples import load_samples
from subclass_kd.diagnosis import diagnose
from subclass_kd.facts import facts
from subclass_kd.files import write_json
from subclass_kd.results import Part
from subclass_kd.study import run_study
from subclass_kd.study_file import load_study, make_study

# All that decides what is learned, so that other defaults change no figure; near the demo's (docs/demo.md).
RECIPE: dict[str, Any] = {
    "arms": "[scratch, subclass-labels, kd, skd]",
    "teacher.model": "small:resnet",
    "teacher.options.width": 16,
    "teacher.epochs": 9,
    "teacher.learning_rate": 0.01,
    "student.model": "small:convnet",
    "student.epochs": 20,
    "student.learning_rate": 0.01,
    "distillation.temperature": 1.0,
    "distillation.alpha": 0.9,
    "distillation.hard_target": "subclass",
    "distillation.views": 4,
    "device": "cpu",
}
VOTES = Path(__file__).parent.parent / "examples/lidc_votes.yaml"
# What is changed: the condition that it should provoke, and the keys
FAULTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "none": (None, {}),
    "teacher of 1 epoch": ("weak teacher", {"teacher.epochs": 1}),
    "digits": ("one-hot targets", {"augment.flip": "false"}),
    "one view": ("memorised targets", {"distillation.views": 1}),
    "annotators' votes": ("few label bits", {"teacher.epochs": 12}),
    "temperature 4": ("flat targets", {"distillation.temperature": 4}),
    "student of width 2": ("narrow embedding", {"student.options.width": 2}),
    "student of 3 epochs": ("underfitted student", {"student.epochs": 3}),
}
COLUMNS = (
    "fault", "skd - kd, points", "teacher's lead, share of errors", "sure, %", "claimed - held, share of ceiling",
    "bits held", "entropy, share of a guess", "embedding", "unlearned, %", "named",
)  # fmt: skip


def study_of(fault: str, runs: Path, seeds: int, settings: Sequence[str] = ()) -> Study:
    """Give the study with a fault, and with further ``--set`` options; ``runs`` holds the images."""
    changes = [f"{key}={value}" for key, value in {**RECIPE, **FAULTS[fault][1], "seeds": seeds}.items()]
    changes += settings
    if fault == "annotators' votes":
        return load_study(VOTES, changes)
    if fault == "digits":
        hierarchy = {"even": list(NAMES[::2]), "odd": list(NAMES[1::2])}
        return make_study({"data": {"root": str(runs / "digits")}, "hierarchy": hierarchy}, changes)
    return make_study({"data": {"root": str(runs / "images")}}, changes)


def write_images(runs: Path) -> None:
    """Write the studies' IDX files: of the package's training images, and of digits under the names of garments."""
    own = runs / "own"
    for each in (own, runs / "images", runs / "digits"):
        each.mkdir(parents=True, exist_ok=True)
    with np.load(EMBEDDED) as stored:
        write_idx(own / "train-images-idx3-ubyte", stored["train_images"])
        write_idx(own / "train-labels-idx1-ubyte", stored["train_labels"])
    write_folder(own, runs / "images", train=200, held_out=100)
    digits = load_digits()
    pixels = np.kron(digits.images * 15, np.ones((4, 4))).astype(np.uint8)  # (1797, 32, 32), from 0 to 16
    for prefix, rows in (("train", slice(1300)), ("t10k", slice(1300, None))):
        write_idx(runs / f"digits/{prefix}-images-idx3-ubyte", pixels[rows])
        write_idx(runs / f"digits/{prefix}-labels-idx1-ubyte", digits.target[rows].astype(np.uint8))


def measure(fault: str, runs: Path, seeds: int) -> dict[str, Any]:
    """Run a study with a fault, and give what the diagnosis measures and names.

    Teachers and targets of the study without a fault are offered to the run, which takes those that its recipe makes.
    """
    study, out = study_of(fault, runs, seeds), runs / f"fault-{list(FAULTS).index(fault)}"
    if not out.exists():
        write_json(out / "study.json", study.model_dump(mode="json"))
        for kind in ("teachers", "targets"):
            if (runs / "fault-0" / kind).exists():
                shutil.copytree(runs / "fault-0" / kind, out / kind)
    results = run_study(study, out)
    known = facts(study, [Part(load_samples(study), out)])
    arms, bits, subclasses = results["arms"], results["label_bits"], len(results["data"]["subclasses"])
    lead = results["teachers"]["subclass"]["f1"]["mean"] - arms["scratch"]["f1"]["mean"]
    [pair] = [row for row in results["comparisons"] if (row["arm"], row["reference"]) == ("skd", "kd")]
    return {
        "fault": fault,
        "provokes": FAULTS[fault][0],
        "images": {split: sum(row[split] for row in results["data"]["subclasses"]) for split in ("train", "test")},
        "subclasses": subclasses,
        "comparison": pair,
        "lead_over_errors": lead / (1 - arms["scratch"]["f1"]["mean"]),
        "memorised_over_ceiling": (bits["train"]["soft"] - bits["test"]["mutual_information"])
        / bits["train"]["ceiling"],
        "bits": bits["test"]["mutual_information"],
        "ceiling": bits["test"]["ceiling"],
        "facts": known,
        "findings": diagnose(results, known),
    }


def table_row(row: dict[str, Any]) -> str:
    """Give one line of the Markdown table in docs/diagnosis.md."""
    known, targets = row["facts"], row["facts"]["targets"]
    low, high = row["comparison"]["ci95"]
    cells = [
        row["fault"],
        f"{100 * row['comparison']['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
        f"{row['lead_over_errors']:.2f}",
        f"{100 * targets['sure']:.0f}",
        f"{row['memorised_over_ceiling']:.2f}",
        f"{row['bits']:.2f} of {row['ceiling']:.2f}",
        f"{targets['entropy'] / math.log2(row['subclasses']):.2f}",
        f"{known['embedding']} for {row['subclasses']}",
        f"{100 * known['unlearned']:.0f}",
        ", ".join(finding["kind"] for finding in row["findings"]) or "nothing",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or Path(temporary)
        write_images(runs)
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
        rows = []
        for fault in FAULTS:
            rows.append(measure(fault, runs, arguments.seeds))
            print(table_row(rows[-1]), flush=True)
    if arguments.json:
        measured = {"machine": describe_machine(), "seeds": arguments.seeds, "recipe": RECIPE, "rows": rows}
        write_json(arguments.json, measured)


if __name__ == "__main__":
    main()
