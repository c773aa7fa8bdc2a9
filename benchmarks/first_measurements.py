"""The measurements that this project began with, once more and with more seeds: were they effects, or chance?

    python -m benchmarks.first_measurements --runs FOLDER [--seeds N] [--workers N] [--chest FOLDER]
        [--json docs/evidence/first-measurements.json]

Two observations, each of a few seeds, stood at the beginning: on the X-rays a light student gained at temperature 1 and
no longer at 4, and on digits (odd against even, ten subclasses) a student whose last layer has 8 units lost with every
arm that has subclasses, where one with 32 gained. Here are studies like those: what is told of the recipe is as told,
the rest as in benchmarks.diagnosis. A table of docs/evidence.md says, with intervals, what is left of each.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.diagnosis import RECIPE, study_of, write_images
from benchmarks.evidence_markdown import difference_cells
from benchmarks.evidence_runs import Finished, compare_arms, run
from benchmarks.evidence_tables import STUDIES
from benchmarks.machine import describe_machine
from subclass_kd.config import Study
from subclass_kd.files import write_json
from subclass_kd.study_file import load_study

SEEDS = 10  # planned
FIRST_SEEDS = 4  # that the first measurements had
ARMS = ("scratch", "subclass-labels", "kd", "skd")
PAIRS = (("skd", "scratch"), ("skd", "kd"), ("subclass-labels", "scratch"))
XRAYS = (  # the official split, a student of 1,566 parameters, 30 short epochs
    "data.folds=null",
    "student.options={width: 4}",
    "student.epochs=30",
    "student.learning_rate=0.01",
    "distillation.hard_target=subclass",
)


@dataclass(frozen=True)
class Measurement:
    """One observation, as it was told, and the settings in which its study differs.

    Args:
        told: what `skd` did, of few seeds.
        lender: the study that trains the same teachers.
        settings: ``--set`` options.
    """

    told: str
    lender: str
    settings: tuple[str, ...]

    @property
    def xrays(self) -> bool:
        """Whether it is about the X-rays, or about digits."""
        return self.lender.startswith("X-rays")


MEASUREMENTS = {
    "X-rays, temperature 1": Measurement(
        "+2.1 over `scratch`, +1.1 over `kd`", "X-rays, temperature 1", (*XRAYS, "distillation.temperature=1")
    ),
    "X-rays, temperature 4": Measurement(
        "no gain", "X-rays, temperature 1", (*XRAYS, "distillation.temperature=4")
    ),
    "digits, 8 units": Measurement("2 points lost", "digits, 8 units", ("student.options.width=2",)),
    "digits, 32 units": Measurement("a gain", "digits, 8 units", ("student.options.width=8",)),
}  # fmt: skip


def slug(name: str) -> str:
    """Make a folder's name of a measurement's.

    >>> slug("X-rays, temperature 1")
    'x-rays-temperature-1'
    """
    return name.lower().replace(",", "").replace(" ", "-")


def study(name: str, options: Any) -> Study:
    """Give the study of a measurement."""
    each = MEASUREMENTS[name]
    shared = [f"arms=[{', '.join(ARMS)}]", f"seeds={options.seeds}", f"workers={options.workers}", *options.set]
    if each.xrays:
        return load_study(STUDIES / "chest_xray.yaml", [f"data.root={options.chest}", *each.settings, *shared])
    return study_of("digits", options.runs, options.seeds, [*each.settings, *shared])


def measure(name: str, options: Any) -> tuple[dict[str, Any], Finished]:
    """Run the study of a measurement, and give each arm's F1 and the differences, and the run."""
    lender = options.runs / slug(MEASUREMENTS[name].lender)
    kept = options.json.parent / f"seeds/{options.json.stem}-{slug(name)}.json"
    done = run(study(name, options), options.runs / slug(name), [lender] if lender.exists() else [], kept)
    images = done.results["data"]["subclasses"]
    decided = {arm: done.decided(arm) for arm in ARMS}
    row = {
        "parameters": done.results["arms"]["scratch"]["parameters"],
        "seeds": len(done.study.seeds),
        "images": {split: sum(row[split] for row in images) for split in ("train", "validation", "test")},
        "f1": {arm: done.results["arms"][arm]["f1"]["mean"] for arm in ARMS},
        "per_seed": {arm: done.results["arms"][arm]["f1"]["per_seed"] for arm in ARMS},
        "teacher": done.results["teachers"]["subclass"]["f1"]["mean"],
        "differences": compare_arms(decided, done.labels, done.positive, PAIRS, done.groups)["f1"],
        "named": [finding["kind"] for finding in done.results["diagnosis"]["findings"]],
    }
    return row, done


def by_temperature(runs: dict[str, Finished]) -> dict[str, Any]:
    """Give the difference of the two temperatures' `skd`, over the same seeds and test images."""
    names = [name for name in MEASUREMENTS if MEASUREMENTS[name].xrays]
    cool = runs[names[0]]
    both = set.intersection(*(set(runs[name].study.seeds) for name in names))
    rows = [[seed in both for seed in runs[name].study.seeds] for name in names]
    decided = {name: runs[name].decided("skd")[keep] for name, keep in zip(names, rows, strict=True)}
    pair = (names[0], names[1])
    [row] = compare_arms(decided, cool.labels, cool.positive, [pair], cool.groups)["f1"]
    return row


