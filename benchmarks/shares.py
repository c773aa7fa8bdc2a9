"""What a process holds of a teacher in training, and how long a step takes: whole (DDP), and in shares (FSDP).

    python -m benchmarks.shares [--model NAME] [--devices N ...] [--steps N] [--json FILE]

Processes on this machine's CPU, which share its cores: bytes are what they would be on other devices, seconds are not.
Weights, gradients and AdamW's two moments are counted tensor by tensor before a step of the optimiser; "whole at once"
is the most that lies unshared while a block computes its forward pass. Activations are not counted, nor is what each
process has at the start, when it builds the network whole in main memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from benchmarks.machine import describe_machine
from subclass_kd.config import Study, Teacher
from subclass_kd.device import make_team_fabric
from subclass_kd.models import build_model
from subclass_kd.sharding import blocks
from subclass_kd.team import Team, enter

IMAGES = 2  # of each process in a step


def held(tensor: torch.Tensor) -> int:
    """Count the bytes of a tensor that lie in this process."""
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own.nbytes


def work(options: argparse.Namespace, rank: int, count: int, shard: bool, folder: Path) -> None:
    """Be one of the processes: take steps on noise, and write down what this one holds."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    store = distributed.FileStore(str(folder / "store"), count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    enter(Team(rank, count, rank))
    torch.manual_seed(0)
    study = Study(device="cpu", teacher=Teacher(model=options.model, shard=shard))
    network: nn.Module = build_model(study.teacher, 10, 3, torch.zeros(3), torch.ones(3))
    at_once = [0]

    def watch(*_: Any) -> None:
        whole = [weight for weight in network.parameters() if not hasattr(weight, "full_tensor")]
        at_once.append(sum(weight.nbytes for weight in whole))

    for block in blocks(network):
        block.register_forward_hook(watch)
    fabric = make_team_fabric(study, "float32", shard)
    learner = fabric.setup_module(network)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    learning: Any = fabric.setup_optimizers(optimizer)
    images = torch.rand(IMAGES, 3, options.size, options.size)
    seconds = []
    for _ in range(options.steps):
        started = time.perf_counter()
        fabric.backward(learner(images).logsumexp(-1).mean())
        gradients = sum(held(weight.grad) for weight in network.parameters() if weight.grad is not None)
        learning.step()
        learning.zero_grad()
        seconds.append(time.perf_counter() - started)
    weights = [*network.parameters()]
    moments = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    found = {"weights": sum(map(held, weights)), "gradients": gradients, "moments": sum(map(held, moments))}
    found |= {"whole_at_once": max(at_once), "step_seconds": min(seconds)}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.barrier()


def measure(options: argparse.Namespace, count: int, shard: bool) -> dict[str, float]:
    """Start the processes, and give of each figure the largest that any has."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.shares", *sys.argv[1:], "--folder", folder, "--count", str(count)]
        command += ["--shard"] * shard
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [subprocess.Popen([*command, "--rank", str(rank)], env=environment) for rank in range(count)]
        codes = [process.wait(600) for process in processes]
        if any(codes):
            raise SystemExit(f"{count} processes: one has failed")
        each = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(count)]
    return {name: max(own[name] for own in each) for name in each[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="timm:vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path)
    for name in ("--rank", "--count"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        work(options, options.rank, options.count, options.shard, options.folder)
        return
    print(f"{options.model}, {options.size} pixels, {IMAGES} images a process; {describe_machine()}")
    print("largest of any process, MB; least seconds of a step")
    rows = []
    for count, shard in [(options.devices[0], False), *((count, True) for count in options.devices)]:
        found = measure(options, count, shard)
        rows.append({"devices": count, "shard": shard, **found})
        sizes = ", ".join(f"{name} {found[name] / 1e6:.1f}" for name in found if name != "step_seconds")
        print(f"{count} devices, {'in shares' if shard else 'each whole'}: {sizes}; {found['step_seconds']:.2f} s")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": describe_machine(), "model": options.model, "rows": rows}) + "\n"
        )


if __name__ == "__main__":
    main()
