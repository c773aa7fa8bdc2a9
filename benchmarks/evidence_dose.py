"""The section of docs/evidence.md on dose and response, from docs/evidence/dose-response.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import evidence_markdown
from benchmarks.dose_response import counted

CAUTION = (
    "Points share images, seeds and references, so they are not independent: the intervals, not corrected for their "
    "number, say how much hangs on single points, not what other data would give. `subclass-labels` distils nothing: "
    "what goes with its gain is no effect of distillation. The plot has all points."
)


def dose(path: Path) -> list[str]:
    """Give the section on dose and response."""
    parts = ["## Do label bits predict the gain?"]
    if not path.exists():
        return [*parts, "Not yet run: `python -m benchmarks.dose_response --runs FOLDER`."]
    report = json.loads(path.read_text("utf-8"))
    rows = report["points"]
    fewest = min(row["seeds"] for row in rows.values())
    tested = next(iter(rows.values()))["test_images"]
    interim = "" if fewest >= report["planned_seeds"] else f" (interim: {report['planned_seeds']} are planned)"
    parts += [
        f"    {report['command']} --runs FOLDER --fashion FOLDER",
        f"{len(rows)} doses of subclass knowledge on Fashion-MNIST as 2x5; at least {fewest} seeds{interim}, "
        f"{tested:,} held-out images; gains with their 95 % interval, not corrected for the number of rows. "
        f"{report['machine']}.",
        points_table(rows),
    ]
    if report["correlations"]:
        parts += [ranges(rows), *correlated(report), "![Gain against label bits](evidence/dose-response.svg)", CAUTION]
    return parts


def ranges(rows: dict[str, Any]) -> str:
    """Say between what skd's gain over kd lies, and its teacher's lead over scratch."""
    gains = [row["gains"]["skd - kd"]["difference"] for row in rows.values()]
    above = [name for name, row in rows.items() if (row["gains"]["skd - kd"]["ci95"] or [0])[0] > 0]
    leads = [row["predictors"]["teacher's lead"] for row in rows.values()]
    least, most = (f"{100 * end(gains):+.2f}" for end in (min, max))
    low, high = (f"{100 * end(leads):+.2f}" for end in (min, max))
    return (
        f"`skd` - `kd` lies between {least} and {most} points; its interval is above zero in {len(above)} of the "
        f"{len(rows)}. The subclass teacher's F1 is between {low} and {high} points from that of `scratch`: a teacher "
        "that leads by little has little to pass on."
    )


def correlated(report: dict[str, Any]) -> list[str]:
    """Give the tables of correlations with and without the points whose teacher stopped early, and what they say."""
    rows = report["points"]
    early = ", ".join(f"({name})" for name in rows if name not in counted(rows, "skd - kd", early_stopped=False))
    parts = [
        "Rank correlation over points (Spearman's rho; Kendall's tau), with 95 % bootstrap intervals over points. The "
        f"`kd` of {early} has a teacher that stopped early too, unlike all others, and their `subclass-labels` is that "
        "of another point. So the correlations are given with and without them, each student of `subclass-labels` once."
    ]
    for title, early_stopped in (("With early-stopped teachers:", True), ("Without early-stopped teachers:", False)):
        found = report["correlations" if early_stopped else "correlations_without_early_stopped"]
        numbers = {gain: len(counted(rows, gain, early_stopped)) for gain in found}
        parts += [title, correlations_table(found, numbers), prediction(found)]
    return parts


def points_table(rows: dict[str, Any]) -> str:
    """Give a line for each dose."""
    lines = [
        "| subclasses known | images | seeds | bits, train | bits, held-out | at most | skd - kd | skd - scratch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        bits = [f"{row['predictors'][f'mutual_information, {split}']:.2f}" for split in ("train", "test")]
        gains = [evidence_markdown.difference_cells(row["gains"][gain]) for gain in ("skd - kd", "skd - scratch")]
        shown = [f"{points} ({interval})" for points, interval, *_ in gains]
        cells = [f"{row['images']:,}", str(row["seeds"]), *bits, f"{row['predictors']['ceiling']:.2f}", *shown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def correlations_table(found: dict[str, Any], numbers: dict[str, int]) -> str:
    """Give a line for each predictor and a column for each gain."""
    gains = list(found)
    heads = [f"{gain}, {numbers[gain]} points" for gain in gains]
    lines = [f"| predictor | {' | '.join(heads)} |", "|---|" + "---|" * len(gains)]
    for name in next(iter(found.values())):
        cells = [
            "; ".join(
                f"{row['value']:+.2f} ({row['ci95'][0]:+.2f} to {row['ci95'][1]:+.2f})"
                for row in found[gain][name].values()
            )
            for gain in gains
        ]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def prediction(found: dict[str, Any]) -> str:
    """Say for each gain which estimators go with it, by intervals that exclude zero, and which goes furthest."""
    said = []
    for gain in found:
        bits = {name: row["spearman"] for name, row in found[gain].items() if ", " in name}
        sure = [name.replace("_", " ") for name, row in bits.items() if row["ci95"][0] > 0]
        less = [name.replace("_", " ") for name, row in bits.items() if row["ci95"][1] < 0]
        best = max(bits, key=lambda name: bits[name]["value"])
        low, high = bits[best]["ci95"]
        named = f"{best.replace('_', ' ')} ({bits[best]['value']:+.2f}, {low:+.2f} to {high:+.2f})"
        which = (
            f"the intervals of {', '.join(sure)} are above zero" if sure else "no estimator's interval is above zero"
        )
        which += f"; below zero, the more bits the smaller the gain, are those of {', '.join(less)}" if less else ""
        ceiling = found[gain]["ceiling"]["spearman"]
        known = f"{ceiling['value']:+.2f}, {ceiling['ci95'][0]:+.2f} to {ceiling['ci95'][1]:+.2f}"
        said.append(
            f"- {gain}: {which}; the highest rank correlation of them has {named}. How many bits there are to know "
            f"(ceiling), which needs no teacher: {known}."
        )
    return "\n".join(said)
