"""How many cores the process may use, torch told so before it is imported, and its threads spread over them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from pathlib import Path

from .cgroups import ROOT, cpu_quota

VARIABLE = "OMP_NUM_THREADS"
BOUND_BY_USER = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
TASKS = Path("/proc/self/task")
GRAIN = 1 << 15  # elements, of which torch gives each of its threads so many (at::internal::GRAIN_SIZE)


def cores(root: Path = ROOT) -> int:
    """By affinity and by the quotas of control groups, which torch does not know of; `root` as of `cpu_quota`."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, cpu_quota(root)))


def torch_threads() -> int:
    """The threads that one forward uses: what the user set, or all cores."""
    named = os.environ.get(VARIABLE, "")
    return int(named) if named.isdecimal() and int(named) > 0 else cores()


def limit_torch() -> None:
    """Has an effect only before torch is imported."""
    os.environ[VARIABLE] = str(torch_threads())
    # libgomp's threads spin for milliseconds when a forward is over, on cores that its answer needs to leave.
    os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT") or "3000"


def spread_forwards() -> None:
    """For a thread that runs forwards: keep it on one core, and those that compute with it on the others.

    Woken after a pause, they may find themselves on the same core and take turns there, forward after forward, while
    another one is idle: 22 ms in place of 8 (MiniLM, one text, 2 cores of a virtual machine). Nothing is bound where a
    forward does not take all cores, since then others need the choice; nor where the user has bound the threads.
    """
    if "torch" not in sys.modules or not TASKS.is_dir() or any(map(os.environ.get, BOUND_BY_USER)):
        return
    allowed, count = os.sched_getaffinity(0), torch_threads()
    if count < 2 or count != len(allowed):
        return
    own = sorted(allowed)[os.getpid() % count]  # not the same one in every worker
    others = allowed - {own}
    try:
        os.sched_setaffinity(0, others)
        sys.modules["torch"].zeros(count * GRAIN).neg_()  # starts the others, which inherit where they may run
        started = any(os.sched_getaffinity(int(task.name)) == others for task in TASKS.iterdir() if not _is_this(task))
        os.sched_setaffinity(0, {own} if started else allowed)
    except (OSError, AttributeError):  # a sandbox may forbid it, and torch be half imported
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def _is_this(task: Path) -> bool:
    return int(task.name) == threading.get_native_id()
