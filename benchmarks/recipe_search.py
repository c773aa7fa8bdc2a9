"""The best settings of every arm, searched for with the same effort, on images that are kept out of a test.

    python -m benchmarks.recipe_search --runs FOLDER [--trials N] [--keep N] [--seeds N] [--minutes M] [--workers N]
        [--chest FOLDER | --fashion FOLDER] [--images N] [--json FILE]

With --fashion: of Fashion-MNIST as 2x5 (benchmarks/studies/fashion_2x5.yaml) only the official training file is read.
Its first --images, of all labels alike, train and validate; the last 1,000 of each label stand in for a test split.

Else of the X-rays, nested: the images that folds 0 and 1 of benchmarks/studies/chest_xray.yaml test are left out, and
of the others three parts in ten (of whole patients) stand in for a test split. What is chosen here is then reported in
two ways: on all five folds, three of which test images that took part in this search, and on folds 0 and 1 alone, which
it never saw.

Trials are scored on what stands in for the test. The validation split, a fifth of the training images, chooses each
network's epoch as in any study; trials are not judged by it, since the best of many epochs, and then of many trials, on
the same few images would flatter the arms that vary most.

A trial is one draw of all settings below, for all arms at once, so that every arm has as many trials as any other. What
does not concern an arm is not drawn for it, so two trials may be the same for it: how many are distinct is told.
Of each setting every level is drawn equally often in each dozen of trials. After --trials with one seed, the --keep
best of each arm are given --seeds in all; the best has the highest mean F1.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo_recipe import write_folder
from benchmarks.evidence_runs import run
from benchmarks.evidence_tables import STUDIES, UNSEEN_FOLDS
from benchmarks.machine import describe_machine
from subclass_kd.data.findings import Findings
from subclass_kd.data.rows import Rows
from subclass_kd.data.samples import resolve_rows
from subclass_kd.files import whole, write_json
from subclass_kd.study_file import load_study

STUDY, FASHION_STUDY = STUDIES / "chest_xray.yaml", STUDIES / "fashion_2x5.yaml"
JSON = Path("docs/evidence/recipe-search.json")
FASHION_JSON = Path("docs/evidence/recipe-search-fashion.json")
ARMS = ("scratch", "subclass-labels", "kd", "skd")
TEACHERS = (  # each level is several options; what it costs is in the table
    ("teacher.epochs=12",),
    ("teacher.epochs=4",),  # stopped early: less sure of its training images
    ("teacher.epochs=12", "teacher.members=3"),
    ("teacher.epochs=12", "teacher.members=3", "teacher.cross_fit=true"),  # after Dao et al. 2021, arXiv:2104.09732
    ("teacher.epochs=12", "teacher.options={width: 32}"),
    (  # benchmarks/imagenet.py: has seen ImageNet, and sees the images enlarged
        "teacher.model=benchmarks.imagenet:efficientnet_lite0",
        "teacher.options={}",
        "teacher.size=96",
        "teacher.epochs=4",
        "teacher.learning_rate=0.001",
        "teacher.batch_size=32",
    ),
)
# Setting -> (the arms that it concerns, its levels); a dozen is a multiple of each number of levels.
Space = dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]]
SPACE: Space = {
    "learning rate": (ARMS, tuple((f"student.learning_rate={rate}",) for rate in (0.003, 0.01, 0.03))),
    "epochs": (ARMS, tuple((f"student.epochs={epochs}",) for epochs in (24, 48))),
    "weight decay": (ARMS, tuple((f"student.weight_decay={decay}",) for decay in (0.01, 0.1))),
    "temperature": (("kd", "skd"), tuple((f"distillation.temperature={t}",) for t in (1, 2, 4, 8))),
    "alpha": (("kd", "skd"), tuple((f"distillation.alpha={alpha}",) for alpha in (0.3, 0.6, 0.9))),
    "teacher": (("kd", "skd"), TEACHERS),
    "hard target": (("skd",), tuple((f"distillation.hard_target={target}",) for target in ("subclass", "class"))),
    "within class": (("skd",), tuple((f"distillation.within_class={weight}",) for weight in (0.5, 1, 2))),
    "unlabelled": (("kd", "skd"), tuple((f"distillation.unlabelled={on}",) for on in ("false", "true"))),
}
FASHION_SPACE: Space = {
    **{name: SPACE[name] for name in ("learning rate", "temperature", "alpha", "hard target", "within class")},
    "epochs": (ARMS, tuple((f"student.epochs={epochs}",) for epochs in (12, 24))),
    "views": (ARMS, tuple((f"distillation.views={views}",) for views in (1, 4))),
    "teacher": (("kd", "skd"), tuple((f"teacher.options={{width: {width}}}",) for width in (24, 32))),
}
FASHION_TEACHER_EPOCHS = 15  # as in the table of 10,000 images
DOZEN = 12
SEEDS = 3  # planned, of the best trials of each arm


def draw(trials: int, space: Space) -> list[dict[str, int]]:
    """Draw the level of each setting for each trial: the first N are the same whatever N.

    >>> drawn = draw(12, SPACE)
    >>> [sum(each["learning rate"] == level for each in drawn) for level in range(3)]
    [4, 4, 4]
    >>> draw(24, SPACE)[:12] == drawn
    True
    """
    random = np.random.Generator(np.random.Philox(0))
    drawn: list[dict[str, int]] = []
    while len(drawn) < trials:
        columns = {
            name: random.permutation(np.arange(DOZEN) % len(levels)).tolist() for name, (_, levels) in space.items()
        }
        drawn += [{name: columns[name][row] for name in space} for row in range(DOZEN)]
    return drawn[:trials]


def settings(levels: dict[str, int], space: Space, arm: str | None = None) -> list[str]:
    """Give a trial's ``--set`` options, or those that concern an arm."""
    return [
        option
        for name, (arms, choices) in space.items()
        if arm is None or arm in arms
        for option in choices[levels[name]]
    ]


