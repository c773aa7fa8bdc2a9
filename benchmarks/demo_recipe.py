"""Which grouping and which recipe the demo uses, chosen on training images only.

    python -m benchmarks.demo_recipe --root FOLDER [--seeds N] [--json FILE] [--only NAME]

FOLDER holds the four official IDX files of Fashion-MNIST. Only the training file is read: its first 300 images of each
class are the demo's training images, and its last 1,000 of each class stand in for a test split. Each candidate is a
whole study of the arms below; every arm of a candidate has the same schedule.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from subclass_kd.cli import DEMO
from subclass_kd.data.fashion_mnist import NAMES, read_idx
from subclass_kd.files import fingerprint, write_json
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

ARMS = ["scratch", "subclass-labels", "kd", "skd"]
GROUPINGS = {  # the positive class of each; the other holds the other five or six
    "lower": ["Trouser", "Dress", "Sandal", "Sneaker", "Ankle boot"],
    "slipped on": ["T-shirt/top", "Pullover", "Dress", "Sandal"],
    "warm weather": ["T-shirt/top", "Dress", "Sandal", "Shirt", "Sneaker"],
}
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "temperature 2": {"distillation.temperature": 2},
    "temperature 4": {"distillation.temperature": 4},
    "alpha 0.5": {"distillation.alpha": 0.5},
    "class hard target": {"distillation.hard_target": "class"},
    "student rate 0.003": {"student.learning_rate": 0.003},
    "student rate 0.03": {"student.learning_rate": 0.03},
    "8 views": {"distillation.views": 8},
    "9 and 20 epochs": {"teacher.epochs": 9, "student.epochs": 20},
    "6 and 16 epochs": {"teacher.epochs": 6, "student.epochs": 16},
}
CANDIDATES = {f"lower {change}".strip(): ("lower", changes) for change, changes in CHANGES.items()}
CANDIDATES |= {grouping: (grouping, {}) for grouping in GROUPINGS}


def write_folder(root: Path, folder: Path, train: int = 300, held_out: int = 1000) -> None:
    """Write the four IDX files of a study whose "test" images come from the official training file."""
    path = next(path for path in (root / f"train-images-idx3-ubyte{end}" for end in ("", ".gz")) if path.exists())
    images = read_idx(path, 3)
    labels = read_idx(path.with_name(path.name.replace("images-idx3", "labels-idx1")), 1)
    of_class = [np.flatnonzero(labels == number) for number in range(10)]
    parts = {"train": [rows[:train] for rows in of_class], "t10k": [rows[-held_out:] for rows in of_class]}
    for prefix, chosen in parts.items():
        rows = np.sort(np.concatenate(chosen))
        for name, content in (("images-idx3", images[rows]), ("labels-idx1", labels[rows])):
            write_idx(folder / f"{prefix}-{name}-ubyte", content)


def write_idx(path: Path, content: NDArray[np.uint8]) -> None:
    """Write an IDX file of bytes."""
    header = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, ">u4").tobytes()
    path.write_bytes(header + content.tobytes())


def measure(folder: Path, grouping: str, changes: dict[str, Any], seeds: int, runs: Path) -> dict[str, Any]:
    """Run one candidate and give F1 of each network, and the paired differences.

    Teachers and targets of earlier candidates are offered to the run, which takes those that its own recipe makes.
    """
    positive = GROUPINGS[grouping]
    hierarchy = {"other": [name for name in NAMES if name not in positive], grouping: positive}
    content = {**DEMO, "data": {"root": str(folder)}, "hierarchy": hierarchy, "arms": ARMS, "seeds": seeds}
    study = make_study(content, [f"{key}={value}" for key, value in changes.items()])
    out = runs / fingerprint(study.model_dump(mode="json"))
    write_json(out / "study.json", study.model_dump(mode="json"))
    for kind in ("teachers", "targets"):
        if (runs / grouping / kind).exists():
            shutil.copytree(runs / grouping / kind, out / kind)
    results = run_study(study, out)
    if not (runs / grouping).exists():
        out.rename(runs / grouping)
    networks = {**results["arms"], **{f"teacher: {name}": row for name, row in results["teachers"].items()}}
    return {
        "f1": {name: row["f1"] for name, row in networks.items()},
        "comparisons": results["comparisons"],
        "label_bits": {split: row["mutual_information"] for split, row in results["label_bits"].items()},
    }


NETWORKS = [*ARMS, "teacher: class", "teacher: subclass"]
PAIRS = [("kd", "scratch"), ("subclass-labels", "scratch"), ("skd", "scratch"), ("skd", "kd")]
COLUMNS = ["candidate", *NETWORKS, *(f"{arm} - {reference}" for arm, reference in PAIRS)]


def table_row(name: str, row: dict[str, Any]) -> str:
    """Give a candidate's row of the Markdown table: F1 in %, differences in points ± half of the 95 % interval."""
    compared = {(each["arm"], each["reference"]): each for each in row["comparisons"]}
    cells = [f"{100 * row['f1'][network]['mean']:.1f}" for network in NETWORKS]
    for pair in PAIRS:
        difference, high = compared[pair]["difference"], compared[pair]["ci95"][1]
        cells.append(f"{100 * difference:+.1f}±{100 * (high - difference):.1f}")
    return f"| {' | '.join([name, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=CANDIDATES, action="append")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.json and options.json.exists():  # go on where an earlier call stopped
        before = json.loads(options.json.read_text())
        if (before["seeds"], before["demo"]) == (options.seeds, DEMO):
            rows = before["candidates"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, runs = Path(scratch, "data"), Path(scratch, "runs")
        folder.mkdir()
        write_folder(options.root, folder)
        print(f"{options.seeds} seeds, 2,400 training, 600 validation, 10,000 held-out images; {describe_machine()}\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for name in options.only or CANDIDATES:
            if name not in rows:
                rows[name] = measure(folder, *CANDIDATES[name], options.seeds, runs)
            print(table_row(name, rows[name]), flush=True)
            if options.json:
                ordered = {name: rows[name] for name in CANDIDATES if name in rows}
                report = {"machine": describe_machine(), "seeds": options.seeds, "demo": DEMO, "candidates": ordered}
                options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
