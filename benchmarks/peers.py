"""Wall time of training a student with its teacher's cost: ours, torchdistill, timm's task, and a plain loop by hand.

    python -m benchmarks.peers [--images N] [--epochs N] [--repeats N] [--venv FOLDER] [--json FILE]

Everybody trains the same student from the same weights with the same teacher, images of 64 pixels in the same order,
AdamW, schedule and loss, alpha T^2 KL + (1 - alpha) CE, in float32 on one thread, and keeps the best of the epochs by a
validation split. First it is checked that losses agree, with augmentation off: training goes on only if they do.
The clock runs over the student's training in a process of its own, over our targets too; not over imports, reading of
arrays, or training the teacher, which are the same for all. Beside wall time stands the processor time of that process,
which says what a machine would have shown that does nothing else.

Peers live in an environment of their own (about 5 GB, made once in the user's cache), and choices are made in their
favour: decoded images in memory, the cheapest of the transforms, the faster of two memory layouts, a fused optimiser,
no log.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_machine
from benchmarks.peers_common import Task, read, without_augmentation
from benchmarks.peers_online import train as train_online
from benchmarks.peers_setup import PEERS, SUBCLASSES, environment, load_images, write_networks
from subclass_kd.files import write_json

ROOT = Path(__file__).parents[1]
CONTENDERS = ("ours", "torchdistill", "timm", "online")
NAMES = {"ours": "ours, {} views", "torchdistill": PEERS[0], "timm": f"{PEERS[1]} LogitDistillationTask"}
NAMES |= {"online": "plain loop, teacher in it"}
TOLERANCE = 1e-4  # of the loss and its soft part, relative; what float32 in two layouts becomes in 8 steps of AdamW
CHECK_EPOCHS, CHECK_STEPS = 4, 2


@dataclass(frozen=True)
class Field:
    """Where contenders run: Python of the peers, folder of the files."""

    python: Path
    folder: Path

    def task(self, options: argparse.Namespace, **changes: Any) -> Task:
        """Make a task, its student's weights, and its teacher if there is none yet."""
        teacher, student = changes.pop("teacher", options.teacher), changes.pop("student", options.student)
        weights = [str(self.folder / f"{name.replace(':', '-')}.safetensors") for name in (teacher, student)]
        settings = {"images": options.images, "epochs": options.epochs, "batch_size": options.batch} | changes
        task = Task(
            arrays=str(self.folder / "arrays.npz"),
            teacher=teacher,
            teacher_weights=weights[0],
            student=student,
            student_weights=weights[1],
            outputs=len(SUBCLASSES),
            views=options.views,
            **settings,
        )
        write_networks(task)
        return replace(task, layout=self.faster_layout(task))

    def faster_layout(self, task: Task) -> str:
        """Find out in which layout the plain loop is faster, by the better of two epochs in each; ours chooses too."""
        taken: dict[str, list[float]] = {"channels_last": [], "contiguous": []}
        short = replace(task, epochs=1, images=2 * task.batch_size)
        for layout in list(taken) * 2:
            inputs = read(short)
            started = time.perf_counter()
            train_online(replace(short, layout=layout), *inputs)
            taken[layout].append(time.perf_counter() - started)
        self.train("ours", short)  # what it chooses stays in the cache, before any clock runs
        return min(taken, key=lambda layout: min(taken[layout]))

    def train(self, contender: str, task: Task) -> dict[str, Any]:
        """Train in a process of its own and give what it wrote."""
        given, result = self.folder / "task.json", self.folder / "result.json"
        task.write(given)
        result.unlink(missing_ok=True)
        python = sys.executable if contender == "ours" else self.python
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        command = [python, "-m", f"benchmarks.peers_{contender}", given, result]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        return dict(json.loads(result.read_text()))


def largest_difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Give the largest relative difference between two histories (epochs, 2) of the loss and its soft part."""
    a, b = np.asarray(ours), np.asarray(theirs)
    return float(np.max(np.abs(a - b) / np.abs(a)))


def check_losses(field: Field, task: Task) -> dict[str, Any]:
    """Train a few steps without augmentation, print each epoch's (loss, soft part), and refuse if they differ."""
    short = without_augmentation(task, epochs=CHECK_EPOCHS, images=CHECK_STEPS * task.batch_size)
    histories = {name: field.train(name, short)["history"] for name in CONTENDERS}
    print(f"\nLoss (soft part), means of {CHECK_STEPS} steps, without augmentation\n")
    print(f"| steps | {' | '.join(CONTENDERS)} |\n|---|{'---|' * len(CONTENDERS)}")
    for epoch in range(CHECK_EPOCHS):
        cells = [f"{histories[name][epoch][0]:.6f} ({histories[name][epoch][1]:.6f})" for name in CONTENDERS]
        print(f"| {CHECK_STEPS * epoch + 1}-{CHECK_STEPS * (epoch + 1)} | {' | '.join(cells)} |")
    differences = {name: largest_difference(histories["ours"], histories[name]) for name in CONTENDERS[1:]}
    found = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(f"\nLargest relative difference from ours: {found}; at most {TOLERANCE:.0e} is allowed.", flush=True)
    if max(differences.values()) > TOLERANCE:
        raise SystemExit("Losses differ, so the contenders do not do the same work. Nothing is timed.")
    return {"history": histories, "largest_relative_difference": differences, "tolerance": TOLERANCE}