def split_images(chest: Path) -> tuple[Rows, set[int]]:
    """Give all rows, those of the official test folder among them, and the numbers of those the search never sees."""
    held_out: set[int] = set()
    for fold in UNSEEN_FOLDS:
        study = load_study(STUDY, [f"data.root={chest}", f"data.fold={fold}", "data.train_images=null"])
        rows = resolve_rows(study, Findings())
        held_out |= set(rows.test.tolist())
    return rows, held_out


def unseen_names(chest: Path) -> set[str]:
    """Name the images that the search never sees."""
    rows, held_out = split_images(chest)
    return {rows.table.names[row] for row in held_out}


def write_table(chest: Path, path: Path) -> int:
    """Write the table of images that the search may see, and give their number."""
    rows, held_out = split_images(chest)
    table, hierarchy = rows.table, rows.hierarchy
    subclasses = [hierarchy.subclasses[label] for label in rows.subclass_labels]
    classes = [hierarchy.classes[label] for label in rows.class_labels]
    groups = table.groups or [""] * len(table)
    kept = [row for row in range(len(table)) if row not in held_out]
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        lines = ([table.names[row], classes[row], subclasses[row], groups[row]] for row in kept)
        csv.writer(file).writerows([["path", "class", "subclass", "group"], *lines])
    return len(kept)


def inner_split(options: Any) -> list[str]:
    """Give the ``--set`` options for images that may choose something: three patients in ten are the test."""
    table = options.runs / "search.csv"
    data = {"kind": "table", "table": table, "root": options.chest, "pattern": "[]", "folds": "null", "test": 0.3}
    data["train_images"] = options.images
    return [f"data.{key}={value}" for key, value in data.items()]


@dataclass(frozen=True)
class Place:
    """What is searched: a study file, the levels of its settings, and ``--set`` options for its images."""

    study: Path
    space: Space
    images: Sequence[str]


