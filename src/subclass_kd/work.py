"""How each job of a study is done: train a teacher, store its targets, train a student, predict the test split."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch

import subclass_kd
from subclass_kd import answers, store, training
from subclass_kd.arithmetic import Choices
from subclass_kd.arms import ARMS
from subclass_kd.bench import Bench
from subclass_kd.build import network_cost
from subclass_kd.checkpoint import Checkpoint, no_stop_but_at_a_checkpoint
from subclass_kd.config import Network, Study
from subclass_kd.data.rows import Samples
from subclass_kd.device import make_fabric, make_team_fabric, teacher_fabric
from subclass_kd.epoch import Epoch
from subclass_kd.errors import MORE_FILES, UserError
from subclass_kd.feeding import Feed
from subclass_kd.files import fingerprint, write_json
from subclass_kd.plan import Job, marks_of
from subclass_kd.sharding import shares_weights
from subclass_kd.team import ALONE, current
from subclass_kd.training import Lesson


def make(
    study: Study,
    samples: Samples,
    out: Path,
    jobs: Sequence[Job],
    choices: Choices,
    on_epoch: Callable[[Job, Epoch], None],
) -> None:
    """Make the files of one job, or of students that train as one.

    Args:
        study: what to run.
        samples: its data.
        out: the run folder.
        jobs: which files, as :func:`subclass_kd.plan.grouped` puts them together.
        choices: how the networks compute, as :func:`check` chose.
        on_epoch: called after each epoch of each job's training.

    Raises:
        UserError: a file that the job needs is damaged or stale, the model cannot be built, or the disk refuses.
    """
    try:
        _make(Bench(study, samples, out, choices, jobs[0].seed), jobs, on_epoch)
    except torch.OutOfMemoryError as error:
        expected = "a batch that fits, beside what else computes there"
        remedy = "Lower its batch_size, data.size or --workers."
        raise UserError(jobs[0].path, "too little memory on the device", expected, remedy) from error
    except OSError as error:
        where, found = str(error.filename or out / jobs[0].path), error.strerror or str(error)
        if error.errno == errno.EMFILE:
            raise UserError(where, found, "a limit that leaves room for what the run opens", MORE_FILES) from error
        raise UserError(where, found, "a disk to read from and write to", "Mend that and run again.") from error


def _make(bench: Bench, jobs: Sequence[Job], on_epoch: Callable[[Job, Epoch], None]) -> None:
    job = jobs[0]
    if job.kind == "teachers":
        _train_teacher(bench, job, on_epoch)
    elif job.kind == "targets":
        answers.make_targets(bench, job)
    elif job.kind == "students":
        _train(bench, "student", [_lesson(bench, job) for job in jobs], jobs, on_epoch)
    elif job.kind == "predictions":
        _predict(bench, job)
    else:
        from subclass_kd.results import Part, assemble  # its metrics and statistics take seconds to load: at the end

        parts = [Part(bench.samples, bench.out)]
        write_json(bench.out / job.path, assemble(bench.study, parts, bench.choices))


def _train_teacher(bench: Bench, job: Job, on_epoch: Callable[[Job, Epoch], None]) -> None:
    """Train on class labels, subclass labels, or subclass labels shuffled inside each class."""
    outputs = answers.outputs_of(job.name)
    labels = bench.labels(outputs, shuffled=job.name == "subclass-shuffled")
    lesson = Lesson(
        bench.hierarchy(outputs), labels, weights=bench.weights, stage=bench.stage("teacher"), select_by="log_loss"
    )
    _train(bench, "teacher", [lesson], [job], on_epoch)


def _lesson(bench: Bench, job: Job) -> Lesson:
    """Say what an arm's student is taught."""
    arm, distillation = ARMS[job.name], bench.study.of_arm(job.name).distillation
    hierarchy, labels = bench.hierarchy(arm.outputs), bench.labels(arm.outputs, arm.shuffled)
    lesson = Lesson(hierarchy, labels, weights=bench.weights, stage=bench.stage("student"))
    if arm.votes:
        lesson = replace(lesson, targets=bench.vote_targets(), temperature=1.0, alpha=1.0)
    if arm.teacher is not None:
        lesson = replace(
            lesson,
            targets=answers.taught_by(bench, arm.teacher, bench.out / job.needs[0], arm.collapse),
            temperature=distillation.temperature,
            alpha=distillation.alpha,
            hard_target=distillation.hard_target,
            within_class=distillation.within_class,
        )
    return lesson


