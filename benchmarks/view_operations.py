"""What each augmentation costs: milliseconds of one thread to make a view of a batch of 64 images.

    python -m benchmarks.view_operations [--json FILE]

Grey images of 28 pixels, the demo's, and colour images of 96; each operation with nothing else on. Medians of
repeated, interleaved runs, in time of the processor, so that others' work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from subclass_kd.augment import Views
from subclass_kd.config import Augment
from subclass_kd.files import write_json

BATCH = 64
SHAPES = {"28 px, grey": (1, 28, 28), "96 px, colour": (3, 96, 96)}
CHANGES: dict[str, dict[str, Any]] = {
    "flip, shift": {"flip": True, "shift": 0.08},
    "flip_vertical, rotate90": {"flip_vertical": True, "rotate90": True},
    "crop": {"crop": 0.5},
    "rotation, scale, shear": {"rotation": 10, "scale": 0.1, "shear": 5},
    "crop, rotation, scale, shear": {"crop": 0.5, "rotation": 10, "scale": 0.1, "shear": 5},
    "stain": {"stain": 0.05},
    "brightness": {"brightness": 0.2},
    "contrast": {"contrast": 0.2},
    "saturation": {"saturation": 0.2},
    "hue": {"hue": 0.05},
    "erasing": {"erasing": 0.5},
}
OF_COLOUR = ("stain", "saturation", "hue")


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Give milliseconds a batch, by shape and operation."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    samples = torch.arange(BATCH)
    measured: dict[str, dict[str, float]] = {}
    for name, shape in SHAPES.items():
        images = torch.randint(0, 256, (BATCH, *shape), dtype=torch.uint8, generator=random)
        given = {key: change for key, change in CHANGES.items() if shape[0] == 3 or key not in OF_COLOUR}
        views = {key: Views(0, None, Augment(**{"flip": False, "shift": 0.0, **given[key]})) for key in given}
        draws = {key: each.draws(samples, 1) for key, each in views.items()}
        seconds: dict[str, list[float]] = {key: [] for key in views}
        for _ in range(repeats):
            for key, each in views.items():
                started = time.process_time()
                each.render(images, draws[key])
                seconds[key].append(time.process_time() - started)
        measured[name] = {key: 1000 * statistics.median(values) for key, values in seconds.items()}
    return measured


def table_row(operation: str, milliseconds: dict[str, dict[str, float]]) -> str:
    """Give one line of the Markdown table in docs/views.md."""
    cells = [f"{each[operation]:.2g}" if operation in each else "-" for each in milliseconds.values()]
    return f"| {' | '.join([operation, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured = {
        "machine": describe_machine(),
        "repeats": options.repeats,
        "milliseconds": measure(options.repeats),
    }
    print(f"{BATCH} images, milliseconds, median of {options.repeats}; {measured['machine']}\n")
    print(f"| on | {' | '.join(SHAPES)} |\n|{'---|' * (1 + len(SHAPES))}")
    for operation in CHANGES:
        print(table_row(operation, measured["milliseconds"]))
    if options.json:
        write_json(options.json, measured)


if __name__ == "__main__":
    main()
