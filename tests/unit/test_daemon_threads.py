from __future__ import annotations

import gc
import weakref
from concurrent.futures import CancelledError
from threading import Event, current_thread
from threading import enumerate as all_threads

import pytest

from core.serving.threads import DaemonThreads
from tests.helpers.support import SECONDS, wait_for


def threads(name: str) -> int:
    return sum(thread.name == name for thread in all_threads())


def test_runs_no_more_at_a_time_than_it_may_and_reuses_its_threads() -> None:
    pool = DaemonThreads("few", 2)
    gate = Event()
    blocked = [pool.submit(gate.wait, SECONDS) for _ in range(5)]
    assert threads("few") == 2
    gate.set()
    assert all(future.result(SECONDS) for future in blocked)
    assert [pool.submit(divmod, i, 3).result(SECONDS) for i in range(50)] == [divmod(i, 3) for i in range(50)]
    assert threads("few") == 2
    assert pool.submit(lambda: current_thread().daemon).result(SECONDS)
    pool.shutdown()
    wait_for(lambda: threads("few") == 0)


def test_a_failure_is_the_callers_and_ends_no_thread() -> None:
    pool = DaemonThreads("one", 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(SECONDS)
    assert pool.submit(divmod, 1, 1).result(SECONDS) == (1, 0)
    pool.shutdown()


def test_closed_it_cancels_what_has_not_begun() -> None:
    pool, gate = DaemonThreads("one", 1), Event()
    running, waiting = pool.submit(gate.wait, SECONDS), pool.submit(gate.wait, SECONDS)
    wait_for(running.running)
    pool.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    with pytest.raises(RuntimeError, match="is closed"):
        pool.submit(gate.wait)
    gate.set()
    assert running.result(SECONDS)


def test_an_idle_thread_keeps_nothing() -> None:
    class Thing:
        pass

    pool, thing = DaemonThreads("one", 1), Thing()
    gone = weakref.ref(thing)
    pool.submit(id, thing).result(SECONDS)
    del thing
    wait_for(lambda: gc.collect() >= 0 and gone() is None)
    pool.shutdown()


def test_a_thread_that_cannot_be_prepared_works_all_the_same() -> None:
    pool = DaemonThreads("bare", 1, initialize=lambda: divmod(1, 0) and None)
    assert [pool.submit(divmod, i, 3).result(SECONDS) for i in range(3)] == [divmod(i, 3) for i in range(3)]
    pool.shutdown()
