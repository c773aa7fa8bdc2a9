"""What the loss of a step costs by itself, with a teacher's stored targets and without: forward, backward, its parts.

    python -m benchmarks.loss_cost [--json FILE]

Ten subclasses of two classes, 64 images, one thread, CPU time. benchmarks.step_cost measures the same difference within
whole steps, where a shaky machine hides it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric

from benchmarks.machine import describe_machine
from subclass_kd.criterion import Criterion
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.training import Lesson

BATCH, IMAGES, REPEATS, ROUNDS = 64, 2400, 2000, 11


def microseconds(lesson: Lesson) -> float:
    """Time one loss with its gradient, as a training step has them; what an epoch prepares is shared by its steps."""
    logits = torch.randn(BATCH, 10, requires_grad=True)
    batch = torch.randint(IMAGES, (BATCH,))
    parts = torch.empty(2, BATCH)
    criterion = Criterion(lesson, torch.arange(IMAGES), IMAGES, Fabric(accelerator="cpu", devices=1))
    started = time.process_time()
    for step in range(REPEATS):
        if step % (IMAGES // BATCH) == 0:
            criterion.begin(0)
        loss = criterion(logits, batch, logits)
        loss.total.mean().backward()
        logits.grad = None
        parts[:] = torch.stack([part.detach() for part in loss])
    return (time.process_time() - started) / REPEATS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hierarchy = SubclassHierarchy.from_parent([0] * 5 + [1] * 5)
    labels = torch.randint(10, (IMAGES,))
    lessons = {
        "scratch": Lesson(SubclassHierarchy.identity(hierarchy.subclasses), labels),
        "skd": Lesson(hierarchy, labels, targets=torch.randn(1, IMAGES, 10), alpha=0.9),
    }
    found: dict[str, list[float]] = {name: [] for name in lessons}
    for _ in range(ROUNDS):  # in turns
        for name, lesson in lessons.items():
            found[name].append(microseconds(lesson))
    machine = describe_machine()
    print(f"microseconds of CPU time, median of {ROUNDS} rounds of {REPEATS}; {machine}")
    for name, values in found.items():
        print(f"{name:8} {statistics.median(values):6.0f} ({min(values):.0f} to {max(values):.0f})")
    if options.json:
        medians = {name: statistics.median(values) for name, values in found.items()}
        content = {"machine": machine, "microseconds": medians, "rounds": found}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
