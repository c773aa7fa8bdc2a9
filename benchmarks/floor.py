"""The floor of a training step: its operations and bytes over what this machine's core can do, and where the rest goes.

    python -m benchmarks.floor [--device auto] [--json FILE]

Operations: multiplications and additions of convolutions and matrix products, as torch counts them forward, thrice,
over the rate of a large matrix product. Bytes: every layer's output written and read once, its gradient likewise,
weights and AdamW's two moments read and written once, over the rate of copying 256 MB (a small network's tensors stay
in the cache, which is faster). The floor is the larger of the two times. Measured: the least milliseconds a step, and
how its time is shared by torch's profile of twenty steps: convolutions and products, other kernels, and the rest:
Python and the dispatch of kernels.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import describe_machine
from benchmarks.ways_to_train import setting
from subclass_kd import measuring
from subclass_kd.config import Study
from subclass_kd.device import check_device, device_name, keep_freed_memory, make_fabric
from subclass_kd.training import as_input

CASES = (
    ("small:convnet", {}, 28, 64),
    ("small:resnet", {"width": 16}, 28, 64),
    ("timm:mobilenetv3_small_050", {}, 64, 64),
    ("timm:resnet18", {}, 64, 64),
)
PRODUCTS = ("conv", "mm", "linear")
STEPS = 20


def rates(device: torch.device) -> tuple[float, float]:
    """Give operations a second of a product of 2,048 x 2,048 float32 matrices, and bytes a second of a copy."""
    left, right = torch.rand(2, 2048, 2048, device=device)
    source = torch.rand(64_000_000, device=device)
    target = torch.empty_like(source)

    def multiply() -> None:
        left @ right
        measuring._wait(device)

    def move() -> None:
        target.copy_(source)
        measuring._wait(device)

    least = measuring._time({"multiply": multiply, "move": move})
    return 2 * 2048**3 / least["multiply"] * 1000, 2 * 4 * 64_000_000 / least["move"] * 1000


def bytes_of(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Count the bytes that a step cannot help moving, in float32."""
    outputs = []
    handles = [
        layer.register_forward_hook(lambda layer, arguments, output: outputs.append(output.numel()))
        for layer in model.modules()
        if not list(layer.children())
    ]
    model(images)
    for handle in handles:
        handle.remove()
    weights = sum(parameter.numel() for parameter in model.parameters())
    return 4 * (4 * sum(outputs) + 2 * images.numel() + 8 * weights)


def kernels(step: Any) -> tuple[float, float]:
    """Give the shares of a step's time in products and in other kernels."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=activities) as profiled:
        for _ in range(STEPS):
            step()
    rows = [(row.key, row.self_device_time_total or row.self_cpu_time_total) for row in profiled.key_averages()]
    total = sum(time for _, time in rows)
    own = [(name, time) for name, time in rows if name.startswith("aten::")]
    products = sum(time for name, time in own if any(part in name for part in PRODUCTS))
    return products / total, (sum(time for _, time in own) - products) / total


def measure(device: str, name: str, options: dict[str, Any], side: int, batch: int, peak: float, copying: float) -> Any:
    study, model, shape = setting(device, name, options, side, batch)
    fabric = make_fabric(study)
    own = copy.deepcopy(model).to(fabric.device)
    images, _ = measuring._noise(batch, shape, fabric.device)
    moved = bytes_of(own, as_input(images))
    counter = FlopCounterMode(display=False)
    with counter:
        own(as_input(images))
    # Backward has two products for each of forward's; torch's own count of it takes grouped convolutions for full ones.
    operations = 3 * counter.get_total_flops()
    choice = measuring._for_training(study, study.student, model, shape)
    step = measuring._training_step(study, model, shape, choice.chosen)
    milliseconds = measuring._time({"step": step})["step"]
    products, others = kernels(step)
    return {
        "network": name,
        "pixels": side,
        "batch": batch,
        "arithmetic": str(choice.chosen),
        "million_operations": operations / 1e6,
        "megabytes": moved / 1e6,
        "floor_operations_ms": 1000 * operations / peak,
        "floor_bytes_ms": 1000 * moved / copying,
        "measured_ms": milliseconds,
        "in_products": products,
        "in_other_kernels": others,
        "elsewhere": 1 - products - others,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_device(study := Study(device=options.device))
    torch.set_num_threads(1)
    keep_freed_memory()
    peak, copying = rates(make_fabric(study).device)
    print(f"{device_name(options.device)}; {describe_machine()}")
    print(f"matrix product {peak / 1e9:.0f} billion operations a second, copy {copying / 1e9:.1f} GB a second")
    print(
        "network                      px   Mops     MB   floor: ops, bytes   measured ms   products  others  elsewhere"
    )
    rows = []
    for case in CASES:
        row = measure(options.device, *case, peak, copying)
        rows.append(row)
        shares = "".join(f"{100 * row[key]:9.0f} %" for key in ("in_products", "in_other_kernels", "elsewhere"))
        print(
            f"{row['network']:28}{row['pixels']:3}{row['million_operations']:8.0f}{row['megabytes']:7.1f}"
            f"{row['floor_operations_ms']:10.2f}{row['floor_bytes_ms']:8.2f}{row['measured_ms']:14.2f}{shares}",
            flush=True,
        )
    if options.json:
        content = {"machine": describe_machine(), "operations": peak, "bytes": copying, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
