"""Tables that results and checks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from subclass_kd.wording import of_power


def make_table(title: str, *columns: str, names: int = 1) -> Table:
    """Make a table that fits 80 columns: no vertical rules; names to the left, folded if long, numbers to the right."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold"
    )
    for number, column in enumerate(columns):
        is_name = number < names
        table.add_column(column, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    return table


def show_votes(console: Console, votes: Mapping[str, Any]) -> None:
    """Print how votes spread over the classes, and how many bits they hold beyond the class."""
    classes = list(votes["counts"][0]["images"])
    table = make_table("Votes", "positive votes", *classes)
    for row in votes["counts"]:
        table.add_row(f"{row['positive']} of {row['annotators']}", *(f"{row['images'][name]:,}" for name in classes))
    console.print(table)
    ties = f"; {votes['dropped_ties']:,} ties dropped" if votes["dropped_ties"] else ""
    of_class, of_subclass, of_votes = (votes[f"{what}_entropy"] for what in ("class", "subclass", "vote"))
    console.print(
        f"{votes['images']:,} images{ties}. Bits an image: class {of_class:.3f}; subclass given the class "
        f"{of_subclass:.3f} (training images: {votes['ceiling']:.3f}, the ceiling of label bits); vote given the class "
        f"{of_votes:.3f}.\n",
        highlight=False,
        markup=False,
    )


def show_power(console: Console, power: Sequence[Mapping[str, Any]]) -> None:
    """Print what the study could have seen of its first question, and what more it would take.

    Args:
        console: to print to.
        power: of results.json, as of :func:`subclass_kd.power.needed`.
    """
    if power:
        console.print(Text(f"{of_power(power[0])}\n"))


def show_diagnosis(console: Console, findings: Sequence[Mapping[str, str]], verdict: str | None) -> None:
    """Print what speaks against distillation in this study, and what to try.

    Args:
        console: to print to.
        findings: as of :func:`subclass_kd.diagnosis.diagnose`.
        verdict: on the study's first question, or None; without a finding and "better" nothing is printed.
    """
    if findings:
        console.print(Text("What was looked for and found (docs/diagnosis.md)", style="bold"))
    for finding in findings:
        text = Text.assemble((finding["kind"], "yellow"), f": {finding['found']} {finding['meaning']}")
        console.print(Padding(Text.assemble(text, "\n", ("Try: ", "bold"), finding["try"]), (0, 0, 0, 2)))
    if findings:
        console.print()
    elif verdict in ("inconclusive", "worse"):
        console.print(Text("No known reason against distillation was found (docs/diagnosis.md).\n"))
