"""The studies behind docs/evidence.md: runs one or several tables, or goes on with them, and writes their JSON.

    python -m benchmarks.evidence NAME... --runs FOLDER [--seeds N] [--minutes M] [--workers N]
        [--chest FOLDER] [--fashion FOLDER] [--variant NAME] [--set KEY=VALUE] [--json docs/evidence]

NAME is a table of benchmarks/evidence_tables.py. FOLDER keeps the runs: given again, only what is missing is made, and
with more --seeds the new ones alone. So it is with another FOLDER, also on another machine: seeds/ beside the JSON
keeps the results of each seed and what its students said. Seeds are made one at a time over all variants of a table,
so that there is a first whole table early; the JSON is written after each. With --minutes nothing is begun that would
not end in time.
--chest: the folder of train/ and test/ of the chest X-rays; --fashion: the four IDX files of Fashion-MNIST.
--set changes every study, for a trial; what it makes belongs into another --json.

Each NAME.json has the results.json of every run, whole, and the differences of benchmarks.evidence_tables.PAIRS by F1,
by error and by AUROC, with Holm's correction over the pairs of a table.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence_markdown import variant_markdown
from benchmarks.evidence_runs import Finished, compare_arms, compare_auroc, known_seeds, run
from benchmarks.evidence_tables import PAIRS, STUDIES, TABLES, UNSEEN_FOLDS, Table
from benchmarks.recipe_search import unseen_names
from subclass_kd.files import write_json
from subclass_kd.study_file import load_study

JSON = Path("docs/evidence")


def slug(name: str) -> str:
    """Make a folder's name of a variant's.

    >>> slug("2,000 images, MobileNet")
    '2000-images-mobilenet'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace(",", "")).strip("-")


def recipes(table: Table, arms: Sequence[str], found: dict[str, Any]) -> dict[tuple[str, ...], list[str]]:
    """Group arms by the settings that they are trained with: one group unless each arm has its own best.

    An arm that the search did not try has the settings of the one that it is a control of.
    """
    if not table.tuned:
        return {(): list(arms)}
    like = {"skd-shuffled": "skd", "kd-collapsed": "kd"}
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm in arms:
        settings = tuple(found["best"][like.get(arm, arm)]["settings"])
        groups.setdefault(settings, []).append(arm)
    return groups


def measure(
    table: Table,
    variant: str,
    runs: Path,
    seeds: int,
    options: argparse.Namespace,
    lender: Path | None = None,
) -> dict[str, Any]:
    """Run one variant of a table, and give its results and differences."""
    roots = {"chest": options.chest, "fashion": options.fashion}
    root = [f"data.root={roots[table.root]}"] if table.root else []
    settings = [*root, *table.variants[variant], f"seeds={seeds}", f"workers={options.workers}", *options.set]
    base = load_study(STUDIES / table.study, settings)
    found = json.loads((options.json / f"{table.tuned}.json").read_text("utf-8")) if table.tuned else {}
    finished: dict[str, Finished] = {}  # arm -> its run
    content: dict[str, Any] = {"machine": "", "recipes": {}, "runs": {}, "sittings": {}}
    by_recipe = recipes(table, base.arms, found)
    studies = [
        load_study(STUDIES / table.study, [*settings, *recipe, f"arms=[{', '.join(arms)}]"])
        for recipe, arms in by_recipe.items()
    ]
    outs = [runs / (f"{slug(variant)}-{arms[0]}" if table.tuned else slug(variant)) for arms in by_recipe.values()]
    kept = [options.json / "seeds" / f"{runs.name}-{out.name}.json" for out in outs]
    # All groups get the seeds that any has: a run that was killed may have left some with more than others.
    known = {*base.seeds}.union(*(known_seeds(*each) for each in zip(studies, outs, kept, strict=True)))
    for place, (recipe, arms) in enumerate(by_recipe.items()):
        study = studies[place].model_copy(update={"seeds": sorted(known)})
        one = run(study, outs[place], [*outs[:place], *([lender] if lender and lender.exists() else [])], kept[place])
        finished |= dict.fromkeys(arms, one)
        name = ", ".join(arms)
        content["recipes"][name] = list(recipe)
        content["runs"][name] = one.results
        content["sittings"][name] = [sitting for block in one.blocks for sitting in block["sittings"]]
        content["machine"] = "; ".join(dict.fromkeys(block["machine"] for block in one.blocks))
    first = next(iter(finished.values()))
    pairs = [pair for pair in PAIRS if set(pair) <= set(finished)]
    decided = {arm: one.decided(arm) for arm, one in finished.items()}
    positive = first.positive
    differences = compare_arms(decided, first.labels, positive, pairs, first.groups)
    log_odds = {arm: one.log_odds(arm) for arm, one in finished.items()}
    differences["auroc"] = compare_auroc(log_odds, differences["f1"], first)
    content |= {"settings": list(table.variants[variant]), "differences": differences}
    if table.root == "chest":
        content["differences_unseen"] = compare_unseen(unseen(first, options.chest), finished, pairs)
    return content


