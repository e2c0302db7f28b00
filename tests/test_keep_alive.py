from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ByteSize

from core.choices import Cost
from core.decide.prices import Prices as StatedPrices
from core.plugins import load_plugins
from strategies._cold_starts import ColdStarts, Prices
from strategies.keep_alive import KeepAlive
from strategies.on_demand import OnDemand
from tests.fakes import SIZE, FakeLoader
from tests.support import SECONDS, checkpoint_in, gated, host_of, in_threads, wait_for


def keeper(directories: list[Path], **options: Any) -> tuple[KeepAlive, FakeLoader]:
    loader = FakeLoader()
    strategy = KeepAlive(host_of(loader, *directories), **options)
    strategy.start()
    return strategy, loader


def use(strategy: Any, *model_ids: str) -> None:
    for model_id in model_ids:
        with strategy.acquire(model_id) as model:
            assert model.predict(["good"]) == [("POSITIVE", 0.75)]


def test_frees_a_model_when_its_time_is_up(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl=0.05)
    use(strategy, "a", "b")
    wait_for(lambda: loader.held == 0)
    use(strategy, "a")
    assert loader.loads == 3
    strategy.close()


def test_a_very_long_time_keeps_nobody_elses_from_ending(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl={"a": 1e10, "b": 0.01})
    use(strategy, "a")
    use(strategy, "b", "c")  # c has the default
    wait_for(lambda: loader.held == 2 * SIZE)
    strategy.close()


def test_zero_frees_at_once_and_forever_never(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl={"a": 0, "b": "forever", "c": 0.01})
    use(strategy, "a", "b", "c")
    wait_for(lambda: loader.held == SIZE)  # b
    use(strategy, "b", "a")
    assert (loader.loads, loader.held) == (4, SIZE)
    strategy.close()
    assert loader.held == 0


def test_a_model_in_use_does_not_expire(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl=0.01)
    with strategy.acquire("a") as model:
        use(strategy, "b")
        wait_for(lambda: loader.held == SIZE)  # b's time came and went
        assert model.predict(["good"]) == [("POSITIVE", 0.75)]
    wait_for(lambda: loader.held == 0)
    strategy.close()


def test_who_comes_as_the_timer_fires_gets_a_model(checkpoints: list[Path]) -> None:
    """Uses that are as far apart as the time to live, from many threads: each finds a model, none an error."""
    strategy, loader = keeper(checkpoints, ttl=0.0005)
    in_threads(8, lambda i: use(strategy, *["abc"[i % 3]] * 300))
    wait_for(lambda: loader.held == 0)
    assert loader.loads > 3  # it did expire in between
    strategy.close()


def test_preloads_and_pins(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl="forever", preload=["a"], pin=["a"], memory_budget=ByteSize(2 * SIZE))
    assert loader.loads == 1
    use(strategy, "b", "c", "a")
    assert (loader.loads, loader.most) == (3, 2 * SIZE)  # a stayed
    strategy.close()
    strategy, loader = keeper(checkpoints, ttl=0, pin=["a"])
    use(strategy, "a", "b", "a")
    assert loader.loads == 2
    strategy.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ttl": {"x": 1.0}}, "no model 'x'; models: a, b, c"),
        ({"preload": ["x"]}, "no model 'x'; models: a, b, c"),
        ({"pin": ["x"]}, "no model 'x' to pin"),
        (
            {"pin": ["a", "b"], "memory_budget": ByteSize(2 * SIZE)},
            "model 'c' takes 1000B beside 2.0KiB that are pinned",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(checkpoints: list[Path], options: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        keeper(checkpoints, **options)


def test_options_in_yaml() -> None:
    entry = load_plugins().strategy("keep-alive")
    for options in (
        {"ttl": 30},
        {"ttl": 0},
        {"ttl": "forever"},
        {"ttl": "auto"},
        {"ttl": {"a": "auto", "c": 5, "b": "forever"}},
        {"pin": ["a"]},
    ):
        assert entry.validate(dict(options)) == options


def test_on_demand_shares_the_load_of_requests_that_overlap(checkpoints: list[Path]) -> None:
    loader = FakeLoader()
    strategy = OnDemand(host_of(loader, *checkpoints), share=True)
    assert strategy._pool is not None
    entries = strategy._pool._entries
    with gated(checkpoints[0]) as gate, ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use, strategy, "a") for _ in range(8)]
        wait_for(lambda: "a" in entries and entries["a"].users == 8)
        gate.open()
        for user in users:
            user.result(SECONDS)
    assert (loader.loads, loader.held) == (1, 0)
    with strategy.acquire("a"), strategy.acquire("a"):
        assert loader.held == SIZE
    assert (loader.loads, loader.held) == (2, 0)


