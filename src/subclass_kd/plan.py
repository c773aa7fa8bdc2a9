"""The jobs of a study, each of which makes one file of the run folder out of files made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subclass_kd import store
from subclass_kd.arms import ARMS, teachers_of
from subclass_kd.config import Study
from subclass_kd.files import fingerprint
from subclass_kd.models import model_version

Kind = Literal["teachers", "targets", "students", "predictions", "results"]
RESULTS = "results.json"


@dataclass(frozen=True)
class Job:
    """One file to make.

    Args:
        kind: the folder that the file lies in, and what making it means.
        name: the arm of a student, the name of a teacher, or for predictions ``teachers/NAME`` or ``students/NAME``.
        seed: which repetition.
        needs: paths of files that must be there first, relative to the run folder.
        recipe: fingerprint of everything that decides the file's content.
        epochs: how many it trains; 0 for a job that does not train.
        member: which network of a teacher that has several, from 0; None for every other job.
        under: a folder of the run folder that the file lies under, with a slash, or nothing.
    """

    kind: Kind
    name: str
    seed: int
    needs: tuple[str, ...]
    recipe: str
    epochs: int = 0
    member: int | None = None
    under: str = ""

    @property
    def path(self) -> str:
        """The file's path in the run folder."""
        member = "" if self.member is None else f"-member{self.member}"
        name = f"{self.under}{self.kind}/{self.name}-seed{self.seed}{member}.safetensors"
        return RESULTS if self.kind == "results" else name

    @property
    def label(self) -> str:
        """Say whose file it is, as in ``subclass, seed 0, member 1``."""
        member = "" if self.member is None else f", member {self.member}"
        return f"{self.name.replace('s/', ' ')}, seed {self.seed}{member}"


def teacher_paths(study: Study, name: str, seed: int) -> tuple[str, ...]:
    """Give the paths of a teacher's weights in the run folder: one, or one for each of its members.

    >>> teacher_paths(Study(), "subclass", seed=3)
    ('teachers/subclass-seed3.safetensors',)
    """
    return tuple(Job("teachers", name, seed, (), "", member=member).path for member in _members(study))


def asked_networks(study: Study, job: Job) -> tuple[str, ...]:
    """Give the paths of the weights whose answers a job of predictions writes down; none of another job.

    >>> job = Job("predictions", "students/skd", 3, (), "")
    >>> asked_networks(Study(), job)
    ('students/skd-seed3.safetensors',)
    """
    if job.kind != "predictions":
        return ()
    role, name = job.name.split("/")
    return teacher_paths(study, name, job.seed) if role == "teachers" else (f"{job.name}-seed{job.seed}.safetensors",)


def made_from(study: Study, job: Job) -> tuple[str, ...]:
    """Give the paths of the files whose content decides what a job makes, beside its recipe.

    >>> made_from(Study(), Job("students", "skd", 3, ("targets/subclass-seed3.safetensors",), ""))
    ('targets/subclass-seed3.safetensors',)
    """
    return asked_networks(study, job) if job.kind == "predictions" else job.needs


def marks_of(study: Study, out: Path, job: Job) -> dict[str, str | None]:
    """Fingerprint the tensors of each file that a job's file is made from, as they are in the run folder now."""
    return {path: store.tensors_mark(out / path) for path in made_from(study, job)}


def _members(study: Study) -> list[int | None]:
    """Number the networks of a teacher; one alone has no number."""
    return [None] if study.teacher.members == 1 else list(range(study.teacher.members))


def grouped(jobs: Sequence[Job], members: int, apart: bool = False) -> list[tuple[Job, ...]]:
    """Group jobs that one process does together: up to ``members`` students of a seed with as many outputs.

    Every other job is a group of its own; groups come in the order of their first jobs.

    Args:
        jobs: of a plan.
        members: at most so many together.
        apart: whether students of a teacher see images that others do not, and so are not grouped with them.

    >>> from subclass_kd.study_file import make_study
    >>> groups = grouped(plan(make_study({"seeds": 1, "arms": ["scratch", "kd", "skd"]}), ""), members=3)
    >>> [[job.name for job in group] for group in groups if group[0].kind == "students"]
    [['scratch', 'kd'], ['skd']]
    """
    groups: list[list[Job]] = []
    open_: dict[tuple[int, str, bool], list[Job]] = {}  # the group that the next student of this kind joins
    for job in jobs:
        taught = apart and bool(job.needs)
        key = (job.seed, ARMS[job.name].outputs, taught) if job.kind == "students" else None
        if key in open_ and len(open_[key]) < members:
            open_[key].append(job)
            continue
        groups.append([job])
        if key is not None:
            open_[key] = groups[-1]
    return [tuple(group) for group in groups]


def plan(study: Study, data_fingerprint: str) -> list[Job]:
    """List every job of a study: seed by seed, those that others wait for first, the one for results.json last.

    One seed's students may train while the next one's teachers do.

    Predictions on the test split need every network to be trained: the test is touched once, at the end.
    """
    teachers = teachers_of(study.arms)
    common = [store.FORMAT, data_fingerprint, study.precision, study.device, study.augment.model_dump()]
    common.append(study.curriculum.model_dump())
    teaching = [
        common,
        study.teacher.model_dump(exclude={"shard"}),
        model_version(study.teacher),
        study.distillation.views,
    ]
    taught = [teaching, study.distillation.unlabelled] if study.distillation.unlabelled else teaching

    def learning(name: str = "") -> list[Any]:
        own = study.of_arm(name)
        return [teaching, own.student.model_dump(), model_version(own.student), own.distillation.model_dump()]

    def job(
        kind: Kind,
        name: str,
        seed: int,
        needs: tuple[str, ...],
        inputs: Any,
        epochs: int = 0,
        member: int | None = None,
    ) -> Job:
        which = [] if member is None else [member]
        return Job(kind, name, seed, needs, fingerprint(kind, name, seed, inputs, *which), epochs, member)

    jobs: list[Job] = []
    for seed in study.seeds:
        jobs += [
            job("teachers", name, seed, (), teaching, study.teacher.epochs, member)
            for name in teachers
            for member in _members(study)
        ]
        targets = {name: job("targets", name, seed, teacher_paths(study, name, seed), taught) for name in teachers}
        jobs += targets.values()
        for name in study.arms:
            teacher = ARMS[name].teacher
            needs = (targets[teacher].path,) if teacher else ()
            jobs.append(job("students", name, seed, needs, learning(name), study.student.epochs))
    trained = [made for made in jobs if made.epochs]
    everything = tuple(made.path for made in trained)
    answering = [made for made in trained if not made.member]  # the members of a teacher answer together
    jobs += [
        job("predictions", f"{made.kind}/{made.name}", made.seed, everything, learning(made.name)) for made in answering
    ]
    predictions = tuple(made.path for made in jobs if made.kind == "predictions")
    return [*jobs, job("results", "results", study.seeds[0], predictions, learning())]
