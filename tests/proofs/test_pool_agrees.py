"""The threaded pool and the simulator decide the same, at the same moments and in the same order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts import Resident
from core.planning.profile import ModelProfile
from core.planning.simulator import Server
from core.residency.decisions import Decisions
from core.residency.keeper import Keeper
from strategies.cached import Cached
from strategies.keep_alive import KeepAlive
from strategies.lru_cached import LruCached
from strategies.on_demand import OnDemand
from strategies.persistent import Persistent
from tests.helpers.stage import FakeCondition, Slot, Stage

MIB = 1 << 20
NAMES = "abcd"
Event = tuple[Any, ...]


class Own:
    """A strategy with everything: it evicts the largest, keeps by what it has seen, and pins."""

    name = "own"

    def __init__(self, budget: int | None, capacity: int | None, pinned: Collection[str], shared: bool) -> None:
        self.memory_budget, self.capacity, self.pinned, self.shared = budget, capacity, pinned, shared
        self._seen: dict[str, int] = {}

    def start(self, models: Mapping[str, int]) -> Iterable[str]:
        return self.pinned if self.shared else ()

    def requested(self, model_id: str, now: float) -> None:
        self._seen[model_id] = self._seen.get(model_id, 0) + 1

    def keep(self, model: Resident, now: float) -> float:
        """Longer the more it was asked for, and now and then not at all."""
        return 0.0 if model.uses % 3 == 2 else 0.37 * self._seen.get(model.model_id, 1) + model.load_seconds

    def evict(self, candidates: Collection[Resident], now: float) -> str:
        return max(candidates, key=lambda model: (model.nbytes, model.model_id)).model_id


class Recorded:
    """A strategy whose decisions are written down, and what it is told."""

    def __init__(self, strategy: Any) -> None:
        self.events: list[Event] = []
        self._strategy = strategy
        for name in ("shared", "capacity", "memory_budget", "pinned", "start", "requested"):
            if hasattr(strategy, name):
                setattr(self, name, getattr(strategy, name))

    def loaded(self, model: Resident, reason: str, now: float) -> None:
        self._write(now, "loaded", model.model_id, reason, model.load_seconds, model.load_waiters)
        getattr(self._strategy, "loaded", lambda *_: None)(model, reason, now)

    def unloaded(self, model: Resident, reason: str, now: float) -> None:
        self._write(now, "unloaded", model.model_id, reason, model.uses, model.last_used)
        getattr(self._strategy, "unloaded", lambda *_: None)(model, reason, now)

    def keep(self, model: Resident, now: float) -> float:
        seconds: float = getattr(self._strategy, "keep", lambda *_: math.inf)(model, now)
        self._write(now, "keep", model.model_id, model.uses, seconds)
        return seconds

    def evict(self, candidates: Collection[Resident], now: float) -> str:
        default = next(iter(candidates)).model_id
        chosen: str = getattr(self._strategy, "evict", lambda *_: default)(candidates, now)
        self._write(now, "evict", chosen, *[model.model_id for model in candidates])
        return chosen

    def _write(self, now: float, *event: Any) -> None:
        told = tuple(round(part, 6) if isinstance(part, float) else part for part in event)
        self.events.append((round(max(now, 0.0), 6), *told))


@dataclass(frozen=True)
class Scenario:
    """Models by what they take (seconds of a load, a forward, an unload; bytes), and who asks for which, when."""

    models: tuple[tuple[float, float, float, int], ...]
    requests: tuple[tuple[float, int], ...]


class FakeHost:
    """What a keeper needs of `core.residency.host.Host`, on a stage."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self.clock = SimpleNamespace(now=stage.now)
        self.model_ids = tuple(NAMES[: len(scenario.models)])
        self.versions = SimpleNamespace(switch_lock=nullcontext())
        self.is_running = False
        self._stage = stage
        self._takes = dict(zip(NAMES, scenario.models, strict=False))

    def size(self, model_id: str, budget: int | None = None) -> int:
        return self._takes[model_id][3]

    def engine(self, model_id: str) -> None:
        return None

    def record_timeout(self, model_id: str, seconds: float) -> None:
        """Nobody observes it."""

    def version(self, model_id: str) -> None:
        return None

    def load(self, model_id: str) -> Any:
        seconds, _, _, nbytes = self._takes[model_id]
        if self.is_running:
            self._stage.sleep(seconds)
        record = SimpleNamespace(nbytes=nbytes, seconds=seconds, cpu_seconds=seconds / 2)
        engine = SimpleNamespace(engine=None, has_ended=lambda: False)
        return SimpleNamespace(model_id=model_id, version=None, nbytes=nbytes, record=record, **vars(engine))

    def close(self, model: Any, reason: str, loaded_at: float) -> None:
        if (seconds := self._takes[model.model_id][2]) and self.is_running:
            self._stage.sleep(seconds)

    def record_load(self, *_: Any) -> None:
        pass


