"""What an exported student costs, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from subclass_kd.display_tables import make_table


def show_costs(console: Console, stated: Mapping[str, Any]) -> None:
    """Print parameters, multiply-adds, file size and latency of student and teacher, side by side.

    Args:
        console: to print to.
        stated: bundle.json as plain values.
    """
    cost = stated["cost"]
    of = sorted({(row["batch"], row["threads"]) for network in cost["networks"] for row in network["latency"]})
    heads = [
        f"{batch} image{'s' if batch > 1 else ''}, {threads} thread{'s' if threads > 1 else ''}"
        for batch, threads in of
    ]
    title = f"Cost on {cost['cpu']} with onnxruntime: p50 / p95 of a run, ms"
    names = [network["network"] for network in cost["networks"]]
    table = make_table(title, "", *names)
    table.add_row("parameters", *(f"{network['parameters']:,}" for network in cost["networks"]))
    table.add_row("multiply-adds", *(f"{network['multiply_adds']:,}" for network in cost["networks"]))
    table.add_row("ONNX file, kB", *(f"{network['bytes'] / 1e3:,.1f}" for network in cost["networks"]))
    for key, head in zip(of, heads, strict=True):
        cells = []
        for network in cost["networks"]:
            row = next(row for row in network["latency"] if (row["batch"], row["threads"]) == key)
            cells.append(f"{row['p50']:.2f} / {row['p95']:.2f}")
        table.add_row(head, *cells)
    console.print(table)
    decision = stated["decision"]
    if decision["threshold"] is not None:
        reached = decision["validation"]
        text = (
            f'"{stated["positive"]}" from a probability of {decision["threshold"]:.4g} on ({decision["rule"]}, '
            f"{reached['images']:,} validation images: sensitivity {100 * reached['sensitivity']:.1f} %, specificity "
            f"{100 * reached['specificity']:.1f} %). Temperature {stated['temperature']['value']:.3f}."
        )
        console.print(Text(f"\n{text}"))
