"""What each arm of a study is, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TeacherName = Literal["class", "subclass", "subclass-shuffled"]


@dataclass(frozen=True)
class Arm:
    """One way to train a student.

    Args:
        name: as the study file and the tables call it.
        asks: the question that the arm answers.
        outputs: what the student's head predicts, and what its hard label names.
        teacher: whose targets it learns from; None for labels alone.
        collapse: sum the teacher's subclass probabilities to classes first.
        votes: its labels are soft: the share of the annotators' votes.
        shuffled: its subclass labels are shuffled inside each class, as its teacher's are.
    """

    name: str
    asks: str
    outputs: Literal["class", "subclass"]
    teacher: TeacherName | None = None
    collapse: bool = False
    votes: bool = False
    shuffled: bool = False


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("scratch", "class labels alone", "class"),
        Arm("subclass-labels", "do subclass labels alone do it?", "subclass"),
        Arm("soft-votes", "do annotators' votes as soft labels do it?", "class", votes=True),
        Arm("kd", "conventional distillation: a teacher of classes", "class", "class"),
        Arm("kd-collapsed", "the subclass teacher through the class channel", "class", "subclass", collapse=True),
        Arm("skd", "subclass knowledge distillation", "subclass", "subclass"),
        Arm("skd-shuffled", "is it meaning, or a wider head?", "subclass", "subclass-shuffled", shuffled=True),
    )
}


def teachers_of(arms: Sequence[str]) -> list[TeacherName]:
    """Name the teachers that these arms need, each once, in table order.

    >>> teachers_of(["scratch", "kd", "kd-collapsed", "skd"])
    ['class', 'subclass']
    """
    return list(dict.fromkeys(teacher for name in arms if (teacher := ARMS[name].teacher)))
