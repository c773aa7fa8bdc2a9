"""The plots of docs/evidence.md, from its JSON files: readable in grey, by shape and not by colour alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

STYLE = {"svg.hashsalt": "subclass-kd", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.color": "0.9"}
MARKERS = {"scratch": ("o", "black"), "kd": ("s", "white"), "skd-shuffled": ("^", "0.6")}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG that is the same whenever it is made of the same numbers."""
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def differences(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw what skd gains over its references in each table: points of F1 with their 95 % intervals."""
    rows = [
        (f"{name}: {variant}", {row["reference"]: row for row in content["differences"]["f1"] if row["arm"] == "skd"})
        for name, table in tables.items()
        for variant, content in table["variants"].items()
    ]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 1 + 0.5 * len(rows)))
        for place, (_, by_reference) in enumerate(rows):
            for number, (reference, (marker, fill)) in enumerate(MARKERS.items()):
                row = by_reference.get(reference)
                if row is None:
                    continue
                middle = 100 * row["difference"]
                low, high = (100 * end for end in row["ci95"] or (row["difference"], row["difference"]))
                axes.errorbar(
                    middle, -place - 0.22 * (number - 1), xerr=[[middle - low], [high - middle]], fmt=marker,
                    color="black", markerfacecolor=fill, capsize=2, label=f"skd - {reference}" if place == 0 else None,
                )  # fmt: skip
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks([-place for place in range(len(rows))], [name for name, _ in rows])
        axes.set_xlabel("difference in F1, points, with 95 % interval")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25 if len(rows) < 4 else -0.12), ncols=3)
        save(figure, path)


def dose(report: dict[str, Any], path: Path) -> None:
    """Draw skd's gain over scratch and over kd against label bits on training and on held-out images."""
    titles = {"symmetric": "symmetric channel", "mutual_information": "mutual information", "soft": "soft"}
    images = sorted({row["images"] for row in report["points"].values()})
    shapes = dict(zip(images, "o^sDv", strict=False))
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(2, 3, figsize=(9, 6), sharey="row")
        for line, gain in zip(grid, ("skd - kd", "skd - scratch"), strict=True):
            for axes, (name, title) in zip(line, titles.items(), strict=True):
                for split, fill in (("train", "white"), ("test", "black")):
                    for row in report["points"].values():
                        axes.plot(
                            row["predictors"][f"{name}, {split}"], 100 * row["gains"][gain]["difference"],
                            shapes[row["images"]], color="black", markerfacecolor=fill, markersize=5, linestyle="",
                        )  # fmt: skip
                rho = {
                    split: report["correlations"][gain][f"{name}, {split}"]["spearman"]["value"]
                    for split in ("train", "test")
                }
                axes.set_title(
                    f"{title}\nrank correlation {rho['train']:+.2f} train, {rho['test']:+.2f} held-out", fontsize=8
                )
                axes.axhline(0, color="black", linewidth=0.8)
            line[0].set_ylabel(f"{gain}, points of F1")
        for axes in grid[1]:
            axes.set_xlabel("label bits an image")
        words = {"o": "circles", "^": "triangles", "s": "squares", "D": "diamonds", "v": "hanging triangles"}
        known = ", ".join(f"{words[shape]} {count:,}" for count, shape in shapes.items())
        figure.suptitle(
            f"white: bits on training images, black: on held-out ones; training images: {known}", fontsize=9
        )
        figure.tight_layout()
        save(figure, path)
