"""From the predictions of a finished run to results.json (schema 1)."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import subclass_kd
from subclass_kd import store
from subclass_kd.arithmetic import Choices
from subclass_kd.arms import ARMS, teachers_of
from subclass_kd.comparison import compare, pairs
from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.device import make_fabric
from subclass_kd.diagnosis import diagnose
from subclass_kd.evaluation import class_metrics, subclass_accuracy, summarise
from subclass_kd.facts import facts
from subclass_kd.files import fingerprint
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.information import LabelBits, label_bits
from subclass_kd.plan import teacher_paths
from subclass_kd.power import needed

# Keys that change no result.
IDLE: dict[str, Any] = {"workers": True, "track": True, "tune": True, "data": {"store_limit"}, "teacher": {"shard"}}
SEED_POLICY = (
    "Each seed s gives weights, order, dropout, views and shuffles generators of their own, derived from s and their "
    "use by SHA-256; arms of a seed share them. The validation split is the same for every seed."
)


@dataclass(frozen=True, eq=False)
class Part:
    """A run folder with the samples that its networks learned from and were tested on: all of a study, or a fold."""

    samples: Samples
    out: Path


def assemble(study: Study, parts: Sequence[Part], choices: Choices) -> dict[str, Any]:
    """Compute every number of results.json from the files of a run.

    The predictions of several parts are pooled before anything is computed of them: of a seed, all test images of all
    folds are one test split. So F1 is that of all counts together, the least biased way to have it from folds (Forman,
    Scholz 2010, https://doi.org/10.1145/1882471.1882479), and the number of images behind an interval is that of all.

    Args:
        study: the resolved study.
        parts: one, or a fold each, with all files that the plan names; no image is tested in two.
        choices: how its networks compute.

    Returns:
        Plain values that JSON can hold; metrics are shares, 0 to 1, and None where one is not defined.
    """
    pooled = _Pool(study, parts)
    arms = {name: _network(pooled, "students", name) for name in study.arms}
    teachers = {
        name: _network(pooled, "teachers", name) | {"targets": _targets(pooled, name)}
        for name in teachers_of(study.arms)
    }
    decisions: dict[str, NDArray[np.int64]] = {
        name: np.stack([pooled.class_log_probs("students", name, seed).argmax(-1) for seed in study.seeds])
        for name in study.arms
    }  # (S, N) each
    results: dict[str, Any] = {
        "schema": 1,
        "study": study.model_dump(mode="json", exclude=IDLE),
        "environment": _environment(study, choices) | _trained_with(pooled),
        "data": describe([part.samples for part in parts]),
        "teachers": teachers,
        "label_bits": _label_bits(pooled) if "subclass" in teachers else None,
        "arms": arms,
        "comparisons": compare(
            decisions,
            pooled.of_test(lambda samples: samples.class_labels),
            parts[0].samples.positive,
            pairs(list(study.arms)),
            None if parts[0].samples.groups is None else pooled.of_test(lambda samples: samples.groups),
        ),
    }
    measured = facts(study, parts)
    return results | {
        "power": needed(results["comparisons"]),
        "diagnosis": {"facts": measured, "findings": diagnose(results, measured)},
    }


def describe(folds: Sequence[Samples]) -> dict[str, Any]:
    """Give results.json's "data": that of one part, or of folds together.

    Of folds, training and validation counts are those of the first, test counts the sums over all, and "folds" has
    the description of each.
    """
    each = [samples.describe() for samples in folds]
    if len(each) == 1:
        return each[0]
    subclasses = [
        {**row, "test": sum(fold["subclasses"][k]["test"] for fold in each)}
        for k, row in enumerate(each[0]["subclasses"])
    ]
    groups = each[0]["groups"] and {**each[0]["groups"], "test": sum(fold["groups"]["test"] for fold in each)}
    mark = fingerprint(*(fold["fingerprint"] for fold in each))
    return {**each[0], "subclasses": subclasses, "groups": groups, "fingerprint": mark, "folds": each}


class _Pool:
    """The test images of all parts one after the other, and what networks said of them."""

    def __init__(self, study: Study, parts: Sequence[Part]) -> None:
        self.study, self.parts = study, parts

    def of_test(self, column: Callable[[Samples], NDArray[Any] | None]) -> NDArray[Any]:
        """Give the test rows (N,) of a column of the samples."""
        columns = [(column(part.samples), part.samples.test) for part in self.parts]
        return np.concatenate([values[rows] for values, rows in columns if values is not None])

    def test_logits(self, role: str, name: str, seed: int) -> Tensor:
        """Give what a seed's network, one a part, says of the test images: logits (N, outputs)."""
        return torch.cat(
            [store.load(part.out / f"predictions/{role}/{name}-seed{seed}.safetensors")["test"] for part in self.parts]
        )

    def class_log_probs(self, role: str, name: str, seed: int) -> NDArray[np.float64]:
        """Give the same as class log-probabilities (N, C)."""
        return class_log_probs(self.test_logits(role, name, seed), self.parts[0].samples)

    def by_part(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Take what is said of all test images (N, ...) apart again."""
        return np.split(values, np.cumsum([len(part.samples.test) for part in self.parts])[:-1])

    def notes(self, folder: str, name: str) -> list[dict[str, Any]]:
        """Read the notes of each seed's files, part by part."""
        seeds = self.study.seeds
        return [store.notes(part.out / f"{folder}/{name}-seed{s}.safetensors") for s in seeds for part in self.parts]

    def trainings(self, role: str, name: str) -> list[list[dict[str, Any]]]:
        """Read the notes of each seed's training, part by part: of one network, or of each member of a teacher."""
        paths = {
            seed: teacher_paths(self.study, name, seed)
            if role == "teachers"
            else (f"{role}/{name}-seed{seed}.safetensors",)
            for seed in self.study.seeds
        }
        return [[store.notes(part.out / path) for path in paths[s]] for s in self.study.seeds for part in self.parts]


def _network(pooled: _Pool, role: str, name: str) -> dict[str, Any]:
    """Give every metric of one arm or teacher on the test split, summarised over seeds."""
    class_labels = pooled.of_test(lambda samples: samples.class_labels)
    subclass_labels = pooled.of_test(lambda samples: samples.subclass_labels)
    # Shuffled subclasses mean nothing on the test split, and class outputs name none.
    if role == "students":
        names_subclasses = ARMS[name].outputs == "subclass" and not ARMS[name].shuffled
    else:
        names_subclasses = name == "subclass"
    positive = pooled.parts[0].samples.positive
    per_seed: list[dict[str, float | None]] = []
    same_answer = []
    for seed in pooled.study.seeds:
        log_probs = pooled.class_log_probs(role, name, seed)  # (N, C)
        metrics: dict[str, float | None] = dict(class_metrics(np.exp(log_probs), class_labels, positive))
        scores = pooled.test_logits(role, name, seed).log_softmax(-1).numpy()
        metrics["subclass_accuracy"] = subclass_accuracy(scores, subclass_labels) if names_subclasses else None
        by_part = list(zip(pooled.by_part(log_probs), pooled.by_part(class_labels), strict=True))
        if len(by_part) > 1:
            # Scores of two folds' networks are of two scales, so their order between folds means nothing.
            areas = [class_metrics(np.exp(own), labels, positive)["auroc"] for own, labels in by_part]
            metrics["auroc"] = None if None in areas else statistics.mean(area for area in areas if area is not None)
        per_seed.append(metrics)
        same_answer.append(sum(len(np.unique(own.argmax(-1) == positive)) == 1 for own, _ in by_part))
    trainings = pooled.trainings(role, name)
    cost = pooled.notes(f"predictions/{role}", name)[0]  # to run
    return {
        **{metric: summarise([row[metric] for row in per_seed]) for metric in per_seed[0]},
        **{key: value for key, value in cost.items() if key != "made_from"},
        "best_epoch": [_of_members(members, "epoch") for members in trainings],
        "validation_f1": [_of_members(members, "validation_f1") for members in trainings],
        "test_images": len(class_labels),
        "same_answer": same_answer,
        "train_seconds": statistics.mean(sum(note["train_seconds"] for note in members) for members in trainings),
    }


def _of_members(members: list[dict[str, Any]], key: str) -> Any:
    """Give what is noted of a network's best epoch, or a list of it for the members of a teacher."""
    values = [note["best"][key] for note in members]
    return values if len(values) > 1 else values[0]


def _targets(pooled: _Pool, name: str) -> dict[str, Any]:
    """Say in which precision a teacher's targets were made, and how far bfloat16 was off where it was tried."""
    notes = pooled.notes("targets", name)
    differences = [note["bfloat16_difference"] for note in notes if "bfloat16_difference" in note]
    return {
        "precision": [note["precision"] for note in notes],
        "bfloat16_difference": max(differences, default=None),
    }


def class_log_probs(logits: Tensor, samples: Samples) -> NDArray[np.float64]:
    """Give class log-probabilities (N, C) from class or subclass logits, in float64."""
    hierarchy = samples.hierarchy
    if logits.shape[-1] != hierarchy.num_subclasses:
        hierarchy = SubclassHierarchy.identity(hierarchy.classes)
    log_probs: NDArray[np.float64] = hierarchy.class_log_probs(logits.double()).numpy()
    return log_probs


def _label_bits(pooled: _Pool) -> dict[str, Any]:
    """Give the label bits of the subclass teacher, on the images it learned from and on the test split.

    Of folds, test images are pooled as everywhere. Training images are in several, so what a seed's teachers say of
    them is judged fold by fold, and the mean taken.
    """
    hierarchy = pooled.parts[0].samples.hierarchy
    tested = torch.from_numpy(pooled.of_test(lambda samples: samples.subclass_labels))
    estimates: dict[str, list[dict[str, float]]] = {"train": [], "test": []}  # seed by seed
    for seed in pooled.study.seeds:
        log_probs = pooled.test_logits("teachers", "subclass", seed).double().log_softmax(-1)
        estimates["test"].append(label_bits(log_probs, tested, hierarchy)._asdict())
        of_parts = []
        for part in pooled.parts:
            # View 0 is the image itself: the targets hold the teacher's answer to it.
            labels = torch.from_numpy(part.samples.subclass_labels[part.samples.train])
            logits = store.load(part.out / f"targets/subclass-seed{seed}.safetensors")["logits"][0, : len(labels)]
            of_parts.append(label_bits(logits.double().log_softmax(-1), labels, hierarchy))
        estimates["train"].append(
            {name: statistics.mean(getattr(bits, name) for bits in of_parts) for name in LabelBits._fields}
        )
    images = {"train": len(pooled.parts[0].samples.train), "test": len(tested)}
    return {
        split: {
            **{name: statistics.mean(bits[name] for bits in by_seed) for name in LabelBits._fields},
            "images": images[split],
            "over_seeds": {name: summarise([bits[name] for bits in by_seed]) for name in LabelBits._fields},
        }
        for split, by_seed in estimates.items()
    }


def _trained_with(pooled: _Pool) -> dict[str, list[Any]]:
    """List the versions that the networks were trained with, and on how many devices; several where that changed."""
    trainings = [one for arm in pooled.study.arms for one in pooled.trainings("students", arm)]
    trainings += [one for teacher in teachers_of(pooled.study.arms) for one in pooled.trainings("teachers", teacher)]
    notes = [note for members in trainings for note in members]
    return {
        "trained_with": sorted({note["software"] for note in notes if "software" in note}),
        "devices": sorted({note.get("devices", 1) for note in notes}),
    }


def _environment(study: Study, choices: Choices) -> dict[str, Any]:
    fabric = make_fabric(study)
    on_cuda = fabric.device.type == "cuda"
    return {
        "subclass_kd": subclass_kd.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning_fabric": version("lightning_fabric"),
        "timm": version("timm"),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(fabric.device) if on_cuda else fabric.device.type,
        "arithmetic": choices.describe(timings=False),
        "seed_policy": SEED_POLICY,
    }
