"""What a bundle states of its student: whose it is, what was fitted on validation images, how it did on test images."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subclass_kd
from subclass_kd import bundle, store
from subclass_kd.bundle_manifest import SCHEMA
from subclass_kd.calibration import calibrated, fit_temperature, log_loss, threshold_for
from subclass_kd.candidates import Candidate, Run
from subclass_kd.counts import Counts, auroc_interval, f1_share, mean_interval, share
from subclass_kd.deployed import OPSET
from subclass_kd.evaluation import class_metrics
from subclass_kd.results import class_log_probs

_DICOM = (
    "DICOM as a viewer first shows it: modality rescaling or table, first window or value-of-interest table, what that "
    "gives out (without either, what the stored bits can hold) to 0 to 255, rounded, MONOCHROME1 inverted"
)


def state(run: Run, students: list[Candidate], rule: str) -> dict[str, Any]:
    """State all of a bundle that follows from a run's files.

    Temperature and threshold are those of the validation logits; metrics are those of the test logits.

    Args:
        run: finished.
        students: of the arm, the one that is exported first.
        rule: for the threshold, as of :func:`subclass_kd.calibration.threshold_for`.

    Returns:
        bundle.json as docs/bundle.md has it, without what is known only when files are made.

    Raises:
        UserError: the predictions are missing or damaged, or the rule is none.
    """
    samples, best = run.samples, students[0]
    logits = store.load(run.folder / best.predictions)
    log_probs = {split: class_log_probs(logits[split], samples) for split in ("validation", "test")}
    labels = {split: samples.class_labels[getattr(samples, split)] for split in log_probs}
    temperature = fit_temperature(log_probs["validation"], labels["validation"])
    probs = {split: calibrated(log_probs[split], temperature) for split in log_probs}
    positive, is_binary = samples.positive, samples.hierarchy.num_classes == 2
    decision: dict[str, Any] = {"rule": "the most probable class", "threshold": None, "validation": None}
    if is_binary:
        truth = labels["validation"] == positive
        threshold, reached = threshold_for(rule, probs["validation"][:, positive], truth)
        decision = {"rule": rule, "threshold": threshold, "validation": reached | {"images": len(truth)}}
    names = [samples.hierarchy.classes[positive]]
    before, after = (class_metrics(p, labels["test"], positive) for p in (np.exp(log_probs["test"]), probs["test"]))
    channels, height, width = run.shape
    data = run.study.data
    return {
        "schema": SCHEMA,
        "arm": best.arm,
        "seed": best.seed,
        "chosen_by": "highest F1 on validation images",
        "candidates": [asdict(student) for student in students],
        "hierarchy": samples.hierarchy.to_dict(),
        "positive": names[0],
        "preprocessing": {
            "channels": channels,
            "height": height,
            "width": width,
            "resize": data.size is not None,
            "white": data.white,
            "said": _preprocessing(run),
        },
        "input": {"name": bundle.INPUT, "type": "uint8", "shape": ["images", channels, height, width]},
        "opset": OPSET,
        "temperature": {
            "value": temperature,
            "validation_images": len(labels["validation"]),
            "validation_log_loss": {
                "before": log_loss(log_probs["validation"], labels["validation"], 1.0),
                "after": log_loss(log_probs["validation"], labels["validation"], temperature),
            },
            "in_graph": True,
        },
        "decision": decision,
        "test": _on_test(run, probs["test"], labels["test"], decision["threshold"])
        | {key: {"before": before[key], "after": after[key]} for key in ("ece", "brier")}
        | {"auroc": after["auroc"]}
        | _intervals(run, probs["test"], labels["test"]),
        "results": {"arm": run.results["arms"][best.arm], "teachers": run.results["teachers"]},
        "data": run.results["data"],
        "study": run.results["study"],
        "int8": None,
        "versions": _versions(),
    }


def _on_test(
    run: Run, probs: NDArray[np.float64], labels: NDArray[np.int64], threshold: float | None
) -> dict[str, Any]:
    """Give metrics of this student's decisions on the test images, with intervals over patients or over images."""
    samples = run.samples
    hierarchy, positive = samples.hierarchy, samples.positive
    decisions = bundle.decide(probs, positive, threshold)
    right = decisions == labels
    is_positive, called = labels == positive, decisions == positive
    subclasses = samples.subclass_labels[samples.test]
    groups = None if samples.groups is None else samples.groups[samples.test]

    def share_of(correct: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
        return share(correct[among], None if groups is None else groups[among])

    rows = [
        {"name": name, "class": hierarchy.classes[parent], "right": share_of(right, subclasses == k)}
        for k, (name, parent) in enumerate(zip(hierarchy.subclasses, hierarchy.parent_indices, strict=True))
    ]
    return {
        "images": len(labels),
        "groups": None if groups is None else len(np.unique(groups)),
        "counts": asdict(Counts.of(is_positive, called)),
        "accuracy": share(right, groups),
        "f1": f1_share(is_positive, called, groups),
        "sensitivity": share_of(called, is_positive),
        "specificity": share_of(~called, ~is_positive),
        "ppv": share_of(is_positive, called),
        "npv": share_of(~is_positive, ~called),
        "subclasses": rows,
    }


def _intervals(run: Run, probs: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Give 95 % intervals of AUROC and of the calibrated Brier score; ECE, which is biased upwards, has none."""
    samples = run.samples
    groups = None if samples.groups is None else samples.groups[samples.test]
    # With two classes the second column repeats the first
    columns = [samples.positive] if samples.hierarchy.num_classes == 2 else list(range(samples.hierarchy.num_classes))
    truth = labels[:, None] == columns  # (N, 1) or (N, C)
    ends = {
        "auroc_ci95": auroc_interval(probs[:, columns], truth, groups),
        "brier_ci95": mean_interval(((probs[:, columns] - truth) ** 2).sum(axis=1), groups),
    }
    return {key: None if pair is None else list(pair) for key, pair in ends.items()}


def _preprocessing(run: Run) -> str:
    channels, height, width = run.shape
    colour = "grey (ITU-R 601-2 luma)" if channels == 1 else "RGB"
    resized = (
        f"resized to {width} x {height} by Pillow's antialiased bilinear filter, without keeping the sides' ratio"
        if run.study.data.size
        else f"not resized: the image must be of {width} x {height} pixels"
    )
    return (
        f"upright by EXIF; transparent pixels over black; 16-bit grey v to min(v, {run.study.data.white}) * 255 / "
        f"{run.study.data.white}; {_DICOM}; {colour}; {resized}; uint8. As subclass_kd.data.images.read_image. "
        "Division by 255, normalisation and, where the student sees another size, its resizing are in the graph."
    )


def _versions() -> dict[str, str]:
    packages = ("numpy", "pillow", "pydicom", "torch", "onnx", "onnxscript", "onnxruntime", "timm")
    return {
        "subclass_kd": subclass_kd.__version__,
        "python": platform.python_version(),
        **{name: found for name in packages if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    """Give a package's version; None of one that is not there, as pydicom where no data are DICOM files."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
