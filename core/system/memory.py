"""Memory and CPU time of a process tree. On systems without /proc, all memory figures are None."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

PROC = Path("/proc")
KIB_PER_MIB = 1024
CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3)
PSS_AND_SWAP = re.compile(r"^(?:Pss|SwapPss):\s+(\d+) kB", re.MULTILINE)
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def pss_and_private(pid: int) -> tuple[float | None, float | None]:
    """(PSS, private memory) of a process and its descendants in MiB.

    PSS divides each mapped page among the processes that map it. Private memory is what a process has written
    (`Private_Dirty`). The kernel also calls a file's page private if only one process maps it, but the page cache can
    drop that page, so it does not count here.

    Reads `smaps_rollup`, which takes milliseconds for a large process. Do not call this while something is timed.
    """
    pss = _sum(pid, "smaps_rollup", ("Pss",))
    return pss, _sum(pid, "smaps_rollup", ("Private_Dirty",))


def peak_rss(pid: int) -> float | None:
    """The kernel's high-water mark of resident memory in MiB, summed over the process tree: an upper bound."""
    return _sum(pid, "status", ("VmHWM",))


def rss(pid: int) -> float | None:
    """The resident memory of a process and its descendants in MiB. A page counts once for each process that maps it.

    Reads only `statm` and `children`, which takes about 20 µs for each thread of the tree. None where the system does
    not have these files.
    """
    pages, left = 0, [pid]
    while left:
        process = PROC / str(left.pop())
        try:
            pages += int((process / "statm").read_text().split()[1])
            for thread in (process / "task").iterdir():
                left += _children(thread)
        except OSError:
            continue  # the process has ended
    return pages * PAGE_MIB if pages and (PROC / "thread-self/children").exists() else None


def tree(pid: int) -> list[int]:
    """A process and its descendants, in milliseconds however many other processes there are."""
    if not (PROC / "thread-self/children").exists():
        return _tree(pid)
    found, left = [], [pid]
    while left:
        process = left.pop()
        found.append(process)
        with suppress(OSError):  # it has ended
            for thread in (PROC / str(process) / "task").iterdir():
                left += _children(thread)
    return found


def pss_and_swap(pids: Iterable[int]) -> int | None:
    """Bytes of the processes' memory, `Pss` and `SwapPss`; None if that of none of them can be read."""
    kib: list[int] = []
    for pid in pids:
        with suppress(OSError):  # the process has ended, or there is no /proc
            rollup = (PROC / str(pid) / "smaps_rollup").read_text()
            kib += [int(number) for number in PSS_AND_SWAP.findall(rollup)]
    return sum(kib) * 1024 if kib else None


def _children(thread: Path) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in (thread / "children").read_text().split()]
    return []


def cpu_seconds(pid: int) -> float | None:
    """User and system CPU time of a process tree in seconds, since each process started; None if it has ended.

    Descendants that have ended count as far as their parents waited for them, in ticks of a hundredth of a second.
    """
    try:
        return sum(_process_cpu_seconds(process) for process in _tree(pid)) or None
    except psutil.Error:
        return None


def _process_cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # it has ended, and its parent's figure includes it
    own = times.user + times.system
    if sys.platform == "linux":
        with suppress(OSError):  # the process may have ended; this clock is exact, where a load takes less than a tick
            own = time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    return float(own + times.children_user + times.children_system)


def reset_peak(pid: int) -> None:
    """Reset the high-water mark of resident memory (proc(5), clear_refs), where that is permitted."""
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
    pattern = re.compile(rf"^(?:{'|'.join(fields)}):\s+(\d+) kB", re.MULTILINE)
    kib: list[int] = []
    for process in _tree(pid):
        try:
            kib += [int(number) for number in pattern.findall((PROC / str(process) / file).read_text())]
        except OSError:
            continue  # the process has ended, or there is no /proc
    return sum(kib) / KIB_PER_MIB if kib else None
