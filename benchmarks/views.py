"""What the number of views costs and buys; held-out training images stand in for a test.

    python -m benchmarks.views [--root FOLDER] [--seeds N] [--runs FOLDER] [--json FILE]

FOLDER holds the official IDX files of Fashion-MNIST, of which only the training file is read: its first 300 images of
each class are trained and validated with, its last 1,000 of each stand in for a test split (benchmarks.demo_recipe).
Without it, 200 and 100 of each class of the package's own training images. Test images choose nothing.

Each number of views is a study of two arms, one process of one thread; seed by seed, all numbers of views in turn. So a
study's teachers and students see the same number of views. Intervals and verdicts are those of the tool
(docs/statistics.md), over seeds and held-out images, Holm's correction over all rows of the table.
With --runs, a later call goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_recipe import write_folder, write_idx
from benchmarks.machine import describe_machine
from subclass_kd import store
from subclass_kd.comparison import compare
from subclass_kd.data.fashion_mnist import EMBEDDED
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.evaluation import summarise
from subclass_kd.files import write_json
from subclass_kd.plan import Job
from subclass_kd.results import class_log_probs
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

RECIPE: dict[str, Any] = {  # the demo's, but for the epochs: it has no time for so many
    "device": "cpu",
    "teacher": {"options": {"width": 16}, "epochs": 9},
    "student": {"epochs": 20},
}
VIEWS = (1, 2, 4, 8, 16, "online")
REFERENCE = 8  # the tool's default
ARMS = ("kd", "skd")
COLUMNS = ("arm", "views", "F1, %", "minus 8 views, points", "verdict", "teacher, s", "targets, s", "student, s", "kB")


class Stopwatch(Silent):
    """Notes how long each job takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def event(self, job: Job, event: str, content: Any) -> None:
        """Note a job's seconds."""
        if event == "started":
            self._started = time.perf_counter()
        elif event == "finished":
            self.seconds[f"{job.kind}/{job.name}"] = time.perf_counter() - self._started


def run(folder: Path, views: int | str, seed: int, out: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.int64]]]:
    """Run one study of one seed, and give its times, sizes and F1, and each arm's decisions (N,)."""
    content = {**RECIPE, "data": {"root": str(folder)}, "arms": list(ARMS), "seeds": [seed], "workers": 1}
    study = make_study(content, [f"distillation.views={views}"])
    watch, times = Stopwatch(), out.with_suffix(".json")
    results = run_study(study, out, watch)
    if "targets/subclass" in watch.seconds:  # else an earlier call has been here
        write_json(times, watch.seconds)
    measured = {
        "seconds": json.loads(times.read_text("utf-8")),
        "targets_bytes": {path.stem: path.stat().st_size for path in sorted((out / "targets").glob("*.safetensors"))},
        "f1": {arm: results["arms"][arm]["f1"]["mean"] for arm in ARMS},
    }
    samples = load_samples(study)
    return measured, {f"{arm}, {views}": _decisions(out, arm, seed, samples) for arm in ARMS}


def _decisions(out: Path, arm: str, seed: int, samples: Samples) -> NDArray[np.int64]:
    logits = store.load(out / f"predictions/students/{arm}-seed{seed}.safetensors")["test"]
    return class_log_probs(logits, samples).argmax(-1)


def measure(folder: Path, seeds: int, runs: Path) -> dict[str, Any]:
    """Run all studies, and give F1, its differences, seconds and bytes for each arm and number of views."""
    measured: dict[str, list[dict[str, Any]]] = {str(views): [] for views in VIEWS}
    decided: dict[str, list[NDArray[np.int64]]] = {f"{arm}, {views}": [] for arm in ARMS for views in VIEWS}
    for seed in range(seeds):
        for views in VIEWS:
            row, decisions = run(folder, views, seed, runs / f"{views}-views-seed{seed}")
            measured[str(views)].append(row)
            for name, classes in decisions.items():
                decided[name].append(classes)
            print(f"seed {seed}, {views} views: {row['f1']}", flush=True)
    study = make_study({**RECIPE, "data": {"root": str(folder)}})
    samples = load_samples(study)
    labels = samples.class_labels[samples.test]
    pairs = [(f"{arm}, {views}", f"{arm}, {REFERENCE}") for arm in ARMS for views in VIEWS if views != REFERENCE]
    stacked = {name: np.stack(classes) for name, classes in decided.items()}
    rows = []
    for arm in ARMS:
        for views in VIEWS:
            studies = measured[str(views)]
            teacher = "class" if arm == "kd" else "subclass"
            seconds = {
                part: [each["seconds"][f"{part}/{name}"] for each in studies]
                for part, name in (("teachers", teacher), ("targets", teacher), ("students", arm))
            }
            rows.append(
                {
                    "arm": arm,
                    "views": views,
                    "f1": summarise([each["f1"][arm] for each in studies]),
                    "seconds": {part: {"median": statistics.median(s), "all": s} for part, s in seconds.items()},
                    "targets_bytes": next(
                        size for name, size in studies[0]["targets_bytes"].items() if name.startswith(f"{teacher}-")
                    ),
                }
            )
    return {
        "seeds": seeds,
        "images": {split: len(getattr(samples, split)) for split in ("train", "validation", "test")},
        "rows": rows,
        "comparisons": compare(stacked, labels, samples.positive, pairs),
    }


def table_row(row: dict[str, Any], comparisons: list[dict[str, Any]]) -> str:
    """Give one line of the Markdown table in docs/views.md."""
    f1, name = row["f1"], f"{row['arm']}, {row['views']}"
    low, high = f1["ci95"]
    cells = [f"`{row['arm']}`", str(row["views"]), f"{100 * f1['mean']:.1f}±{50 * (high - low):.1f}"]
    compared = [each for each in comparisons if each["arm"] == name]
    for each in compared:
        ends = " to ".join(f"{100 * end:+.1f}" for end in each["ci95"])
        cells += [f"{100 * each['difference']:+.1f} ({ends})", each["verdict"]]
    cells += [] if compared else ["", ""]
    for part in ("teachers", "targets", "students"):
        seconds = row["seconds"][part]
        cells.append(f"{seconds['median']:.1f} ({min(seconds['all']):.1f})")
    cells.append(f"{row['targets_bytes'] / 1000:,.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = options.runs or Path(scratch, "runs")
        folder = runs / "data"
        folder.mkdir(parents=True, exist_ok=True)
        if options.root:
            write_folder(options.root, folder)
        else:
            own = Path(scratch, "own")
            own.mkdir()
            with np.load(EMBEDDED) as stored:
                write_idx(own / "train-images-idx3-ubyte", stored["train_images"])
                write_idx(own / "train-labels-idx1-ubyte", stored["train_labels"])
            write_folder(own, folder, train=200, held_out=100)
        measured = {"machine": describe_machine(), "recipe": RECIPE, **measure(folder, options.seeds, runs)}
    print(
        f"\n{measured['seeds']} seeds, images: {measured['images']}; {measured['machine']}; seconds: median (least)\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in measured["rows"]:
        print(table_row(row, measured["comparisons"]))
    if options.json:
        write_json(options.json, measured)


if __name__ == "__main__":
    main()
