"""One line that says where a figure was measured."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Name the processor, the cores that this process may use, and the version of torch."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    return f"{processor}, {cores} cores, torch {torch.__version__}"
