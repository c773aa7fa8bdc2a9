"""A finished run as export reads it, and its networks: which student of an arm is best, and its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from subclass_kd import store
from subclass_kd.arms import ARMS
from subclass_kd.build import seeded_model
from subclass_kd.committee import Committee
from subclass_kd.config import Network, Study
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.deployed import Deployed
from subclass_kd.errors import UserError
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.plan import teacher_paths


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, its study, results.json, and the data that it was made from."""

    folder: Path
    study: Study
    results: dict[str, Any]
    samples: Samples

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pixels."""
        channels, height, width = self.samples.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Candidate:
    """A trained student and what validation said of it at its best epoch; log loss in nats."""

    arm: str
    seed: int
    validation_f1: float
    validation_log_loss: float

    @property
    def weights(self) -> str:
        """Path of its weights in the run folder."""
        return f"students/{self.arm}-seed{self.seed}.safetensors"

    @property
    def predictions(self) -> str:
        """Path of its logits in the run folder."""
        return f"predictions/students/{self.arm}-seed{self.seed}.safetensors"

    def __str__(self) -> str:
        """As in ``seed 0 F1 95.95``."""
        return f"seed {self.seed} validation F1 {100 * self.validation_f1:.2f}"


def open_run(folder: Path, study: Study, results: dict[str, Any], on_decoded: Callable[[int, int], None]) -> Run:
    """Read the data of a finished run.

    Args:
        folder: as ``skd run`` left it.
        study: as :func:`subclass_kd.run_files.read_run` gives it.
        results: likewise.
        on_decoded: hears of images that are decoded: how many of how many.

    Raises:
        UserError: the data cannot be read, or have changed since.
    """
    samples = load_samples(study, on_decoded)
    mark = results["data"]["fingerprint"]
    if samples.fingerprint != mark:
        found = f"other data than the run's (fingerprint {mark} before, {samples.fingerprint} now)"
        raise UserError(str(folder), found, "the same images, labels and splits", "Restore the data.")
    return Run(folder, study.model_copy(update={"seeds": results["study"]["seeds"]}), results, samples)


def best_student(run: Run, arm: str) -> list[Candidate]:
    """Give an arm's students, one a seed, the best first: of the highest validation F1, then the least log loss.

    Raises:
        UserError: a student's file is missing or damaged.
    """
    students = []
    for seed in run.study.seeds:
        best = store.notes(run.folder / Candidate(arm, seed, 0, 0).weights)["best"]
        students.append(Candidate(arm, seed, best["validation_f1"], best["validation_log_loss"]))
    return sorted(students, key=lambda student: (-student.validation_f1, student.validation_log_loss, student.seed))


def deployed_student(run: Run, student: Candidate, temperature: float) -> Deployed:
    """Build a trained student as it is deployed, on the CPU, in evaluation mode."""
    hierarchy = _hierarchy(run, ARMS[student.arm].outputs)
    network = _trained(run, run.study.student, hierarchy, student.weights)
    return Deployed(network, hierarchy, temperature).eval()


def deployed_teacher(run: Run, student: Candidate) -> tuple[str, Deployed] | None:
    """Give the name and network of the student's teacher, or of any of the run where it had none; None without one."""
    teachers = run.results["teachers"]
    name = ARMS[student.arm].teacher or next((name for name in ("subclass", "class") if name in teachers), None)
    if name is None or name not in teachers:
        return None
    hierarchy = _hierarchy(run, "class" if name == "class" else "subclass")
    paths = teacher_paths(run.study, name, student.seed)
    networks = [_trained(run, run.study.teacher, hierarchy, path) for path in paths]
    network = networks[0] if len(networks) == 1 else Committee(networks)
    return name, Deployed(network, hierarchy, 1.0).eval()


def _hierarchy(run: Run, outputs: str) -> SubclassHierarchy:
    hierarchy = run.samples.hierarchy
    return SubclassHierarchy.identity(hierarchy.classes) if outputs == "class" else hierarchy


def _trained(run: Run, network: Network, hierarchy: SubclassHierarchy, path: str) -> nn.Module:
    """Build a network and load its weights, among them what it normalises by: nothing has to be fetched."""
    fresh = network.model_copy(update={"pretrained": False})
    model = seeded_model(fresh, hierarchy.num_subclasses, run.samples, seed=0)
    try:
        model.load_state_dict(store.load(run.folder / path))
    except RuntimeError as error:
        found = f"weights of another network ({str(error).splitlines()[0]})"
        raise UserError(str(run.folder / path), found, "those of the study's", "Restore the model.") from None
    return model