def unseen(run: Finished, chest: Path) -> NDArray[np.bool_]:
    """Tell which (N,) X-rays of a run's test the recipe search never saw. It pools the official test with the rest."""
    if len(run.samples) > 1:
        return np.isin(run.folds, UNSEEN_FOLDS)
    [samples] = run.samples
    names = unseen_names(chest)
    return np.array([samples.table.names[row] in names for row in samples.test])


def compare_unseen(
    mask: NDArray[np.bool_], finished: dict[str, Finished], pairs: Sequence[tuple[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """Compare pairs on some of the test images, by all three measures."""
    first = next(iter(finished.values()))
    groups = first.groups[mask] if first.groups is not None else None
    part: Any = SimpleNamespace(
        labels=first.labels[mask], positive=first.positive, groups=groups, folds=first.folds[mask]
    )
    decided = {arm: one.decided(arm)[:, mask] for arm, one in finished.items()}
    differences = compare_arms(decided, part.labels, part.positive, pairs, groups)
    log_odds = {arm: one.log_odds(arm)[:, mask] for arm, one in finished.items()}
    differences["auroc"] = compare_auroc(log_odds, differences["f1"], part)
    return differences


def steps(seeds: int) -> list[int]:
    """Say after which numbers of seeds a table is written: two give the first intervals.

    >>> steps(5), steps(1)
    ([2, 3, 4, 5], [1])
    """
    return [*range(2, seeds), seeds]


def make(name: str, options: argparse.Namespace, deadline: float) -> dict[str, Any] | None:
    """Run a table step by step, write its JSON after each, and give it as far as it came."""
    table, report = TABLES[name], None
    variants = [each for each in table.variants if options.variant in (None, each)]
    made: dict[str, int] = {}  # variant -> how many seeds it has, more than were asked for where they had been kept
    for seeds in steps(options.seeds or table.seeds):
        for variant in variants:
            started = time.monotonic()
            if made.get(variant, 0) >= seeds:
                continue
            if started > deadline:
                return report
            lending = table.lenders.get(variant)
            lender = options.runs / lending[0] / slug(lending[1]) if lending else None
            row = measure(table, variant, options.runs / name, seeds, options, lender)
            report = merged(options.json / f"{name}.json", name, variant, row)
            write_json(options.json / f"{name}.json", report)
            made[variant] = len(next(iter(row["runs"].values()))["study"]["seeds"])
            print(f"{name}, {variant}: {made[variant]} seeds, {time.monotonic() - started:.0f} s\n", flush=True)
            print(variant_markdown(table, variant, row) + "\n", flush=True)
            if seeds > 1 and time.monotonic() + (time.monotonic() - started) > deadline:
                return report
    return report


def merged(path: Path, name: str, variant: str, row: dict[str, Any]) -> dict[str, Any]:
    """Put one variant into a table's JSON, beside those that are there, in the table's order."""
    table = TABLES[name]
    before = json.loads(path.read_text("utf-8"))["variants"] if path.exists() else {}
    variants = {**before, variant: row}
    ordered = {each: variants[each] for each in table.variants if each in variants}
    return {"name": name, "command": f"python -m benchmarks.evidence {name}", "planned_seeds": table.seeds} | {
        "variants": ordered
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=TABLES, metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--chest", type=Path, default=Path("../shared/data/chest_xray"))
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--variant")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, default=JSON)
    options = parser.parse_args(given)
    if options.fashion is None and any(TABLES[name].root == "fashion" for name in options.names):
        parser.error("--fashion: the folder of the four IDX files is needed")
    return options


def main() -> None:
    options = arguments()
    deadline = time.monotonic() + 60 * options.minutes
    for name in options.names:
        make(name, options, deadline)


if __name__ == "__main__":
    main()
