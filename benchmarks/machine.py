"""One line that says where a figure was measured."""

import platform
from pathlib import Path

from subclass_kd.cores import count_cores


def describe_machine() -> str:
    """Name the processor, the cores that this process may use, and the version of torch."""
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    return f"{processor}, {count_cores()} cores, torch {torch.__version__}"
