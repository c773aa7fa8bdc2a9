"""What ``skd check`` shows a person: the data in numbers, then everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from subclass_kd.display_tables import make_table, show_votes
from subclass_kd.errors import UserError

SHOWN = 5  # findings of one kind; --json has more
STYLES = {"error": "red", "warning": "yellow"}


def show(console: Console, report: Mapping[str, Any]) -> None:
    """Print what :func:`subclass_kd.data.check.check_study` found, for 80 columns.

    Args:
        console: to print to.
        report: its plain values.
    """
    if report["data"]:
        _show_data(console, report["data"])
    if report["counts"]:
        console.print(_counts_table(report["counts"]))
    for count in report["counts"]:
        _show_kind(console, count, report["findings"])
    console.print(Text(verdict(report), style="bold"))


def show_warnings(console: Console, report: Mapping[str, Any]) -> None:
    """Print the warnings alone, the first of each kind, as a run does before it trains."""
    for count in report["counts"]:
        if count["severity"] == "warning":
            _show_kind(console, count, report["findings"])


def verdict(report: Mapping[str, Any]) -> str:
    """Sum up in one sentence.

    >>> verdict({"errors": 0, "warnings": 1})
    'No error, 1 warning: the study can run.'
    >>> verdict({"errors": 2, "warnings": 30})
    '2 errors, 30 warnings: mend the errors before the study can run.'
    """
    errors, warnings = report["errors"], report["warnings"]
    text = f"{errors or 'No'} error{'s' * (errors > 1)}, {warnings or 'no'} warning{'s' * (warnings > 1)}"
    return f"{text}: {'mend the errors before the study can run' if errors else 'the study can run'}."


def _show_data(console: Console, data: Mapping[str, Any]) -> None:
    table = make_table("Images by subclass and split", "subclass", "class", "training", "validation", "test", names=2)
    splits = ("train", "validation", "test")
    for row in data["subclasses"]:
        table.add_row(row["name"], row["class"], *(f"{row[split]:,}" for split in splits))
    table.add_section()
    table.add_row("all", "", *(f"{sum(row[split] for row in data['subclasses']):,}" for split in splits))
    console.print(table)
    sizes = ", ".join(f"{row['width']} x {row['height']}" for row in data["sizes"][:3])
    more = f" and {len(data['sizes']) - 3} more sizes or above" if len(data["sizes"]) > 3 else ""
    channels = " and ".join(
        f"{count:,} with {number} channel{'s' * (number != '1')}" for number, count in data["channels"].items()
    )
    copies = data["copies"]
    for line in (
        f"{data['images']:,} images, {data['unreadable']:,} unreadable; {sizes}{more} pixels; {channels}.",
        f"{data['sentence']}{f' They are told by {source}.' if (source := data['group_source']) else ''}",
        f"{copies['groups']:,} groups of exact duplicates with {copies['surplus']:,} surplus images; "
        f"{data['near_duplicates']:,} pairs of near duplicates.",
    ):
        console.print(line, highlight=False, markup=False)
    console.print()
    if data["votes"]:
        show_votes(console, data["votes"])


def _counts_table(counts: list[Mapping[str, Any]]) -> Table:
    table = make_table("Findings", "", "kind", "count", names=2)
    for row in sorted(counts, key=lambda row: row["severity"]):
        table.add_row(Text(row["severity"], style=STYLES[row["severity"]]), row["kind"], f"{row['count']:,}")
    return table


def _show_kind(console: Console, count: Mapping[str, Any], findings: list[Mapping[str, Any]]) -> None:
    severity, kind = count["severity"], count["kind"]
    console.print(Text(f"{severity}: {kind}", style=STYLES[severity]))
    shown = [row for row in findings if (row["severity"], row["kind"]) == (severity, kind)][:SHOWN]
    for row in shown:
        message = UserError(row["where"], row["found"], row["expected"], row["remedy"])
        console.print(Padding(Text(str(message)), (0, 0, 0, 2)))
    if count["count"] > len(shown):
        console.print(f"  and {count['count'] - len(shown):,} more", highlight=False, markup=False)
    console.print()
