"""Tables of a report that need the predictions: confusion matrices, subclasses, the most confident errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subclass_kd.arms import ARMS
from subclass_kd.counts import share_interval
from subclass_kd.report import plots
from subclass_kd.report.folder import Run

Level = Literal["class", "subclass", "similarity"]


def confusion(run: Run, role: str, name: str, level: Level) -> dict[str, Any] | None:
    """Hold predictions against the truth on the test images, mean over seeds.

    Args:
        run: a finished one.
        role: "students" or "teachers".
        name: of the arm or teacher.
        level: "class" or "subclass" counts decisions; "similarity" takes the mean predicted probabilities.

    Returns:
        ``names`` (R), ``shares`` (R, R) of the images of each true class or subclass, ``images`` of each, ``picture``,
        ``order`` of the rows that it shows and how many are ``left_out``; None of a network without subclasses.
    """
    shuffled = role == "students" and (name not in ARMS or ARMS[name].shuffled)
    truth = run.labels("test")
    if level == "class":
        names, truth = run.classes, run.parent[truth]
    else:
        names = run.subclasses
    sums = np.zeros((len(names), len(names)))
    for seed in run.seeds:
        answer = run.class_probs if level == "class" else run.subclass_probs
        probs = np.concatenate(answer(role, name, seed, "test"))
        if probs.shape[1] != len(names) or (level != "class" and (shuffled or _knows_classes(role, name))):
            return None
        np.add.at(sums, truth, probs if level == "similarity" else np.eye(len(names))[probs.argmax(-1)])
    images = np.bincount(truth, minlength=len(names))
    shares = sums / np.maximum(images, 1)[:, None] / len(run.seeds)
    order = np.arange(len(names)) if level == "class" else np.argsort(run.parent, kind="stable")
    shown = _worth_showing(shares, order)
    borders = [] if level == "class" else (np.flatnonzero(np.diff(run.parent[shown])) + 1).tolist()
    titles = {
        "class": f"Confusion matrix of {name}: classes",
        "subclass": f"Confusion matrix of {name}: subclasses",
        "similarity": "What the subclass teacher predicts for each true subclass",
    }
    labels = [names[k] for k in shown]
    picture = plots.matrix(f"{level}-{name}", titles[level], shares[np.ix_(shown, shown)], labels, labels, borders)
    return {
        "name": name, "names": names, "shares": shares, "images": images, "order": shown.tolist(),
        "picture": picture, "left_out": len(names) - len(shown), "title": titles[level],
    }  # fmt: skip


def _knows_classes(role: str, name: str) -> bool:
    return name != "subclass" if role == "teachers" else ARMS[name].outputs == "class"


def _worth_showing(shares: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out the rows that come out best where there are too many to read."""
    if len(order) <= plots.MOST:
        return order
    kept = set(np.argsort(np.diagonal(shares), kind="stable")[: plots.MOST].tolist())
    return np.array([k for k in order.tolist() if k in kept], dtype=np.int64)


def per_subclass(run: Run, names: Sequence[str]) -> list[dict[str, Any]]:
    """Say how often each arm puts the images of each subclass into the right class.

    Returns:
        For each subclass, class by class: ``name``, ``class``, ``images`` (n on the test split), ``positive``, and
        ``arms``: for each arm ``mean`` over seeds, ``range`` of seeds and ``ci95`` (over patients where these are
        known, else over images; perhaps None), or None.
    """
    labels, groups = run.labels("test"), run.groups("test")
    truth = run.parent[labels]
    right = {
        name: np.stack(
            [np.concatenate(run.class_probs("students", name, seed, "test")).argmax(-1) == truth for seed in run.seeds]
        )
        for name in names
    }  # (S, N) each
    rows = []
    for k in np.argsort(run.parent, kind="stable").tolist():
        here = labels == k
        n = int(here.sum())
        of_arms: list[dict[str, Any] | None] = []
        for name in names:
            if not n:
                of_arms.append(None)
                continue
            each = right[name][:, here]
            shares, interval = each.mean(-1), share_interval(each.mean(0), None if groups is None else groups[here])
            ends = (float(shares.min()), float(shares.max()))
            of_arms.append({"mean": float(shares.mean()), "range": ends, "ci95": interval})
        row = {"name": run.subclasses[k], "class": run.classes[run.parent[k]], "images": n, "arms": of_arms}
        rows.append(row | {"positive": run.parent[k] == run.positive})
    return rows


def worst(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Give the subclass that the first arm gets right least often."""
    known = [row for row in rows if row["arms"][0] is not None]
    return min(known, key=lambda row: row["arms"][0]["mean"], default=None)


def confident_errors(run: Run, probs: NDArray[np.float64], most: int) -> tuple[list[dict[str, Any]], int]:
    """Find the test images whose wrong class a network is surest of.

    Args:
        run: a finished one.
        probs: (N, C) class probabilities.
        most: how many to give.

    Returns:
        Those images, surest first (``number``, ``sample``, ``subclass``, ``class``, ``called``, ``probability``), and
        how many are wrong in all.
    """
    labels = run.labels("test")
    called = probs.argmax(-1)
    wrong = np.flatnonzero(called != run.parent[labels])
    sure = wrong[np.argsort(-probs[wrong, called[wrong]], kind="stable")][:most]
    samples = run.names("test")
    rows = [
        {
            "number": n,
            "sample": samples[n],
            "subclass": run.subclasses[labels[n]],
            "class": run.classes[run.parent[labels[n]]],
            "called": run.classes[called[n]],
            "probability": float(probs[n, called[n]]),
        }
        for n in sure.tolist()
    ]
    return rows, len(wrong)
