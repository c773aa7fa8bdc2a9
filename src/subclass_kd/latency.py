"""How long an ONNX model takes for a batch, on this machine's CPU."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from subclass_kd.bundle import INPUT, make_session
from subclass_kd.cores import count_cores

BATCHES = (1, 32)
SECONDS, FEWEST, MOST = 0.5, 10, 1000  # of one measurement; runs


def measure(path: Path, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time a model on noise: batches of 1 and 32, one thread and as many as there are cores.

    Args:
        path: an ONNX model that takes pixels (N, C, H, W) uint8.
        shape: (C, H, W).

    Returns:
        A row for each, with ``batch``, ``threads``, ``runs``, and ``p50`` and ``p95`` of a run in milliseconds.
    """
    rows = []
    for threads in sorted({1, count_cores()}):
        session = make_session(path, threads)
        for batch in BATCHES:
            pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
            for _ in range(3):  # the first runs set up
                session.run(None, {INPUT: pixels})
            taken: list[float] = []
            begun = time.perf_counter()
            while len(taken) < FEWEST or (time.perf_counter() - begun < SECONDS and len(taken) < MOST):
                started = time.perf_counter()
                session.run(None, {INPUT: pixels})
                taken.append(1000 * (time.perf_counter() - started))
            p50, p95 = np.percentile(taken, [50, 95])
            row = {"batch": batch, "threads": threads, "runs": len(taken), "p50": float(p50), "p95": float(p95)}
            rows.append(row)
    return rows


def cpu_name() -> str:
    """Name this machine's processor as its maker does, where the system says."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
