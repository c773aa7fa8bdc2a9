"""What was asked of the tables of docs/evidence.md, held against what they found; from their JSON alone."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence_markdown import METRICS, difference_cells
from benchmarks.evidence_tables import CLAIMS, TABLES
from subclass_kd.evaluation import summarise


def claims(tables: dict[str, dict[str, Any]]) -> str:
    """Hold what was asked for against what was found, whatever it is."""
    lines = ["| claim | found | seeds | so |", "|---|---|---|---|"]
    for name, variant, metric, arm, reference, least in CLAIMS:
        named = METRICS[metric].partition(",")[0]
        asked = f"at least {100 * least:+.2f}" if least else "below zero" if metric == "error" else "above zero"
        what = f"{TABLES[name].title.partition(',')[0]}, {variant}: `{arm}` - `{reference}`, {named}, points, {asked}"
        rows = tables.get(name, {}).get("variants", {}).get(variant, {}).get("differences", {}).get(metric, [])
        row = next((each for each in rows if (each["arm"], each["reference"]) == (arm, reference)), None)
        if row is None:
            lines.append(f"| {what} | not yet run | | |")
            continue
        points, interval, _, verdict = difference_cells(row)
        planned = TABLES[name].seeds
        said = status(row, metric, least) + (" (interim)" if row["seeds"] < planned else "")
        lines.append(f"| {what} | {points} ({interval}), {verdict} | {row['seeds']} of {planned} | **{said}** |")
    return "\n".join(lines)


def status(row: dict[str, Any], metric: str, least: float) -> str:
    """Say whether a gain of so much was found, and if not, whether the difference's own interval leaves room for it.

    >>> row = {"difference": 0.002, "ci95": [-0.001, 0.005], "verdict": "inconclusive"}
    >>> status(row, "f1", 0.02), status(row, "f1", 0.0)
    ('not shown; the interval excludes it', 'not shown')
    >>> status({"difference": 0.002, "ci95": [0.001, 0.003], "verdict": "inconclusive"}, "error", 0.0)
    'not shown; the interval excludes it'
    """
    sign = -1 if metric == "error" else 1
    if sign * row["difference"] >= least and row["verdict"] == "better":
        return "shown"
    said = "the opposite" if row["verdict"] == "worse" else "not shown"
    if row["ci95"] is not None and max(sign * end for end in row["ci95"]) < least:
        said += "; the interval excludes it"
    return said


def ceilings(tables: dict[str, dict[str, Any]]) -> list[str]:
    """Say for each table of which a gain was asked how far its teacher leads, and which F1 the gain would take."""
    asked: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for name, variant, metric, _, reference, least in CLAIMS:
        if metric == "f1" and least and variant in tables.get(name, {}).get("variants", {}):
            asked.setdefault((name, variant), []).append((reference, least))
    said = []
    for (name, variant), gains in asked.items():
        results = next(iter(tables[name]["variants"][variant]["runs"].values()))
        teacher, scratch = results["teachers"]["subclass"]["f1"], results["arms"]["scratch"]["f1"]
        lead = summarise([a - b for a, b in zip(teacher["per_seed"], scratch["per_seed"], strict=True)])
        interval = "none" if lead["ci95"] is None else " to ".join(f"{100 * end:+.2f}" for end in lead["ci95"])
        means = {reference: results["arms"][reference]["f1"]["mean"] for reference, _ in gains}
        needs = [
            f"{100 * least:+.2f} over `{reference}` takes {100 * (means[reference] + least):.1f} %"
            for reference, least in gains
        ]
        where = f"{TABLES[name].title.partition(',')[0]}, {variant}"
        mean, seeds = f"{100 * teacher['mean']:.1f} %", len(teacher["per_seed"])
        said.append(
            f"How much there is to gain ({where}): the F1 of the subclass teacher is {mean}, which "
            f"is that of `scratch` {100 * lead['mean']:+.2f} points (95 % interval over {seeds} seeds {interval}). "
            f"What was asked of the student's: {'; '.join(needs)}."
        )
    return said


def verdicts(tables: dict[str, dict[str, Any]]) -> str:
    """List every verdict on skd, good or bad, of the tables that have all seeds planned, and name the others."""
    whole, lines = [], []
    for name, table in tables.items():
        for variant, row in table["variants"].items():
            if row["differences"]["f1"][0]["seeds"] < TABLES[name].seeds:
                continue
            where = f"{TABLES[name].title.partition(',')[0].partition(':')[0]}, {variant}"
            whole.append(where)
            for metric, rows in row["differences"].items():
                for each in rows:
                    points, interval, p, verdict = difference_cells(each)
                    if each["arm"] == "skd" and verdict != "inconclusive":
                        what = METRICS[metric].partition(",")[0]
                        pair = f"`skd` - `{each['reference']}`"
                        seen = ", exploratory" if metric in TABLES[name].exploratory else ""
                        lines.append(f"- {where}, {what}{seen}: {pair} {points} ({interval}), {verdict}, p {p}")
    if not whole:
        return "No table has all its seeds yet."
    said = "\n\n" + "\n".join(lines) if lines else " none; all are inconclusive."
    return f"Of the tables with all their seeds ({'; '.join(whole)}), every verdict on `skd` by any measure:{said}"
