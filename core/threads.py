"""How many cores the process may use, and torch told so before it is imported."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")
VARIABLE = "OMP_NUM_THREADS"


def cores() -> int:
    """By affinity and by the quota of a container (cgroup v2), which torch does not know of."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP.read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or `max`
        return allowed


def torch_threads() -> int:
    """The threads that one forward uses: what the user set, or all cores."""
    named = os.environ.get(VARIABLE, "")
    return int(named) if named.isdecimal() and int(named) > 0 else cores()


def limit_torch() -> None:
    """Has an effect only before torch is imported."""
    os.environ[VARIABLE] = str(torch_threads())
    # libgomp's threads spin for milliseconds when a forward is over, on cores that its answer needs to leave.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
