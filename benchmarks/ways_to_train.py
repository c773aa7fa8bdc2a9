"""Ways to take a training step: layouts, number formats, torch.compile, several students as one.

    python -m benchmarks.ways_to_train [--device auto] [--json FILE]

Networks of several forms take steps on noise, each way in turns: the least of the milliseconds a step and student.
What a run chooses from is timed by the very code that chooses. ``compiled``: torch.compile in the best of the layouts
and formats, the seconds that compiling took, and the steps that win them back. ``3 as one``: three students stacked by
torch.func.vmap, per student. On a CPU one thread computes, as in a run.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from subclass_kd import measuring
from subclass_kd.arithmetic import Arithmetic
from subclass_kd.config import Student, Study
from subclass_kd.device import check_device, computes_bfloat16, device_name, keep_freed_memory, make_fabric
from subclass_kd.models import build_model
from subclass_kd.training import as_input

# Network, options, side of the images, batch size.
CASES = (
    ("small:convnet", {}, 28, 64),
    ("small:resnet", {"width": 16}, 28, 64),
    ("timm:mobilenetv3_small_050", {}, 64, 32),
    ("timm:resnet18", {}, 64, 32),
    ("timm:tf_efficientnet_lite0", {}, 96, 32),
)


def compiled_step(
    study: Study, model: torch.nn.Module, shape: tuple[int, ...], arithmetic: Arithmetic
) -> Callable[[], None]:
    """Give a function that takes one step through what torch.compile makes of a model."""
    fabric = make_fabric(study, arithmetic.precision)
    own = copy.deepcopy(model).to(memory_format=arithmetic.memory_format)
    learner, optimizer = fabric.setup(own, torch.optim.AdamW(own.parameters(), fused=True))
    compiled = torch.compile(learner)
    images, labels = measuring._noise(arithmetic.batch_size, shape, fabric.device)

    def step() -> None:
        fabric.backward(F.cross_entropy(compiled(as_input(images, arithmetic.memory_format)).float(), labels))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        measuring._wait(fabric.device)

    return step


def setting(
    device: str, name: str, options: dict[str, Any], side: int, batch: int
) -> tuple[Study, torch.nn.Module, tuple[int, ...]]:
    """Give a study of a student of ten outputs, that student, and the shape of its images."""
    network = Student(model=name, options=options, batch_size=batch)
    torch.manual_seed(0)
    model = build_model(network, 10, 1, torch.tensor([0.5]), torch.tensor([0.3]))
    return Study(device=device, student=network), model, (1, side, side)


def measure(device: str, name: str, options: dict[str, Any], side: int, batch: int) -> dict[str, Any]:
    study, model, shape = setting(device, name, options, side, batch)
    network = study.student
    torch._dynamo.reset()
    candidates = {str(each): each for each in measuring._candidates(study, network, model, batch)}
    steps = {which: measuring._training_step(study, model, shape, each) for which, each in candidates.items()}
    alone = measuring._time(steps)
    best = min(alone, key=lambda which: alone[which])
    several = replace(candidates[best], members=measuring.MEMBERS)
    started = time.perf_counter()
    compiled = compiled_step(study, model, shape, candidates[best])
    compiled()
    compiling = time.perf_counter() - started
    # All once more in turns, so that the ratios are those of one stretch of time.
    ways = {best: steps[best], "compiled": compiled, "as one": measuring._training_step(study, model, shape, several)}
    times = measuring._time(ways)
    times["as one"] /= measuring.MEMBERS
    won = times[best] - times["compiled"]
    return {
        "network": name,
        "pixels": side,
        "batch": batch,
        "milliseconds": alone,
        "best": best,
        "again": times,
        "compiling_seconds": compiling,
        "steps_to_win_back": round(1000 * compiling / won) if won > 0 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_device(study := Study(device=options.device))
    torch.set_num_threads(1)
    keep_freed_memory()
    print(
        f"{device_name(options.device)}, bfloat16 {'yes' if computes_bfloat16(study) else 'no'}; {describe_machine()}"
    )
    rows = []
    for case in CASES:
        row = measure(options.device, *case)
        rows.append(row)
        ways = ", ".join(f"{way} {ms:.1f}" for way, ms in row["milliseconds"].items())
        again, won = row["again"], row["steps_to_win_back"]
        pays = f"won back after {won:,} steps" if won else "never won back"
        print(f"{row['network']} {row['pixels']} px, batch {row['batch']}: {ways} ms")
        print(
            f"    in turns: {again[row['best']]:.1f}, compiled {again['compiled']:.1f} "
            f"({row['compiling_seconds']:.0f} s to compile, {pays}), 3 as one {again['as one']:.1f} a student",
            flush=True,
        )
    if options.json:
        content = {"machine": describe_machine(), "device": device_name(options.device), "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
