from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize

from core.config.choices import Cost
from core.contracts import Resident
from core.costs.prices import Prices as StatedPrices
from core.plugins import load_plugins
from core.residency.keeper import Keeper
from core.results.header import CostSpec
from strategies.keep_alive import KeepAlive
from strategies.on_demand import OnDemand
from tests.helpers.fakes import SIZE, FakeLoader
from tests.helpers.support import SECONDS, checkpoint_in, gated, ids, in_threads, keeper_of, wait_for


def keeping(directories: list[Path], **options: Any) -> tuple[Keeper, FakeLoader]:
    loader = FakeLoader()
    return keeper_of(KeepAlive(**options), loader, *directories), loader


def use(keeper: Keeper, *model_ids: str) -> None:
    for model_id in model_ids:
        with keeper.lease(model_id) as lent:
            assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
            lent.answered = 1


def test_frees_a_model_when_its_time_is_up(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl=0.05)
    use(strategy, "a", "b")
    wait_for(lambda: loader.held == 0)
    use(strategy, "a")
    assert loader.loads == 3
    strategy.close()


def test_a_very_long_time_keeps_nobody_elses_from_ending(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl={"a": 1e10, "b": 0.01})
    use(strategy, "a")
    use(strategy, "b", "c")  # c has the default
    wait_for(lambda: loader.held == 2 * SIZE)
    strategy.close()


def test_a_capacity_counts_pinned_models(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl="forever", capacity=2, pin=["a"])
    use(strategy, "a", "b", "c")
    assert loader.held == 2 * SIZE
    assert sorted(ids(strategy)) == ["a", "c"]
    strategy.close()


def test_a_capacity_leaves_room_beside_pinned_models() -> None:
    sizes = {"a": 1, "b": 1}
    with pytest.raises(ValueError, match="must be more than 1, the number of pinned models"):
        KeepAlive(capacity=1, pin=["a"]).start(sizes)
    KeepAlive(capacity=2, pin=["a", "b"]).start(sizes)


def test_zero_frees_at_once_and_forever_never(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl={"a": 0, "b": "forever", "c": 0.01})
    use(strategy, "a", "b", "c")
    wait_for(lambda: loader.held == SIZE)  # b
    use(strategy, "b", "a")
    assert (loader.loads, loader.held) == (4, SIZE)
    strategy.close()
    assert loader.held == 0


def test_a_model_in_use_does_not_expire(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl=0.01)
    with strategy.lease("a") as lent:
        use(strategy, "b")
        wait_for(lambda: loader.held == SIZE)  # b's time came and went
        assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
    wait_for(lambda: loader.held == 0)
    strategy.close()


def test_who_comes_as_the_timer_fires_gets_a_model(checkpoints: list[Path]) -> None:
    """Uses that are as far apart as the time to live, from many threads: each finds a model, none an error."""
    strategy, loader = keeping(checkpoints, ttl=0.00003)
    for _ in range(3):
        in_threads(8, lambda i: use(strategy, *["abc"[i % 3]] * 100))
        wait_for(lambda: loader.held == 0)
    assert loader.loads > 3  # it did expire in between
    strategy.close()


def test_preloads_and_pins(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl="forever", preload=["a"], pin=["a"], memory_budget=ByteSize(2 * SIZE))
    assert loader.loads == 1
    use(strategy, "b", "c", "a")
    assert (loader.loads, loader.most) == (3, 2 * SIZE)  # a stayed
    strategy.close()
    strategy, loader = keeping(checkpoints, ttl=0, pin=["a"])
    use(strategy, "a", "b", "a")
    assert loader.loads == 2
    strategy.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ttl": {"x": 1.0}}, "no model 'x'; models: a, b, c"),
        ({"preload": ["x"]}, "no model 'x' to load; models: a, b, c"),
        ({"pin": ["x"]}, "no model 'x' to pin"),
        (
            {"pin": ["a", "b"], "memory_budget": ByteSize(2 * SIZE)},
            "model 'c' takes 1000B beside 2.0KiB of pinned models",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(checkpoints: list[Path], options: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        keeping(checkpoints, **options)


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
    keeper = keeper_of(OnDemand(share=True), loader, *checkpoints)
    with gated(checkpoints[0]) as gate, ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use, keeper, "a") for _ in range(8)]
        wait_for(lambda: keeper.waiting("a") == 8)
        gate.open()
        for user in users:
            user.result(SECONDS)
    assert loader.held == 0
    assert loader.loads < 8  # one, unless the first users had done before the last ones were woken
    with keeper.lease("a"), keeper.lease("a"):
        assert loader.held == SIZE
    assert loader.held == 0