def test_a_storm_over_a_small_budget(tmp_path: Path) -> None:
    """32 threads × 200 uses of 8 models with room for 3: no error, no deadlock, never over budget."""
    directories = [checkpoint_in(tmp_path / name) for name in "defghijk"]
    strategy, loader = keeper(directories, ttl="forever", memory_budget=ByteSize(3 * SIZE))
    in_threads(32, lambda i: use(strategy, *("defghijk"[(i * 5 + j * 3) % 8] for j in range(200))))
    assert loader.most == 3 * SIZE
    strategy.close()
    assert loader.held == 0


class Timed:
    """`core.contracts.Load` of models of 512 MiB; each load takes what is said here: seconds, and of a processor."""

    model_ids = ("a",)
    nbytes = 512 << 20

    def __init__(self, *takes: tuple[float, float], own_process: bool = False) -> None:
        self.now = self.processor = 0.0
        self._takes = list(takes)
        self._own_process = own_process

    def size(self, model_id: str) -> int:
        return self.nbytes

    def epoch(self, moment: float) -> float:
        return moment

    def __call__(self, model_id: str) -> Any:
        seconds, processor = self._takes.pop(0)
        self.now += seconds
        self.processor += processor
        return SimpleNamespace(nbytes=self.nbytes, own_process=self._own_process)


def auto(load: Timed, cost: Cost) -> ColdStarts:
    prices = Prices(cost.memory_gib_hour, cost.cpu_hour, cost.latency_hour)
    return ColdStarts(load, prices, clock=lambda: load.now, processor=lambda: load.processor)


@pytest.mark.parametrize(
    ("takes", "own_process", "waiting", "processor"),
    [
        ((2.0, 0.5), False, 1, 0.5),
        ((2.0, 3.5), False, 1, 2.0),  # others computed meanwhile
        ((2.0, 0.0), True, 1, 2.0),  # the child's processor time is not known here
        ((2.0, 0.5), False, 3, 0.5),
    ],
)
def test_auto_keeps_a_model_for_as_long_as_a_cold_start_costs(
    takes: tuple[float, float], own_process: bool, waiting: int, processor: float
) -> None:
    cost = Cost(latency_hour=0.5)
    cold_starts = auto(Timed(takes, own_process=own_process), cost)
    assert cold_starts.seconds("a") == float("inf")
    with ExitStack() as callers:
        for _ in range(waiting):
            callers.enter_context(cold_starts.awaited("a"))
        cold_starts("a")
    stated = StatedPrices.of(cost.model_dump())
    k = stated.cold_start(processor=processor, waiting=waiting * 2.0, load=2.0, mib=512)
    assert cold_starts.seconds("a") == pytest.approx(k / stated.holding(512))


def test_auto_goes_by_the_median_of_the_latest_loads() -> None:
    free = Cost(cpu_hour=0.0)  # then k/m is the load's own time
    cold_starts = auto(Timed((50.0, 1.0), (2.0, 1.0), (1.0, 1.0), *[(4.0, 1.0)] * 5), free)
    for expected in (50.0, 26.0, 2.0, 3.0, 4.0):  # the median of 1, 2, 3, 4 and 5 loads
        cold_starts("a")
        assert cold_starts.seconds("a") == expected
    assert "its ttl is 4 s" in cold_starts.explain("a")
    assert "(median of 5 loads)" in cold_starts.explain("a")
    nothing = auto(Timed((1.0, 1.0)), Cost(memory_gib_hour=0.0))
    nothing("a")
    assert (nothing.seconds("a"), nothing.explain("a")) == (
        float("inf"),
        "its ttl is infinite: holding it costs nothing",
    )


def test_auto_is_in_effect_and_explained(checkpoints: list[Path]) -> None:
    strategy, loader = keeper(checkpoints, ttl={"a": "auto", "b": 60.0})
    use(strategy, "a", "b")
    known = strategy.explain("a")
    [told] = re.findall(r"its ttl is (\S+) s", known["why"])
    assert known["expires"] - known["last_use"] == pytest.approx(float(told), rel=0.02, abs=1)
    assert strategy.explain("b")["expires"] - known["last_use"] == pytest.approx(60, abs=5)
    assert "ttl" not in strategy.explain("b")["why"]
    strategy.close()
    dear, loader = keeper(checkpoints, ttl={"a": "auto", "b": 60.0}, memory_gib_hour=1e12)
    use(dear, "a", "b")
    wait_for(lambda: loader.held == SIZE)  # a was freed after the time that its load took
    assert (dear.explain("a"), dear.explain("b")["in_use"]) == ({}, 0)
    dear.close()


def test_autos_prices_are_those_of_an_experiment() -> None:
    fields = load_plugins().strategy("keep-alive").options.model_fields
    for name in ("memory_gib_hour", "cpu_hour", "latency_hour"):
        assert fields[name].default == getattr(Cost(), name)