def by_chance(row: dict[str, Any], arm: str, reference: str) -> float:
    """Give half of the 95 % interval, over seeds alone, that as few seeds as at first have.

    >>> row = {"per_seed": {"skd": [0.91, 0.89, 0.9], "kd": [0.9, 0.9, 0.9]}}
    >>> round(by_chance(row, "skd", "kd"), 4)  # Student's 3.182 standard errors of four seeds that spread by 0.01
    0.0159
    """
    gaps = np.subtract(row["per_seed"][arm], row["per_seed"][reference])
    return float(stats.t.ppf(0.975, FIRST_SEEDS - 1) * gaps.std(ddof=1) / math.sqrt(FIRST_SEEDS))


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Give a line for each measurement."""
    heads = ["study", *(f"`{arm}`" for arm in ARMS), "subclass teacher", "`skd` as first told"]
    heads += [f"`{arm}` - `{reference}`" for arm, reference in PAIRS]
    heads.append(f"± of {FIRST_SEEDS} seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [name, *(f"{100 * row['f1'][arm]:.1f}" for arm in ARMS), f"{100 * row['teacher']:.1f}"]
        cells.append(MEASUREMENTS[name].told)
        for points, interval, *_ in map(difference_cells, row["differences"]):
            cells.append(f"{points} ({interval})")
        cells.append(f"{100 * by_chance(row, 'skd', 'scratch'):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section(path: Path) -> list[str]:
    """Give the section of docs/evidence.md."""
    parts = ["## The first measurements, once more"]
    if not path.exists():
        return [*parts, "Not yet run: `python -m benchmarks.first_measurements --runs FOLDER`."]
    report = json.loads(path.read_text("utf-8"))
    rows = report["rows"]
    seeds = min(row["seeds"] for row in rows.values())
    images = {"X-rays": rows["X-rays, temperature 1"]["images"], "digits": rows["digits, 8 units"]["images"]}
    counted = "; ".join(
        f"{name}: {each['train']:,} images to train, {each['validation']:,} to validate, {each['test']:,} to test"
        for name, each in images.items()
    )
    return [
        *parts,
        f"    {report['command']} --runs FOLDER --chest FOLDER",
        f"What this project began with was seen in few seeds: {FIRST_SEEDS} on the X-rays. Studies like those, n = "
        f"{seeds} seeds{'' if seeds >= SEEDS else f' of {SEEDS} planned: **interim**'}. {counted}. The X-rays are in "
        "their official split, the digits scikit-learn's, odd against even; units are those of the student's last "
        "layer. F1 in %, differences in points with their 95 % interval over seeds and test images, not corrected for "
        f"the number of rows. The last column is half of the interval of `skd` - `scratch` that {FIRST_SEEDS} seeds "
        f"have, by the spread of these, test images not counted. {report['machine']}.",
        markdown(rows),
        left_of_it(report),
    ]


def left_of_it(report: dict[str, Any]) -> str:
    """Say of each measurement whether skd gains or loses by its interval, what the tool names, and of temperature."""
    lines = []
    for name, row in report["rows"].items():
        said = [f"{judged(each)} `{each['reference']}`" for each in row["differences"][:2]]
        named = ", ".join(row["named"]) or "nothing"
        lines.append(
            f"- {name}, first told as {MEASUREMENTS[name].told}: `skd` {', '.join(said)}. "
            f"The [diagnosis](diagnosis.md) names: {named}."
        )
    points, interval, *_ = difference_cells(report["temperatures"])
    lines.append(f"- `skd` at temperature 1 {judged(report['temperatures'])} that at 4: {points} ({interval}).")
    return "\n".join(lines)


def judged(row: dict[str, Any]) -> str:
    """Say what a difference shows.

    >>> judged({"ci95": [0.01, 0.02]}), judged({"ci95": [-0.01, 0.02]}), judged({"ci95": None})
    ('gains over', 'cannot be told from', 'cannot be told from')
    """
    low, high = row["ci95"] or (-math.inf, math.inf)
    return "gains over" if low > 0 else "loses to" if high < 0 else "cannot be told from"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--chest", type=Path, default=Path("../shared/data/chest_xray"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, default=Path("docs/evidence/first-measurements.json"))
    return parser.parse_args(given)


def main() -> None:
    options = arguments()
    options.runs.mkdir(parents=True, exist_ok=True)
    write_images(options.runs)
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, Finished] = {}
    for name in MEASUREMENTS:
        rows[name], runs[name] = measure(name, options)
        print(name, json.dumps(rows[name]["f1"]), flush=True)
    command = f"python -m benchmarks.first_measurements --seeds {options.seeds}"
    report = {"command": command, "machine": describe_machine(), "digits_recipe": RECIPE}
    report |= {"rows": rows, "temperatures": by_temperature(runs)}
    write_json(options.json, report)
    print(markdown(rows), left_of_it(report), sep="\n\n")


if __name__ == "__main__":
    main()
