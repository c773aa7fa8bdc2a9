"""The jobs of a study, each of which makes one file of the run folder out of files made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """

    kind: Kind
    name: str
    seed: int
    needs: tuple[str, ...]
    recipe: str
    epochs: int = 0

    @property
    def path(self) -> str:
        """The file's path in the run folder."""
        return RESULTS if self.kind == "results" else f"{self.kind}/{self.name}-seed{self.seed}.safetensors"


def grouped(jobs: Sequence[Job], members: int) -> list[tuple[Job, ...]]:
    """Group jobs that one process does together: up to ``members`` students of a seed with as many outputs.

    Every other job is a group of its own; groups come in the order of their first jobs.

    >>> from subclass_kd.study_file import make_study
    >>> groups = grouped(plan(make_study({"seeds": 1, "arms": ["scratch", "kd", "skd"]}), ""), members=3)
    >>> [[job.name for job in group] for group in groups if group[0].kind == "students"]
    [['scratch', 'kd'], ['skd']]
    """
    groups: list[list[Job]] = []
    open_: dict[tuple[int, str], list[Job]] = {}  # the group that the next student of this kind joins
    for job in jobs:
        key = (job.seed, ARMS[job.name].outputs) if job.kind == "students" else None
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
    teachers = teachers_of(list(study.arms))
    common = [store.FORMAT, data_fingerprint, study.precision, study.device, study.augment.model_dump()]
    common.append(study.curriculum.model_dump())
    teaching = [common, study.teacher.model_dump(), model_version(study.teacher), study.distillation.views]
    learning = [teaching, study.student.model_dump(), model_version(study.student), study.distillation.model_dump()]

    def job(kind: Kind, name: str, seed: int, needs: tuple[str, ...], inputs: Any, epochs: int = 0) -> Job:
        return Job(kind, name, seed, needs, fingerprint(kind, name, seed, inputs), epochs)

    jobs: list[Job] = []
    for seed in study.seeds:
        made = [job("teachers", name, seed, (), teaching, study.teacher.epochs) for name in teachers]
        targets = {teacher.name: job("targets", teacher.name, seed, (teacher.path,), teaching) for teacher in made}
        jobs += [*made, *targets.values()]
        for name in study.arms:
            teacher = ARMS[name].teacher
            needs = (targets[teacher].path,) if teacher else ()
            jobs.append(job("students", name, seed, needs, learning, study.student.epochs))
    trained = [made for made in jobs if made.epochs]
    everything = tuple(made.path for made in trained)
    jobs += [job("predictions", f"{made.kind}/{made.name}", made.seed, everything, learning) for made in trained]
    predictions = tuple(made.path for made in jobs if made.kind == "predictions")
    return [*jobs, job("results", "results", study.seeds[0], predictions, learning)]
