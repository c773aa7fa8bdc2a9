"""Does the teacher's information about subclasses predict what distilling them gains? Many doses on the same images.

    python -m benchmarks.dose_response --runs FOLDER --fashion FOLDER [--seeds N] [--minutes M] [--workers N]
        [--json docs/evidence/dose-response.json]
    python -m benchmarks.dose_response --again    # the correlations once more, of the points that the JSON has

Fashion-MNIST as 2x5 (benchmarks/studies/fashion_2x5.yaml); only the official training file is read: its first images of
each label train and validate, its last 500 of each stand in for a test split. A point is a study of `skd` and
`subclass-labels`; its reference is a study of `scratch` and `kd` on the same images, with the same schedule, and for
`kd` a teacher as long trained. Points differ in the subclasses that are known (the five labels of each class merged to
1 to 5, by meaning or at random, or five that mean nothing), in the teacher's epochs, and in the number of training
images.

The gain of `skd` is set against each estimator of the teacher's label bits (subclass_kd.information), on the images
that it learned from and on held-out ones, and against two simpler predictors: how many bits there are to know (H(S|C)),
and by how much the subclass teacher leads `scratch`. Spearman's and Kendall's rank correlation, each with a 95 %
percentile interval of 10,000 bootstrap samples of points. Points share images, seeds and references, so they are not
independent: the interval tells how much hangs on single points, not what another data set would give. The `kd` of a
point whose teacher stopped early has a teacher that stopped early too, unlike all others: correlations are given with
and without these points. `subclass-labels` has no teacher: a student of it that several points share counts once.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from benchmarks.evidence_runs import Finished, compare_arms, run
from benchmarks.evidence_tables import STUDIES
from benchmarks.machine import describe_machine
from subclass_kd.data.fashion_mnist import NAMES, read_idx
from subclass_kd.files import whole, write_json
from subclass_kd.study_file import load_study

STUDY = STUDIES / "fashion_2x5.yaml"
HELD_OUT = 500  # images a label
SEEDS = 5  # planned
BY_MEANING = {  # subclasses a class -> the labels of each class, merged
    2: [[(0, 2, 4), (1, 3)], [(6, 8), (5, 7, 9)]],
    3: [[(0, 2, 4), (1,), (3,)], [(6,), (8,), (5, 7, 9)]],
    4: [[(0,), (2, 4), (1,), (3,)], [(6,), (8,), (5,), (7, 9)]],
}
EPOCHS = {500: (40, 80), 2000: (20, 40), 8000: (8, 16)}  # images -> epochs of teacher and student
ESTIMATORS = ("symmetric", "mutual_information", "soft")
PREDICTORS = (
    *(f"{name}, {split}" for split in ("train", "test") for name in ESTIMATORS),
    "ceiling",
    "teacher's lead",
)
GAINS = ("skd - kd", "skd - scratch", "subclass-labels - scratch")


@dataclass(frozen=True)
class Point:
    """One dose: which subclasses are known, how long the teacher learned, on how many images."""

    name: str
    merge: tuple[tuple[int, ...], ...] | None  # label -> None: five subclasses a class that mean nothing
    images: int = 2000
    teacher_epochs: int | None = None

    @property
    def reference(self) -> str:
        """The study that it is compared with."""
        return f"reference-{self.images}" + (f"-teacher-{self.teacher_epochs}" if self.teacher_epochs else "")


def points() -> list[Point]:
    """List the points, those first that differ most.

    >>> len(points()) >= 12, len({point.name for point in points()}) == len(points())
    (True, True)
    """
    singles = tuple((label,) for label in range(10))
    random = np.random.Generator(np.random.Philox(5))
    at_random = [
        Point(f"{count} at random, {letter}", _merge_at_random(count, random)) for letter in "ab" for count in (2, 3, 4)
    ]
    by_meaning = [
        Point(f"{count} by meaning", tuple(part for parts in merge for part in parts))
        for count, merge in BY_MEANING.items()
    ]
    # Chance may hit what is meant: then there is nothing new to run.
    meant = {frozenset(point.merge or ()) for point in by_meaning}
    at_random = [point for point in at_random if frozenset(point.merge or ()) not in meant]
    return [
        Point("5: all labels", singles),
        Point("1: no subclasses", (tuple(range(5)), tuple(range(5, 10)))),
        Point("5 that mean nothing", None),
        *by_meaning,
        *at_random,
        Point("5, teacher of 1 epoch", singles, teacher_epochs=1),
        Point("5, teacher of 4 epochs", singles, teacher_epochs=4),
        Point("5, 500 images", singles, 500),
        Point("2 by meaning, 500 images", by_meaning[0].merge, 500),
        Point("5, 8,000 images", singles, 8000),
        Point("2 by meaning, 8,000 images", by_meaning[0].merge, 8000),
    ]


def _merge_at_random(count: int, random: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Cut each class's five labels into ``count`` parts of sizes as equal as can be."""
    return tuple(
        tuple(sorted(int(label) for label in part))
        for labels in (np.arange(5), np.arange(5, 10))
        for part in np.array_split(random.permutation(labels), count)
    )