def place_of(options: Any) -> Place:
    """Write the images that may choose something, and give the place of the search."""
    if options.fashion is None:
        write_table(options.chest, options.runs / "search.csv")
        return Place(STUDY, SPACE, inner_split(options))
    folder = options.runs / "images"
    folder.mkdir(exist_ok=True)
    write_folder(options.fashion, folder, train=options.images // 10)
    return Place(FASHION_STUDY, FASHION_SPACE, [f"data.root={folder}", f"teacher.epochs={FASHION_TEACHER_EPOCHS}"])


def attempt(
    number: int, levels: dict[str, int], arms: Sequence[str], seeds: int, options: Any, place: Place
) -> dict[str, Any]:
    """Run one trial for some arms, and give F1 on the images in the test's place, seed by seed."""
    listed = [f"arms=[{', '.join(arms)}]", f"seeds={seeds}", f"workers={options.workers}"]
    study = load_study(place.study, [*place.images, *settings(levels, place.space), *listed, *options.set])
    name = f"trial-{number:02}" if len(arms) == len(ARMS) else f"trial-{number:02}-{'-'.join(arms)}"
    same_teacher = [
        each for each, other in enumerate(draw(number, place.space)) if other["teacher"] == levels["teacher"]
    ]
    lenders = [options.runs / f"trial-{each:02}" for each in [number, *same_teacher]]
    done = run(study, options.runs / name, [each for each in lenders if each.exists() and each.name != name])
    networks = {**done.results["arms"], **{f"teacher: {k}": v for k, v in done.results["teachers"].items()}}
    return {
        "f1": {arm: network["f1"]["per_seed"] for arm, network in networks.items()},
        "images": {
            split: sum(row[split] for row in done.results["data"]["subclasses"])
            for split in ("train", "validation", "test")
        },
        "label_bits": {split: row["mutual_information"] for split, row in (done.results["label_bits"] or {}).items()},
    }


def best_of(trials: Sequence[dict[str, Any]], space: Space) -> dict[str, Any]:
    """Give for each arm the trial with the highest mean F1 of those with the most seeds, and how far trials spread."""
    best = {}
    for arm in ARMS:
        scored = [(number, trial["f1"][arm]) for number, trial in enumerate(trials) if arm in trial["f1"]]
        most = max(len(values) for _, values in scored)
        number, values = max(
            ((number, values) for number, values in scored if len(values) == most),
            key=lambda each: statistics.mean(each[1]),
        )
        firsts = [values[0] for _, values in scored]
        best[arm] = {
            "trial": number,
            "settings": settings(trials[number]["levels"], space, arm),
            "f1": values,
            "trials": len(scored),
            "spread_of_trials": statistics.stdev(firsts) if len(firsts) > 1 else None,
            "median_of_trials": statistics.median(firsts),
        }
    return best


def search(options: argparse.Namespace) -> dict[str, Any]:
    """Run all trials, then more seeds for the best, and write the JSON after each."""
    deadline = time.monotonic() + 60 * options.minutes
    place = place_of(options)
    drawn = draw(options.trials, place.space)
    trials: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        "command": f"python -m benchmarks.recipe_search --trials {options.trials} --keep {options.keep} "
        f"--seeds {options.seeds} --images {options.images}",
        "machine": describe_machine(),
        "space": {name: [list(level) for level in levels] for name, (_, levels) in place.space.items()},
        "planned_trials": options.trials,
        "planned_seeds": SEEDS,
        "trials": trials,
    }

    def tell() -> None:
        report["best"] = best_of(trials, place.space)
        write_json(options.json, report)
        print(f"trial {len(trials) - 1}: {trials[-1]['f1']}", flush=True)

    for number, levels in enumerate(drawn):
        if time.monotonic() > deadline:
            return report
        trials.append({"levels": levels, **attempt(number, levels, ARMS, 1, options, place)})
        tell()
    for seeds in range(2, options.seeds + 1):
        kept = {
            arm: sorted(range(len(trials)), key=lambda number: -trials[number]["f1"][arm][0])[: options.keep]
            for arm in ARMS
        }
        for number in sorted({number for numbers in kept.values() for number in numbers}):
            if time.monotonic() > deadline:
                return report
            arms = [arm for arm in ARMS if number in kept[arm]]
            trials[number]["f1"] |= {
                name: values
                for name, values in attempt(number, drawn[number], arms, seeds, options, place)["f1"].items()
                if name in arms
            }
            tell()
    return report


def markdown(report: dict[str, Any], space: Space) -> str:
    """Give the table of the best trials, and that of every level's mean over its trials."""
    heads = [
        "arm",
        "trials",
        "distinct settings",
        "best F1, %",
        "seeds",
        "median of trials",
        "sd of trials",
        "settings",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm, row in report["best"].items():
        chosen = ", ".join(f"`{each}`" for each in row["settings"])
        spread = f"{100 * row['spread_of_trials']:.1f}" if row["spread_of_trials"] is not None else ""
        cells = [
            str(distinct(report["trials"], space, arm)),
            f"{100 * statistics.mean(row['f1']):.1f}",
            str(len(row["f1"])),
        ]
        cells += [f"{100 * row['median_of_trials']:.1f}", spread, chosen]
        lines.append(f"| `{arm}` | {row['trials']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| setting | trials | {' | '.join(f'`{arm}`' for arm in ARMS)} |",
        "|---|" + "---|" * (1 + len(ARMS)),
    ]
    for name, levels in report["space"].items():
        for level, options in enumerate(levels):
            having = [trial for trial in report["trials"] if trial["levels"][name] == level]
            cells = [mean_of(having, arm) if arm in space[name][0] else "" for arm in ARMS]
            shown = ", ".join(f"`{each}`" for each in options)
            lines.append(f"| {shown} | {len(having)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def distinct(trials: Sequence[dict[str, Any]], space: Space, arm: str) -> int:
    """Count an arm's trials but those that repeat another's settings, since they differ in what does not concern it."""
    return len({tuple(settings(trial["levels"], space, arm)) for trial in trials if arm in trial["f1"]})


def mean_of(trials: Sequence[dict[str, Any]], arm: str) -> str:
    """Give the mean F1 of some trials' first seed, ± its standard error over trials."""
    values = [100 * trial["f1"][arm][0] for trial in trials]
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{statistics.mean(values):.1f} (se {statistics.stdev(values) / len(values) ** 0.5:.1f})"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=DOZEN)
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--images", type=int, help="to train and validate with: 1600, or 10000 with --fashion")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--chest", type=Path, default=Path("../shared/data/chest_xray"))
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(given)
    options.images = options.images or (1600 if options.fashion is None else 10_000)
    options.json = options.json or (JSON if options.fashion is None else FASHION_JSON)
    return options


def main() -> None:
    options = arguments()
    options.runs.mkdir(parents=True, exist_ok=True)
    report = search(options)
    space = SPACE if options.fashion is None else FASHION_SPACE
    print(f"\n{json.dumps(report['trials'][0]['images'])}; {report['machine']}\n\n{markdown(report, space)}")


if __name__ == "__main__":
    main()
