"""Leases for an event loop: places, deadlines, and requests that are cancelled at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.errors import DeadlineExceeded, LoadFailed, Overloaded
from core.residency.keeper import Keeper
from core.serving.events import Ended, Event
from core.serving.forwarding import Forwarder
from core.serving.places import Places
from core.serving.queue import RequestQueue
from strategies.keep_alive import KeepAlive
from strategies.on_demand import OnDemand
from tests.helpers.fakes import FakeLoader
from tests.helpers.support import SECONDS, gated, keeper_of


class Stage:
    """A forwarder over a strategy with the model `a`, and what it reports."""

    def __init__(self, keeper: Keeper, max_queue: int = 1000) -> None:
        self.keeper = keeper
        self.events: list[Event] = []
        self.queue = RequestQueue("test", "a", max_queue, keeper.host.clock.now, self.events.append)
        self.forwarder = Forwarder(keeper, {"a": self.queue})

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.events if isinstance(event, Ended)]

    def leases(self) -> int:
        return sum(copy.leases for copy in self.keeper.residents())

    async def ask(self, parallel: int = 4, seconds: float = SECONDS, work: float = 0.0) -> bool:
        """Returns whether it was cold."""
        async with self.forwarder.lease("a", parallel, seconds) as forwarding:
            forwarding.mark_answered()
            await asyncio.sleep(work)
            return forwarding.cold


@asynccontextmanager
async def holding(stage: Stage, count: int, parallel: int) -> AsyncIterator[None]:
    """So many leases are held."""
    go, held = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal held
        async with stage.forwarder.lease("a", parallel, SECONDS):
            held += 1
            await go.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(hold())
        await until(lambda: held == count)
        try:
            yield
        finally:
            go.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


async def test_one_load_serves_all_that_wait(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    with gated(checkpoints[0]) as gate:
        asking = [asyncio.create_task(stage.ask(20)) for _ in range(20)]
        await asyncio.to_thread(gate.wait_for_load)
        gate.open()
        cold = await asyncio.gather(*asking)
    assert loader.loads == 1
    assert cold == [True] * 20
    assert not await stage.ask()
    await until(lambda: stage.leases() == 0)
    assert stage.outcomes() == ["answered"] * 21
    assert stage.keeper.residents()[0].uses == 21


async def test_requests_at_a_time(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    async with holding(stage, 3, parallel=3):
        assert stage.leases() == 3
        with pytest.raises(DeadlineExceeded):
            await stage.ask(3, seconds=0.01)
        assert not await stage.ask(4)  # more are allowed from now on
    assert stage.queue.slots_in_use == 0


async def test_a_full_queue(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]), max_queue=2)
    async with holding(stage, 2, parallel=2):
        with pytest.raises(Overloaded):
            await stage.ask()
    assert sorted(stage.outcomes()) == ["answered", "answered", "overloaded"]
    assert not await stage.ask()


async def test_a_deadline_ends_the_wait_but_not_the_load(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    with gated(checkpoints[0]) as gate:
        with pytest.raises(DeadlineExceeded):
            await stage.ask(seconds=0.05)
        second = asyncio.create_task(stage.ask())
        await asyncio.to_thread(gate.wait_for_load)
        gate.open()
        assert await second
    assert loader.loads == 1
    assert stage.outcomes() == ["deadline_exceeded", "answered"]


async def test_a_failed_load_fails_all_that_wait(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    (checkpoints[0] / "broken").touch()
    failures = await asyncio.gather(*(stage.ask() for _ in range(5)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [LoadFailed] * 5
    assert stage.outcomes() == ["failed"] * 5


async def test_on_demand_loads_one_after_another(loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage = Stage(keeper_of(OnDemand(), loader, checkpoints[0]))
    assert await asyncio.gather(*(stage.ask(work=0.001) for _ in range(5))) == [True] * 5
    assert (loader.loads, loader.most_copies) == (5, 1)
    await until(lambda: not loader.held)


@pytest.mark.parametrize(
    "strategy", [KeepAlive(ttl=0.001), KeepAlive(ttl=600), OnDemand()], ids=["short", "long", "none"]
)
async def test_cancelled_at_any_moment(strategy: object, loader: FakeLoader, checkpoints: list[Path]) -> None:
    stage, seed = Stage(keeper_of(strategy, loader, checkpoints[0])), random.Random(1)

    async def ask() -> None:
        await asyncio.sleep(seed.random() * 0.02)
        asking = asyncio.create_task(stage.ask(3, seconds=0.02 if seed.random() < 0.2 else SECONDS, work=0.001))
        await asyncio.sleep(seed.random() * 0.01)
        asking.cancel()
        await asyncio.wait({asking})

    for _ in range(10):
        await asyncio.gather(*(ask() for _ in range(20)))
    await until(lambda: stage.leases() == 0)
    assert stage.queue.slots_in_use == 0
    await stage.ask(3)  # every place is free again
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*(stage.ask(3) for _ in range(3)))
    await until(lambda: stage.leases() == 0)
    assert stage.keeper.unload("a")
    await until(lambda: not loader.held)


async def test_another_lease_in_place_of_one_on_an_engine_that_has_ended(
    loader: FakeLoader, checkpoints: list[Path]
) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    async with stage.forwarder.lease("a", 1, SECONDS) as forwarding:
        assert forwarding._leased is not None
        forwarding._leased.has_crashed = True
        assert await forwarding.has_crashed()
        await forwarding.renew()
        assert not forwarding.has_ended
    assert loader.loads == 2
    assert stage.keeper.residents()[0].reason == "crash"
    await until(lambda: stage.leases() == 0)


async def test_the_last_lease_lasts_a_little_unless_memory_is_needed(
    loader: FakeLoader, checkpoints: list[Path]
) -> None:
    stage = Stage(keeper_of(KeepAlive(ttl=600), loader, checkpoints[0]))
    await stage.ask()
    assert stage.leases() == 1
    await asyncio.to_thread(stage.forwarder.end_all)
    assert stage.leases() == 0
    await stage.ask()
    await until(lambda: stage.leases() == 0)


async def test_places_in_order() -> None:
    places, order = Places(), []

    async def enter(number: int) -> None:
        await places.enter(1)
        order.append(number)
        await asyncio.sleep(0)
        places.leave()

    tasks = [asyncio.create_task(enter(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2, 3, 4, 5]
    assert places.taken == 0