def measure(field: Field, task: Task, repeats: int) -> dict[str, Any]:
    """Time every contender so many times, in turns, each turn with another one first."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for number in range(repeats):
        for place in range(len(CONTENDERS)):
            name = CONTENDERS[(number + place) % len(CONTENDERS)]
            runs[name].append(field.train(name, task))
    rows: dict[str, Any] = {}
    for name, results in runs.items():
        rows[name] = {}
        for clock, prefix in (("seconds", ""), ("cpu_seconds", "cpu_")):
            taken = [result[clock] for result in results]
            ratios = [theirs / ours[clock] for theirs, ours in zip(taken, runs["ours"], strict=True)]
            rows[name] |= {
                clock: taken,
                f"median_{clock}": statistics.median(taken),
                f"{prefix}over_ours": statistics.median(ratios),
                f"{prefix}over_ours_range": [min(ratios), max(ratios)],
            }
        rows[name] |= {
            **{key: statistics.median(result[key] for result in results) for key in ("accuracy", "log_loss")},
            "train_loss": results[0]["history"][-1][0],
        }
    rows["ours"]["targets_seconds"] = statistics.median(result["targets_seconds"] for result in runs["ours"])
    setting = {key: getattr(task, key) for key in ("teacher", "student", "images", "epochs", "views", "layout")}
    return {"setting": setting, "contenders": rows}


def print_main(measured: dict[str, Any]) -> None:
    """Print a row for each contender."""
    views = measured["setting"]["views"]
    print(
        "| contender | seconds, median (range) | times ours (range) | by CPU time | held-out accuracy, % | log loss |\n"
        "|---|---|---|---|---|---|"
    )
    for name, row in measured["contenders"].items():
        seconds = f"{row['median_seconds']:.1f} ({min(row['seconds']):.1f}-{max(row['seconds']):.1f})"
        ratio = "1" if name == "ours" else "{:.2f} ({:.2f}-{:.2f})".format(row["over_ours"], *row["over_ours_range"])
        by_cpu = "1" if name == "ours" else f"{row['cpu_over_ours']:.2f}"
        quality = f"{100 * row['accuracy']:.1f} | {row['log_loss']:.3f}"
        print(f"| {NAMES[name].format(views)} | {seconds} | {ratio} | {by_cpu} | {quality} |")


def print_sweep_row(measured: dict[str, Any]) -> None:
    """Print how many times ours each peer takes in one setting."""
    setting, rows = measured["setting"], measured["contenders"]
    ratios = " | ".join(f"{rows[name]['over_ours']:.2f}" for name in CONTENDERS[1:])
    cells = f"{setting['teacher']} | {setting['student']} | {setting['epochs']} | {setting['images']}"
    by_cpu = " | ".join(f"{rows[name]['cpu_over_ours']:.2f}" for name in CONTENDERS[1:])
    print(f"| {cells} | {rows['ours']['median_seconds']:.1f} | {ratios} | {by_cpu} |", flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="training images, a multiple of the batch")
    parser.add_argument(
        "--sweep-images", type=int, default=128, help="training images of the further settings; 0 for none"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="of the main setting; the further ones run once")
    parser.add_argument("--teacher", default="timm:resnet18")
    parser.add_argument("--student", default="small:convnet")
    parser.add_argument("--venv", type=Path, help="the peers' environment; in the user's cache by default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(given)
    if options.images % options.batch or options.sweep_images % options.batch or options.images < options.sweep_images:
        parser.error("--images and --sweep-images must be multiples of --batch, and the second at most the first")
    return options


def settings(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List in what the further settings differ from the main one."""
    few = {"images": options.sweep_images}
    by_epochs = [few | {"epochs": epochs} for epochs in (10, 100)]
    by_teacher = [few | {"teacher": teacher} for teacher in ("small:resnet", "timm:resnet50")]
    return [*by_epochs, *by_teacher, few | {"student": "timm:mobilenetv3_small_050"}] if few["images"] else []


def main() -> None:
    options, started = arguments(), time.perf_counter()
    torch.set_num_threads(1)
    python = environment(options.venv)
    with tempfile.TemporaryDirectory() as folder:
        field = Field(python, Path(folder))
        arrays, source = load_images(options.images)
        np.savez(Path(folder) / "arrays.npz", **arrays)
        task = field.task(options)
        print(f"{describe_machine()}; {source}")
        print(f"{task.student} taught by {task.teacher}; {task.images} images of 64 x 64 pixels, {task.epochs} epochs,")
        print(f"batch {task.batch_size}, float32, one thread; peers in {task.layout}", flush=True)
        result: dict[str, Any] = {"machine": describe_machine(), "data": source, "peers": PEERS}
        result["check"] = check_losses(field, task)
        result["main"] = measure(field, task, options.repeats)
        print()
        print_main(result["main"])
        print(
            "\n| teacher | student | epochs | images | ours, s | torchdistill / ours | timm / ours | plain loop / ours "
            "| by CPU time: | | |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )
        print_sweep_row(result["main"])
        result["sweep"] = []
        for changes in [None, *settings(options)]:
            if changes is not None:
                result["sweep"].append(measure(field, field.task(options, **changes), 1))
                print_sweep_row(result["sweep"][-1])
            result["seconds"] = time.perf_counter() - started
            if options.json:  # after each setting: an interruption loses but the one under way
                write_json(options.json, result)
    print(f"\n{result['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
