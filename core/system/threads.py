"""The cores that the process may use, torch's number of threads, and the cores that these threads run on."""

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
GRAIN = 1 << 15  # the least elements that torch gives to a thread (at::internal::GRAIN_SIZE)

_this_thread = threading.local()


def cores(root: Path = ROOT) -> int:
    """The number of cores that the process may use, by its affinity and by the quotas of control groups.

    torch ignores these quotas. `root` is as in `cpu_quota`.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, cpu_quota(root)))


def forward_threads() -> int:
    """The number of threads that a forward uses: the user's setting, or one for each core."""
    setting = os.environ.get(VARIABLE, "")
    return int(setting) if setting.isdecimal() and int(setting) > 0 else cores()


def limit_torch() -> None:
    """Set the number of torch's threads, and how long they spin. Has an effect only before torch is imported."""
    os.environ[VARIABLE] = str(forward_threads())
    # By default libgomp's threads spin for milliseconds after a forward, on cores that are needed to send the answer.
    os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT") or "3000"


def spread_forwards() -> None:
    """Bind this thread, which runs forwards, to one core, and the threads that compute with it to the others.

    When they wake after a pause, two of them may be on the same core and take turns there, forward after forward, while
    another core is idle: 22 ms instead of 8 (MiniLM, one text, 2 cores of a virtual machine; loader transformers), 24
    instead of 18 (onnxruntime; there also 110 requests per second instead of 148). Binds nothing if a forward does
    not use all cores, because other threads then need the choice, or if the user has bound the threads.
    """
    if (own := forward_core()) is None:
        return
    if "torch" in sys.modules:
        _spread_torch(own)
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, {own})
        _this_thread.waits_for_torch = True


def spread_torch() -> None:
    """Do the rest of `spread_forwards` in a thread that called it before torch was imported.

    Call it before the thread's first forward by torch.
    """
    if getattr(_this_thread, "waits_for_torch", False):
        _this_thread.waits_for_torch = False
        if (own := forward_core()) is not None:
            _spread_torch(own)


def use_any_core() -> None:
    """Let this thread run on any core. A thread inherits the binding of the one that started it."""
    if TASKS.is_dir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, _allowed())


def forward_core() -> int | None:
    """The core that the thread which runs forwards is bound to; None if threads are not bound.

    It depends on the process id, so that workers use different cores.
    """
    if not TASKS.is_dir() or any(map(os.environ.get, BOUND_BY_USER)):
        return None
    allowed, count = _allowed(), forward_threads()
    return sorted(allowed)[os.getpid() % count] if 1 < count == len(allowed) else None


def helper_cores() -> list[int]:
    """The cores for the threads that compute with the one on `forward_core`; empty if threads are not bound."""
    own = forward_core()
    return [] if own is None else sorted(_allowed() - {own})


@functools.cache
def _allowed() -> frozenset[int]:
    """The cores of a thread that is not bound. The first call must come from such a thread."""
    return frozenset(os.sched_getaffinity(0))


def _spread_torch(own: int) -> None:
    allowed = _allowed()
    others = allowed - {own}
    try:
        os.sched_setaffinity(0, others)
        sys.modules["torch"].zeros(forward_threads() * GRAIN).neg_()  # starts torch's threads, which inherit `others`
        have_started = any(os.sched_getaffinity(int(t.name)) == others for t in TASKS.iterdir() if not _is_current(t))
        os.sched_setaffinity(0, {own} if have_started else allowed)
    except (OSError, AttributeError):  # a sandbox may forbid it, or torch may be half imported
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def _is_current(task: Path) -> bool:
    return int(task.name) == threading.get_native_id()
