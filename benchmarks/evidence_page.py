"""Write docs/evidence.md and its plots from docs/evidence/*.json, and from nothing else.

python -m benchmarks.evidence_page [--json docs/evidence] [--page docs/evidence.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import evidence_markdown, first_measurements, light_student, patience, recipe_search
from benchmarks.evidence_claims import ceilings, claims, verdicts
from benchmarks.evidence_dose import dose
from benchmarks.evidence_tables import TABLES, Table
from subclass_kd.wording import of_power

HEAD = """# Does it work?

Every table here is made by the command above it, on data that anyone can have, and this page by
`python -m benchmarks.evidence_page` from the JSON files beside it; those of the tables hold the whole `results.json` of
each run, the others what is shown here.
Numbers are means over seeds, ± half of their 95 % interval over seeds. Differences are over seeds **and** test images
(or patients, where they are known), with Holm's correction over the pairs of a table ([statistics](statistics.md));
"inconclusive" is not "equal". A difference of errors is a gain when it is negative. AUROC, which no threshold decides,
became a third measure after the official split's table had been seen: in that table it is exploratory. The three are
not corrected for one another.

How many seeds a table shall have was fixed before it was run, in `benchmarks/evidence_tables.py` (dose and response: in
`benchmarks/dose_response.py`); a table with fewer is an interim one, and its verdicts are not final: who looks again
and again at growing results finds something in the end. `evidence/seeds/` keeps the results of each seed and what its
students said, so that seeds of several sittings and machines make one table; those that are kept are not trained again.
Minutes are wall time on machines that had other work too and were halted at times: upper bounds.

