"""The memory of a process tree over time, of real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import psutil
import pytest

from core.bench.timeline import POINTS, Timeline
from core.system import memory
from core.system.memory import rss
from tests.helpers.support import wait_for

MIB = 1 << 20
# Each line that it reads makes it hold 32 MiB more, in a child that a thread of its own has started.
PARENT = """
import subprocess, sys, threading
def start():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        child.stdin.write(line)
        child.stdin.flush()
        print(child.stdout.readline().decode().strip(), flush=True)
    child.stdin.close()
    child.wait()
CHILD = '''
import sys
kept = []
for line in sys.stdin:
    kept.append(bytes(32 << 20).replace(bytes(1), b"x"))
    print("grown", flush=True)
'''
thread = threading.Thread(target=start)
thread.start()
thread.join()
"""


@contextmanager
def tree() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate()


def grow(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    print(file=process.stdin, flush=True)
    assert process.stdout.readline() == "grown\n"


def test_a_timeline_sees_a_grandchild_grow() -> None:
    with tree() as process:
        grow(process)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) == 2
        assert rss(process.pid) == pytest.approx(sum(each.memory_info().rss for each in family) / MIB, rel=0.05)
        with Timeline(process.pid) as watched:
            points = watched.points
            wait_for(lambda: len(points) > 2)
            before = len(points)
            for _ in range(3):
                grow(process)
            wait_for(lambda: len(points) > before + 1)
    told, mean = watched.since(watched.began)
    assert told is not None
    assert mean is not None
    at, mib = told.at, told.rss_mib
    assert at == sorted(at)
    assert 0 <= at[0] < at[-1] <= watched.ended - watched.began + 1e-3
    assert mib[-1] - mib[0] == pytest.approx(96, abs=8)
    assert mib[0] < mean < mib[-1]
    assert rss(process.pid) is None  # it has ended


def test_many_points_are_thinned_and_their_average_kept() -> None:
    """A clock that each point moves by the interval, and memory that grows by a MiB a second."""
    clock = SimpleNamespace(now=0.0)
    watched = Timeline(0, clock=lambda: clock.now, resident=lambda pid: 100 + clock.now)
    for _ in range(5 * POINTS):
        watched.read()
        clock.now += watched.interval
    told, mean = watched.since(0.0)
    assert told is not None
    at, mib = told.at, told.rss_mib
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert POINTS / 2 <= len(at) <= POINTS
    assert at[0] == 0
    assert max(gaps) <= 2 * min(gaps) + 1e-6
    assert mib == pytest.approx([100 + second for second in at], abs=0.01)
    assert mean == pytest.approx(100 + at[-1] / 2)


def test_without_proc_there_is_no_timeline(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path)
    with Timeline(1) as watched:
        pass
    assert watched.since(watched.began) == (None, None)