def in_threads(strategy: Any, scenario: Scenario) -> list[Event]:
    """What is decided by a keeper whose lanes are threads."""
    stage, recorded = Stage(), Recorded(strategy)
    host: Any = FakeHost(stage, scenario)
    timer: Any = stage.timer
    condition: Any = FakeCondition(stage)
    keeper = Keeper(Decisions(recorded, "recorded"), host, timer, lambda: condition)
    queues: dict[str, deque[float]] = {name: deque() for name in host.model_ids}
    busy: set[str] = set()
    slot = Slot(stage)
    keeper.count_queued = lambda model_id: len(queues[model_id])
    end = 0.0

    def lane(name: str, service: float) -> None:
        nonlocal end
        while queues[name]:
            with keeper.lease(name) as lent:
                with slot.held():
                    queues[name].popleft()
                    stage.sleep(service)
                lent.answered = 1
                end = stage.time
        busy.discard(name)

    def clients() -> None:
        keeper.start()
        host.is_running = True
        for at, model in scenario.requests:
            stage.sleep(at - stage.time)
            name = NAMES[model]
            queues[name].append(at)
            keeper.record_request(name)
            if name not in busy:
                busy.add(name)
                stage.spawn(lane, name, scenario.models[model][1])

    stage.spawn(clients)
    stage.run()
    return [event for event in recorded.events if event[0] <= end + 1e-6]  # they are rounded


def simulated(strategy: Any, scenario: Scenario) -> list[Event]:
    """What is decided in a simulation of the same."""
    recorded = Recorded(strategy)
    profiles = [
        ModelProfile(
            warm=(service,), first=(service,), load=(load,), unload=unload, further=0.0, around=0.0, around_cold=0.0,
            weights_mib=nbytes / MIB, mib=1.0, request_cpu=0.0, load_cpu=load / 2,
        )
        for load, service, unload, nbytes in scenario.models
    ]  # fmt: skip
    server = Server(Decisions(recorded, "recorded"), NAMES[: len(profiles)], profiles, 1, 0)
    at, asked = zip(*scenario.requests, strict=True)
    server.run(at, asked)
    return recorded.events


PRIMES = iter([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41])


def thousandths(most: int) -> st.SearchStrategy[float]:
    """Of a second and a little more, each time another little: so nothing ends when something else does."""
    each = 1e-3 * (1 + 1e-3 * math.sqrt(next(PRIMES)))
    return st.integers(1, most).map(lambda number: number * each)


MOMENTS = thousandths(40_000)
MODELS = [
    st.tuples(
        thousandths(3000),
        thousandths(800),
        st.one_of(st.just(0.0), thousandths(300)),
        st.integers(1, 5).map(lambda number: number * MIB),
    )
    for _ in NAMES
]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    models = draw(st.integers(1, len(MODELS)).flatmap(lambda count: st.tuples(*MODELS[:count])))
    request = st.tuples(MOMENTS, st.integers(0, len(models) - 1))
    requests = draw(st.lists(request, min_size=1, max_size=14, unique_by=lambda each: each[0]))
    return Scenario(models, tuple(sorted(requests)))


@st.composite
def strategies(draw: st.DrawFn) -> Any:
    """How to make one of the strategies."""
    budget: Any = draw(st.sampled_from([None, 5 * MIB, 7 * MIB, 11 * MIB]))
    ttl: Any = draw(st.sampled_from([0.0, 0.31, 2.77, "forever", "auto", "learned"]))
    pinned = draw(st.sampled_from([(), ("a",)])) if budget is None else ()
    capacity = draw(st.sampled_from([None, 1, 2, 3]))
    evict: Any = draw(st.sampled_from(["best", "lru", "sieve", "aged-gdsf"]))
    return draw(
        st.sampled_from([
            Persistent,
            lambda: OnDemand(share=False),
            lambda: OnDemand(share=True),
            lambda: LruCached(capacity=capacity, memory_budget=budget),
            lambda: Cached(capacity=capacity, memory_budget=budget, evict=evict, latency_hour=1.0),
            lambda: KeepAlive(ttl="learned", memory_budget=budget, evict=evict, memory_gib_hour=400.0),
            lambda: KeepAlive(ttl=ttl, memory_budget=budget, preload=pinned, pin=pinned, memory_gib_hour=400.0),
            lambda: Own(budget, capacity, pinned if capacity is None else (), True),
            lambda: Own(budget, capacity, (), False),
        ])
    )  # fmt: skip


def check(make: Any, scenario: Scenario) -> None:
    """Up to a moment at which the same things happen in another order: where two chains of loads and forwards are of
    the same parts, they end at one moment, and what follows depends on who is first.
    """
    one, other = in_threads(make(), scenario), simulated(make(), scenario)
    if one == other:
        return
    first = next(i for i, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])
    assert first < min(len(one), len(other)), (one[first:], other[first:])
    moment = one[first][0]
    at_once = [sorted(map(repr, (event for event in each if event[0] == moment))) for each in (one, other)]
    assert at_once[0] == at_once[1], (one[first:], other[first:])


def test_another_decision_is_a_difference() -> None:
    """Which `check` would find: an eviction of another model at the same moment."""
    scenario = Scenario(((0.1, 0.1, 0.0, MIB),) * 3, ((1.0, 0), (2.0, 1), (3.0, 2), (4.0, 0)))
    strategies = iter([LruCached(capacity=2), Own(None, 2, (), True)])
    with pytest.raises(AssertionError):
        check(lambda: next(strategies), scenario)


@settings(deadline=None, max_examples=500, derandomize=True)
@given(make=strategies(), scenario=scenarios())
def test_threads_and_simulator_decide_the_same(make: Any, scenario: Scenario) -> None:
    check(make, scenario)


@pytest.mark.slow
@settings(deadline=None, max_examples=100_000)
@given(make=strategies(), scenario=scenarios())
def test_threads_and_simulator_decide_the_same_a_hundred_thousand_times(make: Any, scenario: Scenario) -> None:
    check(make, scenario)
