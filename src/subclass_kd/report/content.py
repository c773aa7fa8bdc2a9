"""From a run to what the page says: every number and picture, section by section."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from numpy.typing import NDArray

from subclass_kd.arms import ARMS
from subclass_kd.counts import auroc_interval
from subclass_kd.display import cautions, headline
from subclass_kd.errors import UserError
from subclass_kd.report import plots
from subclass_kd.report.folder import Run
from subclass_kd.report.measures import precision_recall, reliability, roc
from subclass_kd.report.points import Choices, operating_points
from subclass_kd.report.tables import confident_errors, confusion, per_subclass, worst
from subclass_kd.wording import of_power

COLUMNS = (
    ("f1", "F1"), ("auroc", "AUROC"), ("sensitivity", "sensitivity"), ("specificity", "specificity"),
    ("brier", "Brier"), ("ece", "ECE"), ("subclass_accuracy", "subclass"),
)  # fmt: skip
SHOWN = 12  # images


def content(run: Run, choices: Choices, images: bool) -> dict[str, Any]:
    """Give everything that the template asks for.

    Args:
        run: a finished one.
        choices: of the operating points.
        images: whether to show images and to name them.
    """
    results, (arm, reference) = run.results, run.pair
    names = [name for name in (arm, reference) if name is not None]
    networks = [("students", name) for name in names]
    if "subclass" in results["teachers"]:
        networks.append(("teachers", "subclass"))
    return {
        "results": results,
        "data": {"folds": None, "groups": None, "votes": None, "image_shape": None, **results["data"]},
        "run": run,
        "by_group": run.groups("test") is not None,
        "arm": arm,
        "reference": reference,
        "headline": headline(results),
        "first": next((r for r in results["comparisons"] if (r["arm"], r["reference"]) == run.pair), None),
        "cautions": cautions(results["arms"]),
        "columns": COLUMNS,
        "asks": {name: ARMS[name].asks if name in ARMS else "" for name in results["arms"]},
        "percent": _percent, "summary": _summary, "points_of": lambda value: f"{100 * value:+.1f}",
        "forest": _forest(run),
        "power": [of_power(row) for row in results.get("power") or []],
        "diagnosis": (results.get("diagnosis") or {}).get("findings"),
        **_curves(run, networks),
        "calibration": [_calibration(run, role, name) for role, name in networks],
        "choices": choices,
        "operating": operating_points(run, arm, choices),
        "confusions": [confusion(run, "students", name, "class") for name in names],
        "subclass_confusion": confusion(run, "students", arm, "subclass"),
        "per_subclass": (subclasses := per_subclass(run, names)),
        "worst": worst(subclasses),
        "bits": _bits(run),
        "similarity": confusion(run, "teachers", "subclass", "similarity") if len(networks) > len(names) else None,
        "training": _training(run),
        "errors": _errors(run, arm, images),
        "images": images,
        "study_yaml": yaml.safe_dump(results["study"], sort_keys=False, allow_unicode=True, width=100),
        "command": f"skd run study.yaml --out {shlex.quote(run.folder.resolve().name)}",
    }  # fmt: skip


def _percent(value: float | None, digits: int = 1) -> str:
    """Write a share in %, "-" where there is none.

    >>> _percent(0.9512), _percent(None)
    ('95.1', '-')
    """
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _summary(row: dict[str, Any], key: str) -> str:
    """Write a metric's mean in % and half of its interval.

    >>> _summary({"f1": {"mean": 0.95, "ci95": [0.94, 0.96]}}, "f1")
    '95.0 ± 1.0'
    """
    summary = row[key]
    if summary["mean"] is None:
        return "-"
    half = f" ± {100 * (summary['ci95'][1] - summary['mean']):.1f}" if summary["ci95"] else ""
    return f"{100 * summary['mean']:.1f}{half}"


def _forest(run: Run) -> dict[str, Any] | None:
    rows = run.results["comparisons"]
    if not rows:
        return None
    ends = [100 * end for row in rows for end in (row["ci95"] or [row["difference"]])] + [-0.5, 0.5]
    room = 0.05 * (max(ends) - min(ends))
    span = (min(ends) - room, max(ends) + room)
    pictures = []
    for number, row in enumerate(rows):
        interval = (100 * row["ci95"][0], 100 * row["ci95"][1]) if row["ci95"] else None
        title = f"{row['arm']} minus {row['reference']}"
        pictures.append(plots.interval(f"forest-{number}", title, 100 * row["difference"], interval, span))
    reasons = dict.fromkeys(row["reason"] for row in rows if row.get("reason"))
    return {"rows": list(zip(rows, pictures, strict=True)), "axis": plots.interval_axis(span), "reasons": list(reasons)}


def _label(role: str, name: str) -> str:
    return f"{name} teacher" if role == "teachers" else name


def _test(run: Run, role: str, name: str, seed: int) -> NDArray[np.float64]:
    return np.concatenate(run.class_probs(role, name, seed, "test"))


def _curves(run: Run, networks: list[tuple[str, str]]) -> dict[str, Any]:
    """Draw ROC and precision-recall of all seeds; of folds the mean of their own, whose scores have their own scale."""
    classes, groups = run.parent[run.labels("test")], run.groups("test")
    truth = classes == run.positive
    ends = np.cumsum([len(part["test"].names) for part in run.listed])
    folds = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # (N,)
    rising: dict[str, NDArray[np.float64]] = {}
    falling: dict[str, NDArray[np.float64]] = {}
    areas = []
    for role, name in networks:
        lines, precisions, areas_below = [], [], []
        for seed in run.seeds:
            parts = [
                (probs[:, run.positive], truth[folds == fold])
                for fold, probs in enumerate(run.class_probs(role, name, seed, "test"))
            ]
            both = [precision_recall(*part) for part in parts]
            lines.append(np.mean([roc(*part) for part in parts], axis=0))
            precisions.append(np.mean([line for line, _ in both], axis=0))
            areas_below.append(float(np.mean([area for _, area in both])))
        rising[_label(role, name)], falling[_label(role, name)] = np.stack(lines), np.stack(precisions)
        best = _test(run, role, name, run.best_seed)
        columns = [run.positive] if len(run.classes) == 2 else list(range(len(run.classes)))
        interval = auroc_interval(best[:, columns], classes[:, None] == columns, groups, folds)
        row = run.results[_KEYS[role]][name]
        value = row["auroc"]["per_seed"][run.seeds.index(run.best_seed)]
        area = {"name": _label(role, name), "row": row, "ap": areas_below, "best": value, "best_ci95": interval}
        areas.append(area)
    share = float(truth.mean())
    return {
        "roc": plots.curves("roc", "ROC curve", ("1 - specificity", "sensitivity"), rising, (0, 1)),
        "pr": plots.curves(
            "pr", "Precision-recall curve", ("sensitivity (recall)", "PPV (precision)"), falling, (share, share)
        ),
        "areas": areas,
        "share": share,
        "test_images": len(truth),
    }


_KEYS = {"students": "arms", "teachers": "teachers"}


def _calibration(run: Run, role: str, name: str) -> dict[str, Any]:
    truth = run.parent[run.labels("test")] == run.positive
    scores = np.concatenate([_test(run, role, name, seed)[:, run.positive] for seed in run.seeds])
    groups, seeds = run.groups("test"), len(run.seeds)
    bins = reliability(scores, np.tile(truth, seeds), None if groups is None else np.tile(groups, seeds), seeds)
    key = f"reliability-{role}-{list(run.results[_KEYS[role]]).index(name)}"
    row = run.results[_KEYS[role]][name]
    picture = plots.calibration(key, _label(role, name), bins)
    return {"name": _label(role, name), "row": row, "bins": bins, "picture": picture}


def _bits(run: Run) -> dict[str, Any] | None:
    found = run.results["label_bits"]
    if not found:
        return None
    shares = np.bincount(run.parent[run.labels("test")], minlength=len(run.classes)) / len(run.labels("test"))
    class_bits = float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    keys = ("mutual_information", "symmetric", "soft", "ceiling")
    rows = [(split, *(row[key] for key in keys)) for split, row in found.items()]
    return {"picture": plots.bits("bits", class_bits, rows), "class_bits": class_bits, "rows": found}


def _training(run: Run) -> list[tuple[str, Markup]]:
    """Draw validation F1 and training loss of students and teachers; what notes do not hold is left out."""
    drawn = []
    for role, title in (("students", "Students"), ("teachers", "Teachers")):
        found = {name: run.histories(role, name) for name in run.results[_KEYS[role]]}
        for key, label in (("validation_f1", "validation F1"), ("loss", "training loss")):
            lines = {name: values for name, rows in found.items() if (values := _together(rows, key)) is not None}
            if lines:
                heading = f"{title}: {label}"
                drawn.append((heading, plots.training(f"training-{role}-{key}", heading, label, lines)))
    return drawn


def _together(histories: list[list[dict[str, float]]], key: str) -> NDArray[np.float64] | None:
    """Stack a value of trainings (trainings, epochs), cut to the shortest; None if one lacks it."""
    shortest = min((len(history) for history in histories), default=0)
    if not shortest or any(epoch.get(key) is None for history in histories for epoch in history):
        return None
    return np.array([[epoch[key] for epoch in history[:shortest]] for history in histories], dtype=np.float64)


def _errors(run: Run, arm: str, images: bool) -> dict[str, Any]:
    """Find the images that the best student gets wrong most confidently, with their pictures if they can be had."""
    probs = _test(run, "students", arm, run.best_seed)
    rows, wrong = confident_errors(run, probs, SHOWN)
    if not images:
        return {"rows": rows, "wrong": wrong, "pictures": {}, "missing": "left out by --no-images"}
    data = run.results["data"]
    marks = [part["fingerprint"] for part in data.get("folds", [data])]
    load: Callable[..., dict[int, str]]
    from subclass_kd.report.thumbnails import thumbnails as load

    try:
        pictures, missing = load(run.parts, marks, [row["number"] for row in rows]), None
    except UserError as error:
        pictures, missing = {}, str(error)
    return {"rows": rows, "wrong": wrong, "pictures": pictures, "missing": missing}