def _train(
    bench: Bench,
    role: Literal["teacher", "student"],
    lessons: Sequence[Lesson],
    jobs: Sequence[Job],
    on_epoch: Callable[[Job, Epoch], None],
) -> None:
    """Train a teacher's network, or one arm, or several with as many outputs as one."""
    network: Network = bench.study.teacher if role == "teacher" else bench.study.of_arm(jobs[0].name).student
    of_classes = lessons[0].hierarchy.num_subclasses == bench.samples.hierarchy.num_classes
    member = jobs[0].member or 0
    models = [bench.model(network, role, "class" if of_classes else "subclass", member) for _ in jobs]
    chosen = (bench.choices.teacher if role == "teacher" else bench.choices.student).chosen
    decides = [job.recipe for job in jobs], asdict(chosen), bench.choices.device
    learned_from = [store.checksum(bench.out / path) for job in jobs for path in job.needs]
    team = current()
    checkpoint = Checkpoint(bench.out / jobs[0].path, fingerprint(*decides, learned_from), writes=team.leads)
    with no_stop_but_at_a_checkpoint():
        trained = training.train_together(
            models,
            lessons,
            bench.pixels_of(member) if role == "teacher" else bench.taught if jobs[0].needs else bench.pixels,
            bench.views,
            network,
            make_fabric(bench.study, chosen.precision),
            bench.seed_of(role, "order", member),
            lambda number, epoch: on_epoch(jobs[number], epoch),
            chosen.memory_format,
            checkpoint,
            make_team_fabric(bench.study, chosen.precision, shares_weights(network)) if team.count > 1 else None,
        )
        if not team.leads:
            return
        seconds = sum(epoch.seconds for epoch in trained[0][1]) / len(jobs)
        for job, lesson, (weights, history) in zip(jobs, lessons, trained, strict=True):
            notes = {
                "best": asdict(training.best_epoch(history, lesson)),
                "history": [asdict(epoch) for epoch in history],
                "train_seconds": seconds,
                "devices": team.count,
                "made_from": marks_of(bench.study, bench.out, job),
                "software": f"torch {torch.__version__}, subclass-kd {subclass_kd.__version__}",
            }
            store.save(bench.out / job.path, weights, job.recipe, notes)
        checkpoint.remove()


def _predict(bench: Bench, job: Job) -> None:
    """Store a trained network's logits on validation and test images, and what it costs to run."""
    role, name = job.name.split("/")  # "students/skd"
    if role == "students":
        choice, model = bench.choices.student, bench.model(bench.study.student, "student", ARMS[name].outputs)
        model.load_state_dict(store.load(bench.out / f"{job.name}-seed{bench.seed}.safetensors"))
    else:
        choice, model = bench.choices.teacher, answers.trained_teacher(bench, name)
    cost = network_cost(model, bench.samples.images.shape[1:])
    layout = choice.chosen.memory_format
    shared = role == "teachers" and shares_weights(bench.study.teacher)  # by the team, all of which is here
    team, fabric = (current(), teacher_fabric(bench.study)) if shared else (ALONE, make_fabric(bench.study))
    model = fabric.setup_module(model.to(memory_format=layout))
    logits = {}  # (n, outputs) each, in float32, as in use
    for split, rows in (("validation", bench.pixels.validation), ("test", torch.from_numpy(bench.samples.test))):
        share = team.share(len(rows))
        own = training.predict(model, Feed(bench.pixels.images, rows[share], fabric), fabric, layout=layout)
        logits[split] = team.whole(own, share, len(rows))
    if team.leads:
        noted = {**cost, "made_from": marks_of(bench.study, bench.out, job)}
        store.save(bench.out / job.path, logits, job.recipe, noted)
