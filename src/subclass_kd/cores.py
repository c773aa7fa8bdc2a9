"""How many cores there are to use."""

import os


def count_cores() -> int:
    """Count the cores that this process may use, where the system says (Linux), or those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
