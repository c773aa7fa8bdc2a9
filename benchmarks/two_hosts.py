"""One training over two hosts: two network namespaces, joined by a cable that is none, and torchrun in each.

    sudo python -m benchmarks.two_hosts [--epochs N] [--repeats N] [--delay MS] [--float32] [--json FILE]

Each namespace has an address of its own and one process; what they tell each other goes through the kernel's network as
between two machines, without its delays (--delay MS adds them, where the kernel can). The same study by one process,
and by two on one host, stand beside it: losses epoch by epoch, and how long the students' trainings take. Namespaces
share this machine's cores, and need root and iproute2; where they cannot be had, this says so and exits with 0.

The networks are the package's small ones in float64. In float32 a difference in the last digit, such as that between
two layouts of one process, grows to 1e-2 of a loss within a few dozen steps (see --float32), and would hide any other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from benchmarks.machine import describe_machine
from subclass_kd import store
from subclass_kd.networks import SmallConvNet, SmallResNet

HOSTS = {"skd-a": "10.89.0.1", "skd-b": "10.89.0.2"}
LINKS = {"skd-a": "skd-va", "skd-b": "skd-vb"}
PORT = "29531"
CONVNET, RESNET = "benchmarks.two_hosts:convnet", "benchmarks.two_hosts:resnet"
SKD = ["-m", "subclass_kd.cli", "run"]
WAYS = ("one process", "two processes, one host", "two processes, two hosts")


class Double(nn.Module):
    """A network that computes in float64, where sums in another order are the same to thirteen digits."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.double()

    def forward(self, images: Tensor) -> Tensor:
        """Give logits for images (B, C, H, W)."""
        logits: Tensor = self.body(images.double())
        return logits


def convnet(**options: Any) -> Double:
    return Double(SmallConvNet(**options))


def resnet(**options: Any) -> Double:
    return Double(SmallResNet(**options))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts(delay: float) -> Iterator[None]:
    """Make two network namespaces with a cable between them; they are gone afterwards."""
    try:
        for name in HOSTS:
            ip("netns", "add", name)
        ip("link", "add", LINKS["skd-a"], "netns", "skd-a", "type", "veth", "peer", LINKS["skd-b"], "netns", "skd-b")
        for name, address in HOSTS.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", LINKS[name])
            ip("-n", name, "link", "set", LINKS[name], "up")
            ip("-n", name, "link", "set", "lo", "up")
            if delay:
                shaped = ["tc", "-n", name, "qdisc", "add", "dev", LINKS[name], "root", "netem", "delay", f"{delay}ms"]
                subprocess.run(shaped, check=True, capture_output=True, text=True)
        yield
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def started(way: str, study: Path, out: Path) -> list[list[str]]:
    """Give the commands that run a study in one of the ways."""
    own = [*SKD, str(study), "--out", str(out)]
    if way == WAYS[0]:
        return [[sys.executable, *own]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    if way == WAYS[1]:
        return [[*torchrun, "2", "--master-port", PORT, *own, "--devices", "2"]]
    meeting = ["--nnodes", "2", "--master-addr", HOSTS["skd-a"], "--master-port", PORT]
    commands = []
    for rank, name in enumerate(HOSTS):
        inside = ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={LINKS[name]}"]
        of_node = [*torchrun, "1", "--node-rank", str(rank), *meeting]
        commands.append([*inside, *of_node, *own, "--devices", "1", "--nodes", "2"])
    return commands


def measure(way: str, study: Path, out: Path) -> tuple[list[float], float]:
    """Run a study, and give the losses of all epochs of its networks and the seconds of its students' trainings."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        for command in started(way, study, out)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=900)
        if process.returncode:
            raise SystemExit(f"{way}: exit code {process.returncode}\n{errors}")
    notes = [store.notes(path) for kind in ("teachers", "students") for path in sorted((out / kind).iterdir())]
    losses = [epoch["loss"] for note in notes for epoch in note["history"]]
    return losses, sum(store.notes(path)["train_seconds"] for path in (out / "students").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds each way between the hosts")
    parser.add_argument("--float32", action="store_true", help="the networks as they are used")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if os.geteuid() or shutil.which("ip") is None:
        print("skipped: network namespaces need root and iproute2's ip")
        return
    content = {
        "device": "cpu",
        "data": {"train_images": 1200},
        "teacher": {"model": "small:resnet" if options.float32 else RESNET, "options": {"width": 8}, "epochs": 2},
        "student": {"model": "small:convnet" if options.float32 else CONVNET, "epochs": options.epochs},
        "distillation": {"views": 2},
        "arms": ["scratch", "kd", "skd"],
        "seeds": 1,
        "workers": 1,
    }
    losses: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder, "study.yaml")
        study.write_text(yaml.safe_dump(content))
        try:
            with two_hosts(options.delay):
                for repeat in range(options.repeats):
                    for number, way in enumerate(WAYS):
                        losses[way], taken = measure(way, study, Path(folder, f"{repeat}-{number}"))
                        seconds[way].append(taken)
        except subprocess.CalledProcessError as error:
            print(f"skipped: no network namespaces here ({' '.join(error.cmd)}: {error.stderr.strip()})")
            return
    report(options, losses, seconds)


def report(options: argparse.Namespace, losses: dict[str, list[float]], seconds: dict[str, list[float]]) -> None:
    """Print what was found, and write it where it was asked for."""
    one = WAYS[0]
    digits = "float32" if options.float32 else "float64"
    print(f"{digits}, {options.epochs} epochs of 1,200 images, 3 arms, {options.repeats} runs in turns")
    print(f"{describe_machine()}; delay {options.delay} ms each way between the hosts")
    content: dict[str, Any] = {"machine": describe_machine(), "delay_ms": options.delay, "seconds": seconds}
    content |= {"digits": digits, "largest_loss_difference": {}, "ratio": {}}
    for way in WAYS:
        differs = max(abs(own - theirs) for own, theirs in zip(losses[way], losses[one], strict=True))
        ratios = [own / base for own, base in zip(seconds[way], seconds[one], strict=True)]
        content["largest_loss_difference"][way], content["ratio"][way] = differs, ratios
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"{way:26} students {statistics.median(seconds[way]):6.1f} s, {ratio} times one process; "
            f"largest difference of a loss in {len(losses[way])} epochs {differs:.1e}"
        )
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
