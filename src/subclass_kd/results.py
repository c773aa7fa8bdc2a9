"""From the predictions of a finished run to results.json (schema 1)."""

from __future__ import annotations

import platform
import statistics
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
from subclass_kd.evaluation import class_metrics, subclass_accuracy, summarise
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.information import LabelBits, label_bits

SEED_POLICY = (
    "Each seed s gives weights, order, dropout, views and shuffles generators of their own, derived from s and their "
    "use by SHA-256; arms of a seed share them. The validation split is the same for every seed."
)


def assemble(study: Study, samples: Samples, out: Path, choices: Choices) -> dict[str, Any]:
    """Compute every number of results.json from the files of a run.

    Args:
        study: the resolved study.
        samples: its data.
        out: the run folder, with all files that the plan names.
        choices: how its networks compute.

    Returns:
        Plain values that JSON can hold; metrics are shares, 0 to 1, and None where one is not defined.
    """
    arms = {name: _network(study, samples, out, "students", name) for name in study.arms}
    teachers = {
        name: _network(study, samples, out, "teachers", name) | {"targets": _targets(study, out, name)}
        for name in teachers_of(list(study.arms))
    }
    decisions: dict[str, NDArray[np.int64]] = {
        name: np.stack([class_log_probs(logits, samples).argmax(-1) for logits in _test_logits(study, out, name)])
        for name in study.arms
    }  # (S, N) each
    return {
        "schema": 1,
        "study": study.model_dump(mode="json", exclude={"workers": True, "data": {"store_limit"}}),
        "environment": _environment(study, choices),
        "data": samples.describe(),
        "teachers": teachers,
        "label_bits": _label_bits(study, samples, out) if "subclass" in teachers else None,
        "arms": arms,
        "comparisons": compare(
            decisions,
            samples.class_labels[samples.test],
            samples.positive,
            pairs(list(study.arms)),
            None if samples.groups is None else samples.groups[samples.test],
        ),
    }


def _network(study: Study, samples: Samples, out: Path, role: str, name: str) -> dict[str, Any]:
    """Give every metric of one arm or teacher on the test split, summarised over seeds."""
    class_labels = samples.class_labels[samples.test]
    subclass_labels = samples.subclass_labels[samples.test]
    # Shuffled subclasses mean nothing on the test split, and class outputs name none.
    if role == "students":
        names_subclasses = ARMS[name].outputs == "subclass" and not ARMS[name].shuffled
    else:
        names_subclasses = name == "subclass"
    per_seed: list[dict[str, float | None]] = []
    for seed in study.seeds:
        logits = store.load(out / f"predictions/{role}/{name}-seed{seed}.safetensors")["test"]  # (N, outputs)
        metrics: dict[str, float | None] = dict(
            class_metrics(np.exp(class_log_probs(logits, samples)), class_labels, samples.positive)
        )
        scores = logits.log_softmax(-1).numpy()
        metrics["subclass_accuracy"] = subclass_accuracy(scores, subclass_labels) if names_subclasses else None
        per_seed.append(metrics)
    notes = [store.notes(out / f"{role}/{name}-seed{seed}.safetensors") for seed in study.seeds]
    cost = store.notes(out / f"predictions/{role}/{name}-seed{study.seeds[0]}.safetensors")
    return {
        **{metric: summarise([row[metric] for row in per_seed]) for metric in per_seed[0]},
        **cost,
        "best_epoch": [note["best"]["epoch"] for note in notes],
        "validation_f1": [note["best"]["validation_f1"] for note in notes],
        "test_images": len(samples.test),
        "train_seconds": statistics.mean(note["train_seconds"] for note in notes),
    }


def _targets(study: Study, out: Path, name: str) -> dict[str, Any]:
    """Say in which precision a teacher's targets were made, and how far bfloat16 was off where it was tried."""
    notes = [store.notes(out / f"targets/{name}-seed{seed}.safetensors") for seed in study.seeds]
    differences = [note["bfloat16_difference"] for note in notes if "bfloat16_difference" in note]
    return {
        "precision": [note["precision"] for note in notes],
        "bfloat16_difference": max(differences, default=None),
    }


def _test_logits(study: Study, out: Path, name: str) -> list[Tensor]:
    return [store.load(out / f"predictions/students/{name}-seed{seed}.safetensors")["test"] for seed in study.seeds]


def class_log_probs(logits: Tensor, samples: Samples) -> NDArray[np.float64]:
    """Give class log-probabilities (N, C) from class or subclass logits, in float64."""
    hierarchy = samples.hierarchy
    if logits.shape[-1] != hierarchy.num_subclasses:
        hierarchy = SubclassHierarchy.identity(hierarchy.classes)
    log_probs: NDArray[np.float64] = hierarchy.class_log_probs(logits.double()).numpy()
    return log_probs


def _label_bits(study: Study, samples: Samples, out: Path) -> dict[str, Any]:
    """Give the label bits of the subclass teacher, on the images it learned from and on the test split."""
    labels = torch.from_numpy(samples.subclass_labels)
    estimates: dict[str, list[LabelBits]] = {"train": [], "test": []}
    for seed in study.seeds:
        # View 0 is the image itself: the targets hold the teacher's answer to it.
        on_train = store.load(out / f"targets/subclass-seed{seed}.safetensors")["logits"][0]
        on_test = store.load(out / f"predictions/teachers/subclass-seed{seed}.safetensors")["test"]
        for split, logits, rows in (("train", on_train, samples.train), ("test", on_test, samples.test)):
            log_probs = logits.double().log_softmax(-1)
            estimates[split].append(label_bits(log_probs, labels[torch.from_numpy(rows)], samples.hierarchy))
    return {
        split: {
            **{name: statistics.mean(getattr(bits, name) for bits in by_seed) for name in LabelBits._fields},
            "images": len(samples.train if split == "train" else samples.test),
            "over_seeds": {name: summarise([getattr(bits, name) for bits in by_seed]) for name in LabelBits._fields},
        }
        for split, by_seed in estimates.items()
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
