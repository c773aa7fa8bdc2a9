"""How light must a student be for a teacher's word to count? Students of several widths, trained short and long.

    python -m benchmarks.light_student --runs FOLDER [--seeds N] [--workers N] [--chest FOLDER]
        [--json docs/evidence/light-student.json]

The recipe of benchmarks/studies/chest_xray.yaml with students from tiny to its own; teachers are the same for all.
As in benchmarks.recipe_search, the images that folds 0 and 1 of that study test are left out, and of the others three
parts in ten (of whole patients) stand in for a test split. What is chosen here for a table of docs/evidence.md is
reported there on all folds, and on folds 0 and 1 alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence_markdown import difference_cells
from benchmarks.evidence_runs import compare_arms, run
from benchmarks.machine import describe_machine
from benchmarks.recipe_search import STUDY, inner_split, write_table
from subclass_kd.files import write_json
from subclass_kd.study_file import load_study

SEEDS = 3  # planned
WIDTHS, EPOCHS = (2, 3, 4, 7), (12, 48)
ARMS = ("scratch", "subclass-labels", "kd", "skd", "skd-shuffled")
PAIRS = (("skd", "scratch"), ("skd", "kd"), ("skd", "subclass-labels"), ("skd", "skd-shuffled"), ("kd", "scratch"))


def attempt(
    name: str, settings: Sequence[str], arms: Sequence[str], lenders: Sequence[Path], options: Any
) -> dict[str, Any]:
    """Run a recipe on images that may choose something, and give each arm's F1 and the differences.

    Args:
        name: of its folder in ``--runs``, and of what is kept of its seeds.
        settings: ``--set`` options in which it differs from the recipe of the main table.
        arms: to train.
        lenders: runs that may have trained some of it.
        options: ``runs``, ``json``, ``chest``, ``images``, ``seeds``, ``workers`` and ``set`` of the command line.
    """
    listed = [f"arms=[{', '.join(arms)}]", f"seeds={options.seeds}", f"workers={options.workers}"]
    study = load_study(STUDY, [*inner_split(options), *settings, *listed, *options.set])
    kept = options.json.parent / f"seeds/{options.json.stem}-{name}.json"
    done = run(study, options.runs / name, lenders, kept)
    images = done.results["data"]["subclasses"]
    decided = {arm: done.decided(arm) for arm in arms}
    pairs = [pair for pair in PAIRS if set(pair) <= set(arms)]
    return {
        "parameters": done.results["arms"]["scratch"]["parameters"],
        "seeds": len(done.study.seeds),
        "images": {split: sum(row[split] for row in images) for split in ("train", "validation", "test")},
        "f1": {arm: done.results["arms"][arm]["f1"]["mean"] for arm in arms},
        "teachers": {name: row["f1"]["mean"] for name, row in done.results["teachers"].items()},
        "differences": compare_arms(decided, done.labels, done.positive, pairs, done.groups)["f1"],
    }


def gains(row: dict[str, Any], *references: str) -> list[str]:
    """Give what skd gains over each reference, in points with the interval."""
    pairs = {(each["arm"], each["reference"]): difference_cells(each) for each in row["differences"]}
    return [f"{points} ({interval})" for points, interval, *_ in (pairs["skd", each] for each in references)]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Give a line for each student."""
    heads = ["parameters", "epochs", *(f"`{arm}`" for arm in ARMS), "skd - scratch", "skd - kd", "skd - skd-shuffled"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [*(f"{100 * row['f1'][arm]:.1f}" for arm in ARMS), *gains(row, "scratch", "kd", "skd-shuffled")]
        lines.append(f"| {row['parameters']:,} | {row['epochs']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--images", type=int, default=2000, help="to train and validate with")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--chest", type=Path, default=Path("../shared/data/chest_xray"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, default=Path("docs/evidence/light-student.json"))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    write_table(options.chest, options.runs / "search.csv")
    rows: list[dict[str, Any]] = []
    lenders: list[Path] = []
    for epochs in EPOCHS:
        for width in WIDTHS:
            name = f"width-{width}-epochs-{epochs}"
            settings = [f"student.options={{width: {width}}}", f"student.epochs={epochs}"]
            rows.append({"width": width, "epochs": epochs, **attempt(name, settings, ARMS, lenders, options)})
            lenders = [options.runs / name]
            command = f"python -m benchmarks.light_student --seeds {options.seeds} --images {options.images}"
            report = {"command": command, "machine": describe_machine(), "rows": rows}
            write_json(options.json, report)
            print(json.dumps(rows[-1]["f1"]), flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
