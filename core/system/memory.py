"""Memory and processor time of a process tree. Without /proc every figure of memory is None."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

PROC = Path("/proc")
KIB_PER_MIB = 1024
CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3)
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def at_rest(pid: int) -> tuple[float | None, float | None]:
    """(PSS, private) in MiB. PSS charges a mapped page in shares to those who map it.

    Private is what the process has written (`Private_Dirty`): a page of a file that it alone maps is the
    page cache's, which can drop it, although the kernel calls that one private, too.

    Reads `smaps_rollup`, which takes milliseconds for a large process: never while something is timed.
    """
    pss = _sum(pid, "smaps_rollup", ("Pss",))
    return pss, _sum(pid, "smaps_rollup", ("Private_Dirty",))


def peak(pid: int) -> float | None:
    """The kernel's high-water mark of resident memory in MiB; summed over the tree, so an upper bound."""
    return _sum(pid, "status", ("VmHWM",))


def resident(pid: int) -> float | None:
    """MiB that a process and its descendants have in memory, each page as often as it is mapped.

    From `statm` and `children` alone, some 20 µs for each thread of the tree. None where there is no such file.
    """
    pages, left = 0, [pid]
    while left:
        process = PROC / str(left.pop())
        try:
            pages += int((process / "statm").read_text().split()[1])
            for thread in (process / "task").iterdir():
                left += _children(thread)
        except OSError:
            continue  # it ended meanwhile
    return pages * PAGE_MIB if pages and (PROC / "thread-self/children").exists() else None


def _children(thread: Path) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in (thread / "children").read_text().split()]
    return []


def processor_seconds(pid: int) -> float | None:
    """Processor time, user and system, since each process began; of those that have ended, what their parents know,
    in ticks of a hundredth of a second.
    """
    try:
        return sum(_seconds(process) for process in _tree(pid)) or None
    except psutil.Error:
        return None


def _seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # it ended meanwhile, and its parent counts it
    own = times.user + times.system
    if sys.platform == "linux":
        with suppress(OSError):  # what ended meanwhile; a load takes less than a tick, and this clock is exact
            own = time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    return float(own + times.children_user + times.children_system)


def reset_peak(pid: int) -> None:
    """Start the high-water mark anew (proc(5), clear_refs); where that is not allowed, it stays."""
    for process in _tree(pid):
        try:
            (PROC / str(process) / "clear_refs").write_text("5")
        except OSError:
            continue


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


def _sum(pid: int, file: str, fields: tuple[str, ...]) -> float | None:
    wanted = re.compile(rf"^(?:{'|'.join(fields)}):\s+(\d+) kB", re.MULTILINE)
    found: list[int] = []
    for process in _tree(pid):
        try:
            found += [int(number) for number in wanted.findall((PROC / str(process) / file).read_text())]
        except OSError:
            continue  # it ended meanwhile, or there is no /proc
    return sum(found) / KIB_PER_MIB if found else None