`--runs` names a folder that keeps the runs; `--chest` one with the X-rays' train/ and test/
([doi:10.17632/rscbjbr9sj.2](https://doi.org/10.17632/rscbjbr9sj.2)); `--fashion` one with the four IDX files of
[Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist).

**What is the paper's**: the method, its claim (F1 on MHIST +2.14 over no teacher, +1.49 over conventional
distillation; Sajedi, Plataniotis 2021, [arXiv:2109.05587](https://arxiv.org/abs/2109.05587)) and its explanation, label
bits. MHIST's images come only from their owners, so nothing here repeats its numbers. **What is ours**: the data, the
networks, the controls `subclass-labels`, `kd-collapsed` and `skd-shuffled`, the intervals, the search, the dose and
response.
"""


def page(folder: Path) -> str:
    """Give the Markdown of the page from a folder of JSON files."""
    tables = read_tables(folder)
    parts = [HEAD.strip(), "## In short", claims(tables), *ceilings(tables), verdicts(tables), in_one_plot(tables)]
    parts.append("## Tables")
    for name, table in TABLES.items():
        if name not in tables:
            continue
        root = f" --{table.root} FOLDER" if table.root else ""
        parts += [f"### {table.title}", f"    {tables[name]['command']} --runs FOLDER{root}"]
        parts += [table.note] if table.note else []
        for variant, row in tables[name]["variants"].items():
            parts.append(evidence_markdown.variant_markdown(table, variant, row))
            parts += power(table, row)
            parts += other_images(row)
            parts += unseen(table, row)
            parts += recipes(row)
    parts += waiting(tables)
    parts += when_not(tables)
    parts += recipe(folder)
    parts += patient(folder / "patience.json")
    parts += light(folder / "light-student.json")
    parts += first_measurements.section(folder / "first-measurements.json")
    parts += dose(folder / "dose-response.json")
    return "\n\n".join(parts) + "\n"


def read_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the JSON of each table that there is, in the order of benchmarks.evidence_tables."""
    paths = {name: folder / f"{name}.json" for name in TABLES}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}


def in_one_plot(tables: dict[str, dict[str, Any]]) -> str:
    """Give the link to the plot of all tables."""
    return "![What skd gains in each table](evidence/differences.svg)" if tables else "No table has been run yet."


def unseen(table: Table, row: dict[str, Any]) -> list[str]:
    """Say what the differences are on the images that chose nothing, and how many chose something."""
    differences = row.get("differences_unseen", {})
    if not differences.get("f1"):
        return []
    images, tested = differences["f1"][0]["test_images"], row["differences"]["f1"][0]["test_images"]
    lines = []
    for metric, rows in differences.items():
        pairs = []
        for each in rows[:2]:
            points, interval, p, verdict = evidence_markdown.difference_cells(each)
            pairs.append(f"`{each['arm']}` - `{each['reference']}` {points} ({interval}), {verdict}, p {p or 'none'}")
        seen = " (exploratory)" if metric in table.exploratory else ""
        lines.append(f"- {evidence_markdown.METRICS[metric].partition(',')[0]}{seen}: {'; '.join(pairs)}")
    return [
        f"The recipe search had {tested - images:,} of these {tested:,} test images among its own. On the {images:,} "
        "that it never saw, in points:",
        "\n".join(lines),
    ]


def power(table: Table, row: dict[str, Any]) -> list[str]:
    """Say what each comparison of a whole table could have seen, as the tool says it of any study."""
    rows = [each for results in row["runs"].values() for each in results["power"] if each["seeds"] >= table.seeds]
    return ["\n".join(f"- {of_power(each)}" for each in rows)] if rows else []


def other_images(row: dict[str, Any]) -> list[str]:
    """Say by how much validation F1 exceeds that of the test, where the tool names other test images."""
    said = []
    for results in row["runs"].values():
        if any(finding["kind"] == "other test images" for finding in results["diagnosis"]["findings"]):
            leads = {
                arm: 100 * (np.mean(network["validation_f1"]) - network["f1"]["mean"])
                for arm, network in results["arms"].items()
            }
            told = ", ".join(f"`{arm}` {lead:.1f}" for arm, lead in leads.items())
            said.append(f"Validation F1 is above that of these test images by so many points: {told}.")
    return said


def waiting(tables: dict[str, dict[str, Any]]) -> list[str]:
    """List every variant that is planned and was not run, table by table."""
    missing = {
        name: [each for each in table.variants if each not in tables.get(name, {}).get("variants", {})]
        for name, table in TABLES.items()
    }
    named = [f"- `{name}`: {'; '.join(variants)}" for name, variants in missing.items() if variants]
    return ["Planned and not yet run:", "\n".join(named)] if named else []


def when_not(tables: dict[str, dict[str, Any]]) -> list[str]:
    """Give the section on what the tool itself says of each table, also where it finds nothing."""
    lines = ["| table | `skd` - `kd`, F1 points | what the tool names |", "|---|---|---|"]
    for name, table in tables.items():
        for variant, row in table["variants"].items():
            said = [finding["kind"] for run in row["runs"].values() for finding in run["diagnosis"]["findings"]]
            pairs = {(each["arm"], each["reference"]): each for each in row["differences"]["f1"]}
            points, interval, _, verdict = evidence_markdown.difference_cells(pairs["skd", "kd"])
            told = ", ".join(dict.fromkeys(said)) or "nothing found"
            lines.append(f"| {name}: {variant} | {points} ({interval}), {verdict} | {told} |")
    if len(lines) == 2:
        return []
    found = "What each means, how it is measured and what to try: [diagnosis](diagnosis.md)."
    return ["## When it does not help", found, "\n".join(lines)]


def recipes(row: dict[str, Any]) -> list[str]:
    """Say with which settings each arm was trained, where they differ."""
    if len(row["recipes"]) < 2:
        return []
    return ["\n".join(f"- {name}: {', '.join(f'`{each}`' for each in how)}" for name, how in row["recipes"].items())]


def seeds_of(seeds: int, planned: int) -> str:
    """Say how many seeds there are, and whether more are to come.

    >>> seeds_of(1, 3), seeds_of(3, 3)
    ('**1 of 3 planned seeds: interim**', '3 seeds')
    """
    return f"{seeds} seeds" if seeds >= planned else f"**{seeds} of {planned} planned seeds: interim**"


def recipe(folder: Path) -> list[str]:
    """Give the section on the two searches."""
    chest, fashion = folder / recipe_search.JSON.name, folder / recipe_search.FASHION_JSON.name
    return [
        "## The recipe",
        *searched(chest, "chest", recipe_search.SPACE, ", none of which folds 0 and 1 of the main table test"),
        "### The recipe on Fashion-MNIST",
        *searched(fashion, "fashion", recipe_search.FASHION_SPACE, ", all of the official training file"),
    ]


def searched(path: Path, root: str, space: recipe_search.Space, images_are: str) -> list[str]:
    """Tell one search: what was tried, on which images, and what came of it."""
    if not path.exists():
        return [f"Not yet searched for: `python -m benchmarks.recipe_search --runs FOLDER --{root} FOLDER`."]
    report = json.loads(path.read_text("utf-8"))
    images = report["trials"][0]["images"]
    done = f"{len(report['trials'])} of {report['planned_trials']} trials an arm; the best of each arm have "
    done += seeds_of(min(len(best["f1"]) for best in report["best"].values()), recipe_search.SEEDS)
    return [
        f"    {report['command']} --runs FOLDER --{root} FOLDER",
        f"{done}; {images['train']:,} images to train, {images['validation']:,} to choose epochs by, "
        f"{images['test']:,} to score trials by{images_are}. The score of the best of many trials is too good by what "
        f"chance gave it; so it is for every arm. {report['machine']}.",
        recipe_search.markdown(report, space),
    ]


def patient(path: Path) -> list[str]:
    """Give the section on better teachers and longer training."""
    parts = ["## A better teacher, a more patient student"]
    if not path.exists():
        return [*parts, "Not yet run: `python -m benchmarks.patience --runs FOLDER`."]
    report = json.loads(path.read_text("utf-8"))
    first = next(iter(report["rows"].values()))
    images = first["images"]
    parts += [
        f"    {report['command']} --runs FOLDER --chest FOLDER",
        f"Chest X-rays, the recipe above with 8 views; n = {seeds_of(first['seeds'], patience.SEEDS)}, "
        f"{images['train']:,} images to train, {images['validation']:,} to choose epochs by, "
        f"{images['test']:,} tested, none of which folds 0 and 1 of the main table test. With four times the "
        "epochs, as a patient teacher wants it (Beyer et al. 2022, "
        f"[arXiv:2106.05237](https://arxiv.org/abs/2106.05237)). F1 in %, differences in points with their 95 % "
        f"interval, not corrected for the number of rows. {report['machine']}.",
        patience.markdown(report["rows"]),
    ]
    return parts


def light(path: Path) -> list[str]:
    """Give the section on students of several sizes."""
    parts = ["## How light must a student be?"]
    if not path.exists():
        return [*parts, "Not yet run: `python -m benchmarks.light_student --runs FOLDER`."]
    report = json.loads(path.read_text("utf-8"))
    images, teachers = report["rows"][0]["images"], report["rows"][0]["teachers"]
    planned = len(light_student.WIDTHS) * len(light_student.EPOCHS)
    led = " and ".join(f"{100 * f1:.1f} % (`{name}`)" for name, f1 in teachers.items() if "shuffled" not in name)
    parts += [
        f"    {report['command']} --runs FOLDER --chest FOLDER",
        f"Chest X-rays, the recipe above; {len(report['rows'])} of {planned} students planned, n = "
        f"{seeds_of(report['rows'][0]['seeds'], light_student.SEEDS)}, {images['train']:,} images to train, "
        f"{images['validation']:,} to choose epochs by, {images['test']:,} tested, none of which folds 0 and 1 of the "
        f"main table test. Teachers reach an F1 of {led}. F1 in %, differences in points with their 95 % interval. "
        f"{report['machine']}.",
        light_student.markdown(report["rows"]),
    ]
    return parts


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("docs/evidence"))
    parser.add_argument("--page", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args(given)
    from benchmarks import evidence_plots  # matplotlib, which the page's text needs not

    tables = read_tables(options.json)
    if tables:
        evidence_plots.differences(tables, options.json / "differences.svg")
    path = options.json / "dose-response.json"
    if path.exists() and (report := json.loads(path.read_text("utf-8")))["correlations"]:
        evidence_plots.dose(report, options.json / "dose-response.svg")
    options.page.write_text(page(options.json), "utf-8")


if __name__ == "__main__":
    main()