def subclass_of(point: Point, label: int, row: int) -> str:
    """Name the subclass of an image: its merged labels, or one of five by its number."""
    if point.merge is None:
        return f"{'low' if label < 5 else 'high'} {row % 5}"
    return " + ".join(NAMES[each] for each in next(part for part in point.merge if label in part))


def write_images(fashion: Path, folder: Path) -> dict[str, list[tuple[str, int]]]:
    """Write the images as PNG files, unless they are there, and list (name, label) of each split, labels in turn."""
    path = next(path for path in (fashion / f"train-images-idx3-ubyte{end}" for end in ("", ".gz")) if path.exists())
    labels = read_idx(path.with_name(path.name.replace("images-idx3", "labels-idx1")), 1)
    images = read_idx(path, 3)
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)  # a few are there twice
    rows = [np.intersect1d(np.flatnonzero(labels == label), first) for label in range(10)]
    most = max(EPOCHS) // 10
    kept = {"train": [each[:most] for each in rows], "test": [each[-HELD_OUT:] for each in rows]}
    listed = {
        split: [(int(row), label) for turn in zip(*parts, strict=True) for label, row in enumerate(turn)]
        for split, parts in kept.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for row, _ in (each for split in listed.values() for each in split):
        if not (file := folder / f"{row:05}.png").exists():
            Image.fromarray(images[row]).save(file)
    return {split: [(f"{row:05}.png", label) for row, label in each] for split, each in listed.items()}


def write_table(point: Point, listed: dict[str, list[tuple[str, int]]], path: Path) -> None:
    """Write a point's table: the splits are the same whatever the subclasses are."""
    train = listed["train"][: point.images]
    validation = len(train) // 5
    parts = {"validation": train[:validation], "train": train[validation:], "test": listed["test"]}
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class", "subclass", "split"])
        for split, rows in parts.items():
            for row, (name, label) in enumerate(rows):
                class_ = "labels 0-4" if label < 5 else "labels 5-9"
                writer.writerow([name, class_, subclass_of(point, label, row // 10), split])


def run_study(
    point: Point, arms: Sequence[str], name: str, listed: dict[str, Any], seeds: int, options: Any
) -> Finished:
    """Run the study of a point, or of its reference."""
    table = options.runs / "tables" / f"{name}.csv"
    write_table(point, listed, table)
    teacher, student = EPOCHS[point.images]
    settings = [
        "data.kind=table", f"data.table={table}", f"data.root={options.runs / 'images'}", "hierarchy=null",
        "teacher.options={width: 16}", f"teacher.epochs={point.teacher_epochs or teacher}",
        f"student.epochs={student}", f"arms=[{', '.join(arms)}]", f"seeds={seeds}", f"workers={options.workers}",
        *options.set,
    ]  # fmt: skip
    kept = options.json.parent / f"seeds/dose-response-{name}.json"
    return run(load_study(STUDY, settings), options.runs / name, kept=kept)


def measure(point: Point, listed: dict[str, Any], seeds: int, options: Any) -> dict[str, Any]:
    """Give a point's gains, with intervals over seeds and images, and what might predict them."""
    plain = Point("reference", (tuple(range(5)), tuple(range(5, 10))), point.images, point.teacher_epochs)
    reference = run_study(plain, ["scratch", "kd"], point.reference, listed, seeds, options)
    name = "".join(letter if letter.isalnum() else "-" for letter in point.name)
    own = run_study(point, ["subclass-labels", "skd"], name, listed, seeds, options)
    both = set(reference.study.seeds) & set(own.study.seeds)
    decided = {
        arm: one.decided(arm)[[seed in both for seed in one.study.seeds]]
        for one in (reference, own)
        for arm in one.study.arms
    }
    pairs = [tuple(gain.split(" - ")) for gain in GAINS]
    rows = compare_arms(decided, own.labels, own.positive, pairs, None)["f1"]
    bits = own.results["label_bits"]
    scratch, teacher = reference.results["arms"]["scratch"], own.results["teachers"]["subclass"]
    predictors = {f"{each}, {split}": bits[split][each] for split in ("train", "test") for each in ESTIMATORS}
    predictors |= {"ceiling": bits["train"]["ceiling"], "teacher's lead": teacher["f1"]["mean"] - scratch["f1"]["mean"]}
    networks = {
        **{arm: one.results["arms"][arm]["f1"] for one in (reference, own) for arm in one.study.arms},
        "teacher: class": reference.results["teachers"]["class"]["f1"],
        "teacher: subclass": teacher["f1"],
    }
    return {
        "images": point.images,
        "seeds": len(both),
        "test_images": len(own.labels),
        "gains": dict(zip(GAINS, rows, strict=True)),
        "predictors": predictors,
        "teacher_accuracy": {split: bits[split]["accuracy"] for split in ("train", "test")},
        "f1": networks,
    }


def correlate(predictor: NDArray[np.float64], gain: NDArray[np.float64], samples: int = 10_000) -> dict[str, Any]:
    """Give Spearman's and Kendall's rank correlation of points, each with a percentile interval over points.

    Samples in which one of the two is constant have no correlation and are left out.

    >>> correlate(np.arange(12.0), np.arange(12.0) ** 2, samples=200)["spearman"]
    {'value': 1.0, 'ci95': [1.0, 1.0]}
    """
    random = np.random.Generator(np.random.Philox(0))
    rows = random.integers(len(gain), size=(samples, len(gain)))
    rows = rows[[len(set(predictor[each])) > 1 and len(set(gain[each])) > 1 for each in rows]]
    drawn = {"spearman": spearman(predictor[rows], gain[rows]), "kendall": kendall(predictor[rows], gain[rows])}
    whole_ = {"spearman": spearman(predictor[None], gain[None]), "kendall": kendall(predictor[None], gain[None])}
    return {
        name: {
            "value": round(float(whole_[name][0]), 6),
            "ci95": [round(float(end), 6) for end in np.percentile(values, [2.5, 97.5])],
        }
        for name, values in drawn.items()
    }


def spearman(first: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the correlation (B,) of the ranks, ties at their mean rank, of each row of (B, P)."""
    ranks = [stats.rankdata(values, axis=1) for values in (first, other)]
    centred = [each - each.mean(1, keepdims=True) for each in ranks]
    norms = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    correlation: NDArray[np.float64] = (centred[0] * centred[1]).sum(1) / norms
    return correlation


def kendall(first: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give tau-b (B,) of each row of (B, P): pairs in the same order less those in the other, corrected for ties."""
    lower = np.tril_indices(first.shape[1], -1)
    signs = [np.sign(values[:, lower[0]] - values[:, lower[1]]) for values in (first, other)]  # (B, pairs)
    norms = np.sqrt((signs[0] ** 2).sum(1) * (signs[1] ** 2).sum(1))
    tau: NDArray[np.float64] = (signs[0] * signs[1]).sum(1) / norms
    return tau


def counted(names: Collection[str], gain: str, early_stopped: bool = True) -> list[str]:
    """Name the points that a correlation is over: no student twice, and early-stopped teachers only if asked for.

    >>> names = [point.name for point in points()]
    >>> len(names) - len(counted(names, "skd - kd")), len(names) - len(counted(names, "skd - kd", False))
    (0, 2)
    >>> len(names) - len(counted(names, "subclass-labels - scratch"))  # these two have no student of their own
    2
    """
    known = [point for point in points() if point.name in names]
    if not early_stopped or gain.startswith("subclass-labels"):
        known = [point for point in known if point.teacher_epochs is None]
    return [point.name for point in known]


def correlations(measured: dict[str, Any], early_stopped: bool = True) -> dict[str, Any]:
    """Give gain -> predictor -> rank correlations over the points that are counted."""
    found: dict[str, Any] = {}
    for gain in GAINS:
        rows = [measured[name] for name in counted(measured, gain, early_stopped)]
        gains = np.array([row["gains"][gain]["difference"] for row in rows])
        found[gain] = {
            name: correlate(np.array([row["predictors"][name] for row in rows]), gains) for name in PREDICTORS
        }
    return found


def judged(measured: dict[str, Any]) -> dict[str, Any]:
    """Give the correlations with and without early-stopped teachers, if there are points enough."""
    if len(measured) < 3:
        return {"correlations": {}, "correlations_without_early_stopped": {}}
    return {
        "correlations": correlations(measured),
        "correlations_without_early_stopped": correlations(measured, early_stopped=False),
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--again", action="store_true", help="train nothing: only the correlations, of --json's points")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, default=Path("docs/evidence/dose-response.json"))
    options = parser.parse_args(given)
    if not options.again and (options.runs is None or options.fashion is None):
        parser.error("--runs, --fashion: both folders are needed, but for --again")
    return options


def main() -> None:
    options = arguments()
    if options.again:
        report = json.loads(options.json.read_text("utf-8"))
        write_json(options.json, report | judged(report["points"]))
        return
    deadline = time.monotonic() + 60 * options.minutes
    listed = write_images(options.fashion, options.runs / "images")
    command = f"python -m benchmarks.dose_response --seeds {options.seeds}"
    report = {"command": command, "planned_seeds": SEEDS}
    measured: dict[str, Any] = {}
    for seeds in [number for number in (2, 3) if number < options.seeds] + [options.seeds]:
        for point in points():
            if time.monotonic() > deadline:
                return
            measured[point.name] = measure(point, listed, seeds, options)
            gains = {gain: f"{100 * row['difference']:+.2f}" for gain, row in measured[point.name]["gains"].items()}
            print(f"{seeds} seeds, {point.name}: {gains}", flush=True)
            write_json(options.json, {**report, "machine": describe_machine(), "points": measured, **judged(measured)})
    for gain, rows in correlations(measured).items():
        for name, row in rows.items():
            low, high = row["spearman"]["ci95"]
            print(f"{gain:26} {name:26} {row['spearman']['value']:+.2f} ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
