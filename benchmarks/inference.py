"""What a student costs in use beside its teacher: latency of one image and images a second, on one thread.

    python -m benchmarks.inference [--repeats N] [--no-compile] [--json FILE]

The demo's networks at 28 pixels; ResNet-18 as a teacher and MobileNetV3-small, half as wide, as a student at 64 and
224. Images lie decoded in memory, as float32 in [0, 1]; the networks normalise them. Latency is that of a batch of one;
images a second are those of the batch at which eager channels last does most. Compiled is torch.compile of channels
last for that shape, where a compiler is there; what compiling takes stands in the JSON. Medians of repeats in turns.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.machine import describe_machine
from subclass_kd.build import network_cost
from subclass_kd.config import Student
from subclass_kd.files import write_json
from subclass_kd.models import build_model

BATCHES = (1, 8, 32, 128)
SLOW = 1.0  # seconds a call; larger batches are not tried then
SECONDS = 0.2  # for which a call is repeated, once a turn


class Setting(NamedTuple):
    """A network and the images that it sees."""

    model: str
    size: int
    channels: int
    outputs: int


SETTINGS = [Setting("small:convnet", 28, 1, 10), Setting("small:resnet", 28, 1, 10)]
SETTINGS += [
    Setting(name, size, 3, 2) for size in (64, 224) for name in ("timm:mobilenetv3_small_050", "timm:resnet18")
]


def build(setting: Setting) -> nn.Module:
    """Build a network for use: in evaluation mode, weights as they come."""
    torch.manual_seed(0)
    half = torch.full((setting.channels,), 0.5)
    model = build_model(Student(model=setting.model), setting.outputs, setting.channels, half, half)
    return model.eval().requires_grad_(False)


def ways(setting: Setting, batch: int, compiled: bool) -> dict[str, Callable[[], Any]]:
    """Give the ways to run a network on a batch; the one that is compiled here has been called once."""
    images = torch.rand(batch, setting.channels, setting.size, setting.size)
    found: dict[str, Callable[[], Any]] = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        found[name] = _call(build(setting).to(memory_format=layout), images.to(memory_format=layout))
    if compiled:
        torch.compiler.reset()
        model = torch.compile(build(setting).to(memory_format=torch.channels_last), dynamic=False)
        found["compiled"] = _call(model, images.to(memory_format=torch.channels_last))
    return found


def _call(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Callable[[], Any]:
    def call() -> None:
        with torch.no_grad():
            model(images)

    return call


def time_in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Give the milliseconds a call, median and range over turns, after one call that sets up and is told apart."""
    first: dict[str, float] = {}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        started = time.perf_counter()
        call()
        first[name] = time.perf_counter() - started
    for _ in range(repeats):
        for name, call in calls.items():
            count, started = 0, time.perf_counter()
            while (seconds := time.perf_counter() - started) < SECONDS or not count:
                call()
                count += 1
            taken[name].append(1000 * seconds / count)
    return {
        name: {
            "median_ms": statistics.median(values),
            "least_ms": min(values),
            "most_ms": max(values),
            "first_call_seconds": first[name],
        }
        for name, values in taken.items()
    }


def measure(setting: Setting, repeats: int, compiled: bool) -> dict[str, Any]:
    """Measure one network at one size."""
    cost = network_cost(build(setting), (setting.channels, setting.size, setting.size))
    batches = {}
    for batch in BATCHES:
        turns = time_in_turns({"channels_last": ways(setting, batch, False)["channels_last"]}, repeats)
        milliseconds = turns["channels_last"]["median_ms"]
        batches[batch] = 1000 * batch / milliseconds
        if milliseconds > 1000 * SLOW:
            break
    best = max(batches, key=lambda batch: batches[batch])
    latency = time_in_turns(ways(setting, 1, compiled), repeats)
    many = time_in_turns(ways(setting, best, compiled), repeats)
    throughput = {name: times | {"images_a_second": 1000 * best / times["median_ms"]} for name, times in many.items()}
    return {
        **setting._asdict(),
        **cost,
        "latency": latency,
        "best_batch": best,
        "throughput": throughput,
        "images_a_second_by_batch": batches,
    }


def table_row(row: dict[str, Any]) -> str:
    """Give a line of the Markdown table."""
    names = ("contiguous", "channels_last", "compiled")
    latency = [f"{row['latency'][name]['median_ms']:.2f}" if name in row["latency"] else "-" for name in names]
    many = [
        f"{row['throughput'][name]['images_a_second']:,.0f}" if name in row["throughput"] else "-" for name in names
    ]
    network = f"{row['model']} | {row['size']} | {row['parameters']:,} | {row['multiply_adds'] / 1e6:,.2f}"
    return f"| {network} | {' | '.join(latency)} | {row['best_batch']} | {' | '.join(many)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compiler = any(shutil.which(name) for name in ("g++", "clang++", "cl"))
    compiled = compiler and not options.no_compile
    print(f"{describe_machine()}; one thread{'' if compiled else '; nothing compiled'}\n")
    print(
        "| network | px | parameters | multiply-adds, million | ms, contiguous | channels last | compiled | batch ",
        end="",
    )
    print("| images/s, contiguous | channels last | compiled |\n|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for setting in SETTINGS:
        rows.append(measure(setting, options.repeats, compiled))
        print(table_row(rows[-1]), flush=True)
    if options.json:
        write_json(
            options.json, {"machine": describe_machine(), "threads": 1, "repeats": options.repeats, "rows": rows}
        )


if __name__ == "__main__":
    main()
