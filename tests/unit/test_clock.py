"""A clock on the wall that is set: durations stay what they are, and what is told goes by the new time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.residency.clock import Clock
from core.residency.keeper import Keeper
from strategies.keep_alive import KeepAlive
from tests.helpers.fakes import FakeLoader
from tests.helpers.support import keeper_of

TTL = 600.0
HOUR = 3600.0


class Wall:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def keeper(wall: Wall, checkpoints: list[Path]) -> Iterator[Keeper]:
    keeper = keeper_of(KeepAlive(ttl=TTL), FakeLoader(), *checkpoints, clock=Clock(wall=wall))
    yield keeper
    keeper.close()


@pytest.mark.process
@pytest.mark.parametrize("ahead", [-24 * HOUR, -HOUR, -5.0, 5.0, HOUR, 1000 * HOUR])
def test_a_step_makes_no_duration_wrong(keeper: Keeper, wall: Wall, ahead: float) -> None:
    keeper.load("a")
    wall.ahead = ahead
    assert keeper.unload("a")
    unload, load = keeper.host.history("a")
    assert 0 <= unload.seconds == unload.at - load.at < 60
    assert 0 <= load.seconds < 60


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
def test_what_is_told_after_a_step_goes_by_the_new_time(keeper: Keeper, wall: Wall, ahead: float) -> None:
    keeper.load("a")
    wall.ahead = ahead
    keeper.load("b")
    epoch = keeper.host.clock.epoch
    [first, second] = keeper.residents()
    for copy in (first, second):
        seen = keeper.status(copy.model_id)
        assert seen is not None
        assert seen.expires is not None
        since, last_use, expires = map(epoch, (copy.loaded_at, seen.last_used, seen.expires))
        assert since <= last_use <= expires
        assert last_use == pytest.approx(wall(), abs=60)
        assert expires == pytest.approx(last_use + TTL, abs=60)
    assert first.loaded_at < second.loaded_at
    assert keeper.next_out() == "a"


def test_without_a_step_a_moment_is_told_alike_each_time() -> None:
    now, wall = [100.0], [5000.0]
    clock = Clock(now=lambda: now[0], wall=lambda: wall[0])
    assert clock.epoch(90.0) == 4990.0
    now[0], wall[0] = 200.0, 5100.3  # they drift apart
    assert clock.epoch(90.0) == 4990.0
    wall[0] = 6100.3  # it was set, or the machine slept
    assert clock.epoch(90.0) == pytest.approx(5990.3)
