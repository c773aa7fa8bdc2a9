"""Ours: targets of every view once, then the one training loop; a contender of ``benchmarks.peers``.

Layouts and the targets' batch size are what a study would choose on this machine, from the cache: the choice is
measured before the clock runs, as the peers' layout is.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.peers_common import SEED, Split, Task, Trained, build, run
from subclass_kd import targets, training
from subclass_kd.augment import Views
from subclass_kd.config import Augment, Student, Study, Teacher
from subclass_kd.device import make_fabric
from subclass_kd.feeding import Feed
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.measuring import choose

TARGETS_SECONDS: list[float] = []


def train(task: Task, splits: dict[str, Split], teacher: nn.Module, student: nn.Module) -> Trained:
    """Store the targets of all views, then train the student on them."""
    started = time.perf_counter()
    network = Student(
        model=task.student,
        epochs=task.epochs,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        weight_decay=task.weight_decay,
    )
    study = Study(device="cpu", precision="float32", teacher=Teacher(model=task.teacher), student=network)
    shape = tuple(splits["train"].images.shape[1:])  # (C, H, W)
    choices = choose(study, lambda role: build(getattr(task, role), task.outputs, shape[0]), shape)
    fabric = make_fabric(study)
    images = torch.cat([splits["train"].images, splits["validation"].images]).numpy()  # (N, C, H, W)
    labels = torch.cat([splits["train"].labels, splits["validation"].labels])  # (N,)
    rows = torch.arange(len(images)).split([task.images, len(images) - task.images])
    augment = Augment(flip=task.shift > 0, shift=task.shift / images.shape[-1])
    views = Views(SEED, task.views, augment)
    answering = choices.targets.chosen
    logits = targets.compute(
        fabric.setup_module(teacher.to(memory_format=answering.memory_format)),
        Feed(images, rows[0], fabric),
        views,
        fabric,
        answering.batch_size,
        answering.memory_format,
    )  # (V, n, K)
    TARGETS_SECONDS.append(time.perf_counter() - started)
    hierarchy = SubclassHierarchy.from_parent([0, *[1] * (task.outputs - 1)])  # healthy, and the rest
    lesson = training.Lesson(hierarchy, labels, logits, task.temperature, task.alpha, "subclass", select_by="log_loss")
    pixels = training.Pixels(images, *rows, positive=1)
    weights, history = training.train(
        student, lesson, pixels, views, network, fabric, SEED, layout=choices.student.chosen.memory_format
    )
    return Trained(weights, [(epoch.loss, epoch.soft) for epoch in history])


if __name__ == "__main__":
    run(train)
    result = Path(sys.argv[2])
    result.write_text(json.dumps(json.loads(result.read_text()) | {"targets_seconds": TARGETS_SECONDS[0]}))
