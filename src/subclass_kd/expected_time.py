"""How long a study will take on this machine, measured by a few steps of its own networks."""

from __future__ import annotations

import time

from subclass_kd.config import Network, Study
from subclass_kd.engine import count_workers
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.plan import plan

IMAGES = 256  # that the networks are timed on
STARTING = 15.0  # seconds in which the processes load torch


def expected_seconds(
    study: Study, hierarchy: SubclassHierarchy, counts: dict[str, int], shape: tuple[int, ...]
) -> float:
    """Estimate how long a study's jobs take here, all its workers at it.

    Teacher and student are trained for a few steps on noise, on one thread as a run does on a CPU.

    Args:
        study: networks, arms, seeds, views, device.
        hierarchy: for the number of outputs.
        counts: images in "train", "validation" and "test".
        shape: of an image, (C, H, W).

    Returns:
        Seconds; what reading the images takes is not in it.

    Raises:
        UserError: a network cannot be built.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = {"teachers": study.teacher, "students": study.student}
        rates = {kind: _rates(study, network, hierarchy, shape) for kind, network in steps.items()}
    finally:
        torch.set_num_threads(threads)
    seconds = 0.0
    members, crossed = study.teacher.members, study.teacher.cross_fit
    answering = {"teachers": members, "students": 1}  # networks that answer for one image
    jobs = plan(study, "")
    for job in jobs:
        kind = job.name.partition("/")[0] if job.kind == "predictions" else "teachers"
        if job.kind in rates:
            share = 1 - 1 / members if crossed and job.kind == "teachers" else 1
            seconds += job.epochs * share * counts["train"] * rates[job.kind][0]
            seconds += job.epochs * counts["validation"] * rates[job.kind][1]
            if job.kind == "students" and study.distillation.views == "online" and job.needs:
                seconds += job.epochs * counts["train"] * members * rates["teachers"][1]
        elif job.kind == "targets":
            each = 1 if crossed else members
            seconds += (study.distillation.stored or 1) * counts["train"] * each * rates["teachers"][1]
        elif job.kind == "predictions":
            seconds += (counts["validation"] + counts["test"]) * answering[kind] * rates[kind][1]
    alone = study.workers == "auto" and _device(study) != "cpu"
    return STARTING + seconds / (1 if alone else count_workers(study))


def _device(study: Study) -> str:
    from subclass_kd.device import make_fabric

    return make_fabric(study).device.type


def _rates(study: Study, network: Network, hierarchy: SubclassHierarchy, shape: tuple[int, ...]) -> tuple[float, float]:
    """Give seconds an image for (training, prediction)."""
    import torch

    from subclass_kd import training
    from subclass_kd.arithmetic import Arithmetic
    from subclass_kd.augment import Views
    from subclass_kd.device import make_fabric
    from subclass_kd.feeding import Feed
    from subclass_kd.measuring import layouts
    from subclass_kd.models import build_model

    images = torch.randint(0, 256, (IMAGES + 4, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % hierarchy.num_subclasses
    pixels = training.Pixels(images.numpy(), torch.arange(IMAGES), torch.arange(IMAGES, len(images)), positive=0)
    views = Views(0, study.distillation.stored or network.epochs, study.augment)
    logits = torch.zeros(views.count or 1, IMAGES, hierarchy.num_subclasses)
    lesson = training.Lesson(hierarchy, labels, targets=logits, alpha=0.5)
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25)
    model = build_model(network, hierarchy.num_subclasses, shape[0], mean, std)
    fabric = make_fabric(study)
    # On a CPU the time that this process computed, so that others' work on the machine does not count.
    clock = time.process_time if fabric.device.type == "cpu" else time.perf_counter
    marks: list[float] = []
    short = network.model_copy(update={"epochs": 3})
    layout = Arithmetic(layouts(network, model)[0], "float32", network.batch_size).memory_format
    training.train(model, lesson, pixels, views, short, fabric, 0, lambda epoch: marks.append(clock()), layout)
    model = fabric.setup_module(model)
    started = clock()
    training.predict(model, Feed(pixels.images, pixels.train, fabric), fabric, layout=layout)
    predicting = (clock() - started) / IMAGES
    return min(marks[1] - marks[0], marks[2] - marks[1]) / IMAGES, predicting  # the first epoch warms up


def duration(seconds: float) -> str:
    """Say a duration as a person would.

    >>> duration(42), duration(1500), duration(12_000)
    ('about 40 seconds', 'about 25 minutes', 'about 3.3 hours')
    """
    if seconds < 90:
        return f"about {10 * max(1, round(seconds / 10))} seconds"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"
