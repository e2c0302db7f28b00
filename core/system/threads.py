"""How many cores the process may use, torch told so before it is imported, and its threads spread over them."""

from __future__ import annotations

import contextlib
import functools
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

_here = threading.local()


def cores(root: Path = ROOT) -> int:
    """By affinity and by the quotas of control groups, which torch does not know of; `root` as of `cpu_quota`."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, cpu_quota(root)))


def forward_threads() -> int:
    """The threads that one forward uses: what the user set, or all cores."""
    named = os.environ.get(VARIABLE, "")
    return int(named) if named.isdecimal() and int(named) > 0 else cores()


def limit_torch() -> None:
    """Has an effect only before torch is imported."""
    os.environ[VARIABLE] = str(forward_threads())
    # libgomp's threads spin for milliseconds when a forward is over, on cores that its answer needs to leave.
    os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT") or "3000"


def spread_forwards() -> None:
    """For a thread that runs forwards: keep it on one core, and those that compute with it on the others.

    Woken after a pause, they may find themselves on the same core and take turns there, forward after forward, while
    another one is idle: 22 ms in place of 8 (MiniLM, one text, 2 cores of a virtual machine; stock loader), 24 in place
    of 18 (onnxruntime, there also 148 requests a second in place of 110). Nothing is bound where a forward does not
    take all cores, since then others need the choice; nor where the user has bound the threads.
    """
    if (own := own_core()) is None:
        return
    if "torch" in sys.modules:
        _spread_torch(own)
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, {own})
        _here.waits_for_torch = True


def spread_torch() -> None:
    """The same, before torch's first forward in a thread that was spread when torch was not imported yet."""
    if getattr(_here, "waits_for_torch", False):
        _here.waits_for_torch = False
        if (own := own_core()) is not None:
            _spread_torch(own)


def spread_no_more() -> None:
    """For a thread that was started by one that is spread, and has other work: it may run on any core."""
    if TASKS.is_dir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, _allowed())


def own_core() -> int | None:
    """The core of the thread that runs this process's forwards; not the same one in every worker. None where threads
    are not bound.
    """
    if not TASKS.is_dir() or any(map(os.environ.get, BOUND_BY_USER)):
        return None
    allowed, count = _allowed(), forward_threads()
    return sorted(allowed)[os.getpid() % count] if 1 < count == len(allowed) else None


def other_cores() -> list[int]:
    """Where the threads belong that compute with the one on `own_core`; none where threads are not bound."""
    own = own_core()
    return [] if own is None else sorted(_allowed() - {own})


@functools.cache
def _allowed() -> frozenset[int]:
    """The cores of a thread that is not spread: those of the first that asks."""
    return frozenset(os.sched_getaffinity(0))


def _spread_torch(own: int) -> None:
    allowed = _allowed()
    others = allowed - {own}
    try:
        os.sched_setaffinity(0, others)
        sys.modules["torch"].zeros(forward_threads() * GRAIN).neg_()  # starts the others, which inherit where they run
        started = any(os.sched_getaffinity(int(task.name)) == others for task in TASKS.iterdir() if not _is_this(task))
        os.sched_setaffinity(0, {own} if started else allowed)
    except (OSError, AttributeError):  # a sandbox may forbid it, and torch be half imported
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def _is_this(task: Path) -> bool:
    return int(task.name) == threading.get_native_id()
