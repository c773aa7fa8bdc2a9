"""How many cores there are to use."""

import contextlib
import math
import os
from pathlib import Path

CONTROL = Path("/sys/fs/cgroup")  # where Linux says what a container may use
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # of version 2, of version 1


def count_cores() -> int:
    """Count the cores that this process may use, where the system says (Linux), or those of the machine.

    A container that may use the time of some cores only has so many, rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, " ".join((CONTROL / name).read_text() for name in names).split())
            if quota > 0 and period > 0:  # -1: no limit
                cores = min(cores, math.ceil(quota / period))
    return cores