@pytest.mark.process
def test_a_storm_over_a_small_budget(tmp_path: Path) -> None:
    """32 threads × 200 uses of 8 models with room for 3: no error, no deadlock, never over budget."""
    directories = [checkpoint_in(tmp_path / name) for name in "defghijk"]
    strategy, loader = keeping(directories, ttl="forever", memory_budget=ByteSize(3 * SIZE))
    in_threads(32, lambda i: use(strategy, *("defghijk"[(i * 5 + j * 3) % 8] for j in range(200))))
    assert loader.most == 3 * SIZE
    strategy.close()
    assert loader.held == 0


def loaded(seconds: float, processor: float, waiters: int = 1) -> Resident:
    """A model of 512 MiB whose load took so long."""
    return Resident("a", 512 << 20, 0.0, seconds, processor, waiters, 0.0, 0)


@pytest.mark.parametrize("waiters", [0, 1, 3])
def test_auto_keeps_a_model_for_as_long_as_a_cold_start_costs(waiters: int) -> None:
    cost = Cost(latency_hour=0.5)
    strategy = KeepAlive(
        ttl="auto",
        memory_gib_hour=cost.memory_gib_hour,
        cpu_hour=cost.cpu_hour,
        latency_hour=cost.latency_hour,
    )
    model = loaded(2.0, 0.5, waiters)
    strategy.loaded(model, "request", 0.0)
    stated = StatedPrices.of(CostSpec.model_validate(cost.model_dump(mode="json")))
    k = stated.cold_start(processor=0.5, waiting=max(1, waiters) * 2.0, load=2.0, mib=512)
    assert strategy.keep(model, 0.0) == pytest.approx(k / stated.holding(512))


def test_auto_goes_by_the_median_of_the_latest_loads() -> None:
    strategy = KeepAlive(ttl="auto", cpu_hour=0.0)  # then k/m is the load's own time
    expected = {50.0: 50.0, 2.0: 26.0, 1.0: 2.0}  # the median of 1, 2 and 3 loads
    for seconds, kept in expected.items():
        strategy.loaded(loaded(seconds, 1.0), "request", 0.0)
        assert strategy.keep(loaded(seconds, 1.0), 0.0) == kept
    for kept in (3.0, 4.0):
        strategy.loaded(loaded(4.0, 1.0), "request", 0.0)
        assert strategy.keep(loaded(4.0, 1.0), 0.0) == kept
    told = strategy.explain(loaded(4.0, 1.0), 0.0)
    assert "its ttl is 4 s" in told
    assert "(median of 5 loads)" in told
    nothing = KeepAlive(ttl="auto", memory_gib_hour=0.0)
    nothing.loaded(loaded(1.0, 1.0), "request", 0.0)
    assert nothing.keep(loaded(1.0, 1.0), 0.0) == float("inf")
    assert nothing.explain(loaded(1.0, 1.0), 0.0) == "it stays, since holding it costs nothing"


def test_auto_is_in_effect_and_explained(checkpoints: list[Path]) -> None:
    strategy, loader = keeping(checkpoints, ttl={"a": "auto", "b": 60.0})
    use(strategy, "a", "b")
    a, b = strategy.status("a"), strategy.status("b")
    assert a is not None
    assert a.expires is not None
    assert b is not None
    assert b.expires is not None
    [told] = re.findall(r"its ttl is (\S+) s", a.explanation)
    assert a.expires - a.last_used == pytest.approx(float(told), rel=0.02, abs=1)
    assert b.expires - b.last_used == pytest.approx(60, abs=5)
    assert b.explanation == ""
    strategy.close()
    dear, loader = keeping(checkpoints, ttl={"a": "auto", "b": 60.0}, memory_gib_hour=1e12)
    use(dear, "a", "b")
    wait_for(lambda: loader.held == SIZE)  # a was freed after the time that its load took
    assert dear.status("a") is None
    assert ids(dear) == ["b"]
    dear.close()


def test_autos_prices_are_those_of_an_experiment() -> None:
    fields = load_plugins().strategy("keep-alive").options.model_fields
    for name in ("memory_gib_hour", "cpu_hour", "latency_hour"):
        assert fields[name].default == getattr(Cost(), name)


def test_auto_keeps_what_is_paid_for_anyway() -> None:
    """A size costs the same whatever is held in it, and a load in it nothing."""
    sizes = [{"memory": "512MiB", "cpu": 0.25, "hour": 0.0123}]
    by_size = Cost.model_validate({"billing": "size", "sizes": sizes, "latency_hour": 1.0})
    registered = load_plugins().strategy("keep-alive")
    stated = StatedPrices.of(CostSpec.model_validate(by_size.model_dump(mode="json")))
    for prices in (by_size.model_dump(), vars(stated)):
        strategy = KeepAlive(**registered.validate(registered.with_prices({"ttl": "auto"}, prices)))
        strategy.loaded(loaded(2.0, 0.5), "request", 0.0)
        assert strategy.keep(loaded(2.0, 0.5), 0.0) == math.inf
