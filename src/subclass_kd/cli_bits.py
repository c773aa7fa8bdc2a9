"""The command ``skd bits``: what any teacher's predictions say of subclasses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from subclass_kd.display_tables import make_table


def bits(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS.csv", help="True class and subclass, and subclass probabilities.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell the label bits of any teacher's predicted probabilities: what it knows of subclasses beyond the class."""
    from subclass_kd.bits import bits_of
    from subclass_kd.extras import demand

    demand("skd bits", "train")
    found = bits_of(predictions)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
    else:
        _show(Console(), found)


def _show(console: Console, found: Mapping[str, Any]) -> None:
    title = f"Label bits of {found['images']:,} images, {len(found['hierarchy']['subclasses'])} subclasses"
    table = make_table(title, "symmetric", "mutual inf.", "soft", "ceiling", "accuracy %")
    shown = [f"{found[name]:.2f}" for name in ("symmetric", "mutual_information", "soft", "ceiling")]
    table.add_row(*shown, f"{100 * found['accuracy']:.1f}")
    console.print(table)
