"""The rules of the pool, by themselves: no thread, no lock, no clock; and a strategy that does what it should not."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.contracts import Resident
from core.residency.copies import Copy, Lease
from core.residency.decisions import Decisions
from core.residency.keeper import Keeper
from core.residency.pool import Pool
from tests.helpers.fakes import SIZE, FakeLoader
from tests.helpers.support import SECONDS, ids, keeper_of

SIZES = {"a": 10, "b": 20, "c": 30}


class Strategy:
    """Keeps what it is told to keep, and writes down what it is told."""

    name = "told"

    def __init__(self, *, seconds: float = math.inf, **members: Any) -> None:
        self.seconds = seconds
        self.told: list[str] = []
        vars(self).update(members)

    def requested(self, model_id: str, now: float) -> None:
        self.told.append(f"requested {model_id}")

    def loaded(self, model: Resident, reason: str, now: float) -> None:
        self.told.append(f"loaded {model.model_id} {reason} {model.load_waiters}")

    def keep(self, model: Resident, now: float) -> float:
        self.told.append(f"keep {model.model_id} {model.uses} {model.last_used:g}")
        return self.seconds

    def unloaded(self, model: Resident, reason: str, now: float) -> None:
        self.told.append(f"unloaded {model.model_id} {reason}")


class Machine:
    """A pool whose loads and closings take no time, unless they are held."""

    def __init__(self, strategy: Any, *, holds: bool = False) -> None:
        self.decisions = Decisions(strategy, "told")
        self.pool = Pool(self.decisions, self, SIZES)
        self.holds = holds
        self.now = 0.0
        self.loading: list[Copy] = []
        self.closing: list[Copy] = []
        self.events: list[str] = []
        self.wakes: list[float] = []

    def begin_load(self, copy: Copy) -> None:
        self.loading.append(copy)

    def begin_close(self, copy: Copy, reason: str) -> None:
        self.events.append(f"-{copy.model_id} {reason}")
        self.closing.append(copy)

    def grant(self, lease: Lease) -> None:
        self.events.append(f"+{lease.model_id}")

    def refuse(self, lease: Lease) -> None:
        self.events.append(f"!{lease.model_id}")

    def wake_at(self, moment: float) -> None:
        self.wakes.append(moment)

    def settle(self) -> None:
        while self.loading or self.closing:
            if self.closing:
                self.pool.mark_closed(self.closing.pop(0), self.now)
            else:
                copy = self.loading.pop(0)
                self.pool.mark_loaded(copy, self.now, nbytes=copy.nbytes, seconds=1.0, cpu_seconds=0.5, waiters=2)

    def acquire(self, model_id: str) -> Lease:
        lease = Lease(model_id)
        self.pool.acquire(lease, self.now)
        if not self.holds:
            self.settle()
        return lease

    def release(self, lease: Lease, nbytes: int | None = None) -> None:
        self.pool.release(lease, self.now, 1, nbytes)
        if not self.holds:
            self.settle()

    def use(self, *model_ids: str) -> None:
        for model_id in model_ids:
            self.now += 1
            self.release(self.acquire(model_id))

    @property
    def ids(self) -> list[str]:
        return [copy.model_id for copy in self.pool.residents()]


def test_a_strategy_is_told_of_everything_and_asked_once_for_each_idle_time() -> None:
    strategy = Strategy(seconds=5.0)
    machine = Machine(strategy)
    machine.decisions.requested("a", 0.0)
    machine.use("a", "a")
    assert strategy.told == ["requested a", "loaded a request 2", "keep a 1 1", "keep a 2 2"]
    assert machine.wakes == [6.0]
    machine.pool.wake(6.0)  # it was used in the meantime
    assert machine.wakes == [6.0, 7.0]
    machine.pool.wake(7.0)
    assert strategy.told[-1] == "unloaded a expired"
    assert machine.ids == []


def test_a_strategy_without_members_keeps_everything() -> None:
    machine = Machine(object())
    machine.use("a", "b", "c", "a")
    assert machine.events == ["+a", "+b", "+c", "+a"]
    assert machine.wakes == []


def test_a_model_for_which_pins_that_have_grown_leave_no_room_is_freed_after_its_use() -> None:
    machine = Machine(Strategy(pinned=("a",), memory_budget=40))
    machine.use("a", "b")
    assert machine.ids == ["a", "b"]
    machine.release(machine.acquire("a"), nbytes=35)
    assert machine.events[-1] == "-b budget"
    machine.use("b")
    assert machine.events[-2:] == ["+b", "-b budget"]
    first, second = machine.acquire("b"), machine.acquire("c")
    machine.release(first)
    machine.release(second)
    assert machine.ids == ["a"]


def test_no_time_at_all_frees_at_once() -> None:
    machine = Machine(Strategy(seconds=0.0))
    machine.use("a", "a")
    assert machine.events == ["+a", "-a request"] * 2


def test_an_expiry_that_comes_earlier_is_not_missed() -> None:
    strategy = Strategy(seconds=100.0)
    machine = Machine(strategy)
    machine.use("a")
    strategy.seconds = 2.0
    machine.use("a")
    assert machine.wakes == [101.0, 4.0]
    machine.pool.wake(4.0)
    assert machine.events[-1] == "-a expired"
    machine.pool.wake(101.0)
    assert machine.events[-1] == "-a expired"


def test_a_lease_that_nobody_answered_is_no_use() -> None:
    strategy = Strategy()
    machine = Machine(strategy)
    lease = machine.acquire("a")
    machine.now = 9.0
    machine.pool.release(lease, machine.now, 0)
    assert strategy.told[-1] == "keep a 0 0"


def test_room_is_made_by_the_models_that_the_strategy_names() -> None:
    asked: list[list[str]] = []

    def largest(candidates: Collection[Resident], now: float) -> str:
        asked.append([model.model_id for model in candidates])
        return max(candidates, key=lambda model: model.nbytes).model_id

    machine = Machine(Strategy(memory_budget=45, evict=largest))
    machine.use("b", "a")
    machine.use("c")
    assert (asked, machine.ids) == ([["b", "a"]], ["a", "c"])
    assert machine.pool.next_out(9.0) == "c"


def test_what_is_pinned_neither_expires_nor_goes() -> None:
    strategy = Strategy(seconds=0.0, capacity=1, pinned=("a",))
    machine = Machine(strategy, holds=True)
    first = machine.acquire("a")
    machine.settle()
    machine.release(first)
    waiting = machine.acquire("b")
    machine.settle()
    assert (machine.ids, waiting.copy) == (["a"], None)
    assert not any(told.startswith("keep") for told in strategy.told)
    assert not machine.pool.unload("a", 1.0)


def test_who_finds_no_room_waits_and_the_one_that_goes_is_lent_no_more() -> None:
    machine = Machine(Strategy(capacity=1))
    first, second = machine.acquire("a"), machine.acquire("b")
    third = machine.acquire("a")  # it was named, and is to go
    assert (second.copy, third.copy) == (None, None)
    machine.release(first)
    assert second.copy is not None
    assert third.copy is None
    machine.release(second)
    assert third.copy is not None
    assert machine.events == ["+a", "-a capacity", "+b", "-b capacity", "+a"]


def test_a_load_begins_when_what_goes_is_closed_and_not_before() -> None:
    machine = Machine(Strategy(memory_budget=30), holds=True)
    first = machine.acquire("b")
    machine.settle()
    machine.release(first)
    machine.acquire("c")
    assert (machine.loading, len(machine.closing)) == ([], 1)
    machine.pool.mark_closed(machine.closing.pop(), machine.now)
    assert [copy.model_id for copy in machine.loading] == ["c"]


def test_who_gives_up_gives_up_the_place_in_line() -> None:
    machine = Machine(Strategy(capacity=1))
    first, second, third = (machine.acquire(model_id) for model_id in "abc")
    machine.pool.abandon(second, machine.now)
    machine.release(first)
    assert (second.copy, third.copy is not None) == (None, True)


def test_a_failure_answers_all_who_wait_and_for_a_moment_all_who_come() -> None:
    machine = Machine(Strategy(), holds=True)
    leases = [machine.acquire("a"), machine.acquire("a")]
    machine.pool.mark_failed(machine.loading.pop(), OSError("broken"), 1.0)
    late = machine.acquire("a")
    assert [str(lease.error) for lease in (*leases, late)] == ["broken"] * 3
    machine.now = 2.5
    again = machine.acquire("a")
    machine.settle()
    assert (again.error, again.copy is not None) == (None, True)


def test_after_a_crash_the_next_lease_loads() -> None:
    strategy = Strategy()
    machine = Machine(strategy)
    lease = machine.acquire("a")
    assert lease.copy is not None
    machine.pool.mark_crashed(lease.copy, 1.0)
    assert machine.events == ["+a"]  # who uses it goes on until its end
    machine.release(lease)
    machine.use("a")
    assert machine.events == ["+a", "-a crash", "+a"]
    assert [told for told in strategy.told if told.startswith("loaded")] == ["loaded a request 2", "loaded a crash 2"]


def test_each_request_has_a_model_of_its_own_and_waits_for_room() -> None:
    strategy = Strategy(shared=False, capacity=2)
    machine = Machine(strategy)
    leases = [machine.acquire("a") for _ in range(3)]
    assert [lease.copy is not None for lease in leases] == [True, True, False]
    assert leases[0].copy is not leases[1].copy
    machine.release(leases[0])
    assert leases[2].copy is not None
    assert machine.events == ["+a", "+a", "-a request", "+a"]
    assert not any(told.startswith("keep") for told in strategy.told)


def test_what_takes_more_than_was_reserved_makes_room_at_once() -> None:
    machine = Machine(Strategy(memory_budget=60))
    machine.use("a", "b")
    lease = machine.acquire("c")
    machine.release(lease, nbytes=35)
    assert (machine.events[-1], machine.ids) == ("-a budget", ["b", "c"])


def test_what_turns_out_to_be_too_large_is_freed_after_its_use_and_loads_alone() -> None:
    machine = Machine(Strategy(memory_budget=60))
    machine.use("a")
    machine.release(machine.acquire("c"), nbytes=70)
    assert (machine.events[-1], machine.ids) == ("-c budget", ["a"])
    lease = machine.acquire("c")
    assert (machine.events[-2:], machine.ids) == (["-a budget", "+c"], ["c"])
    assert machine.acquire("a").copy is None
    machine.release(lease)
    assert machine.ids == ["a"]


def test_who_gives_up_while_a_model_of_its_own_loads_leaves_nothing_in_memory() -> None:
    machine = Machine(Strategy(shared=False), holds=True)
    lease = machine.acquire("a")
    machine.pool.abandon(lease, 1.0)
    [copy] = machine.loading
    machine.pool.mark_loaded(copy, 2.0, nbytes=10, seconds=1.0, cpu_seconds=1.0, waiters=0)
    assert (machine.events, machine.ids) == (["-a request"], [])


def test_other_decisions_are_told_of_what_stays_and_asked_about_what_nobody_uses() -> None:
    machine = Machine(Strategy(capacity=3))
    machine.use("b", "c")
    used, other = machine.acquire("a"), Strategy(capacity=2, seconds=5.0)
    machine.pool.set_decisions(Decisions(other, "other"), 4.0)
    assert other.told == [
        "loaded b request 2", "loaded c request 2", "loaded a request 2",
        "keep b 1 1", "keep c 1 2", "unloaded b capacity",
    ]  # fmt: skip
    assert machine.ids == ["c", "a"]
    machine.release(used)
    machine.pool.wake(20.0)
    assert machine.ids == []


def test_a_model_that_is_removed_goes_now_or_when_nobody_uses_it() -> None:
    machine = Machine(Strategy())
    machine.use("a")
    lease = machine.acquire("b")
    for model_id in "abc":
        machine.pool.remove(model_id, 3.0)
    assert (machine.events[-1], machine.ids) == ("-a removed", ["b"])
    machine.release(lease)
    assert (machine.events[-1], machine.ids) == ("-b removed", [])


def test_what_is_named_or_explained_must_be_a_text() -> None:
    strategy = Strategy(
        capacity=1, evict=lambda candidates, now: next(iter(candidates)), explain=lambda model, now: None
    )
    machine = Machine(strategy)
    machine.use("a", "b")
    assert machine.ids == ["b"]
    [copy] = machine.pool.residents()
    assert machine.decisions.explain(copy, 3.0) == ""
    assert machine.decisions.faults == {"evict": 1, "explain": 1}


def test_nothing_is_granted_after_the_end() -> None:
    machine = Machine(Strategy(capacity=1))
    first, second = machine.acquire("a"), machine.acquire("b")
    machine.pool.shut_down(1.0)
    assert isinstance(second.error, RuntimeError)
    machine.release(first)
    assert machine.events == ["+a", "!b", "-a shutdown"]
    assert machine.acquire("a").error is not None


class Faulty:
    """Fails in the way that it is told, wherever it is asked."""

    name = "faulty"

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.capacity = 2

    def requested(self, model_id: str, now: float) -> Any:
        return self._answer()

    def loaded(self, model: Resident, reason: str, now: float) -> Any:
        return self._answer()

    unloaded = loaded

    def keep(self, model: Resident, now: float) -> Any:
        return self._answer()

    def evict(self, candidates: Collection[Resident], now: float) -> Any:
        return self._answer()

    explain = keep

    def state(self) -> Any:
        return self._answer()

    def restore(self, state: Any) -> Any:
        return self._answer()


def fail() -> None:
    raise ZeroDivisionError("a plugin's fault")


@pytest.mark.parametrize("answer", [fail, lambda: math.nan, lambda: -1.0, lambda: "nobody", lambda: None, lambda: [[]]])
def test_a_strategy_that_fails_harms_no_request(
    checkpoints: list[Path], answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_of(Faulty(answer), FakeLoader(), *checkpoints, state="[]")
    for model_id in "abcabc":
        keeper.record_request(model_id)
        with keeper.lease(model_id) as lent:
            assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
    assert ids(keeper) == ["b", "c"]  # as if it had left everything out
    assert keeper.status("c") is not None
    keeper.state()
    assert min(keeper.decisions.faults["keep"], keeper.decisions.faults["evict"]) > 1
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == len({message.split(":")[1] for message in told})  # each member once
    keeper.close()


def test_a_slow_strategy_harms_no_request(checkpoints: list[Path]) -> None:
    """It takes its time under the pool's lock: requests are late, and none fails."""

    class Slow(Faulty):
        def __init__(self) -> None:
            super().__init__(self._wait)
            self._pause = ThreadPoolExecutor(1)

        def _wait(self) -> float:
            self._pause.submit(sum, range(200_000)).result(SECONDS)
            return math.inf

    loader = FakeLoader()
    keeper: Keeper = keeper_of(Slow(), loader, *checkpoints)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: keeper.load("abc"[i % 3]), range(24)))
    assert loader.most <= 2 * SIZE
    keeper.close()
    assert loader.held == 0
