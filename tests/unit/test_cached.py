"""Which models `cached` evicts, through a pool that loads in no time."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ByteSize

from core.plugins import load_plugins
from core.residency.decisions import Decisions
from core.residency.replay import Replay, ReplayedModel
from strategies.cached import Cached
from strategies.eviction import RULES
from strategies.keep_alive import KeepAlive
from strategies.lru_cached import LruCached
from tests.helpers.fakes import SIZE, FakeLoader
from tests.helpers.support import ids, in_threads, keeper_of

GIB = 1 << 30


def model(nbytes: int = GIB, seconds: float = 1.0) -> ReplayedModel:
    return ReplayedModel(nbytes, seconds, seconds, 1.0, seconds)


def colds(strategy: object, models: dict[str, ReplayedModel], asked: Sequence[str]) -> list[int]:
    """The positions of the requests that had to wait for a load."""
    replay = Replay(Decisions(strategy, "cached"), models)
    return [position for position, each in enumerate(asked) if replay.request(each, float(position))]


def zipf(count: int, names: Sequence[str], seed: int = 1, exponent: float = 1.0) -> list[str]:
    weights = [1 / (rank + 1) ** exponent for rank in range(len(names))]
    return random.Random(seed).choices(names, weights, k=count)


def test_lru_evicts_what_the_baseline_evicts() -> None:
    names = [f"m{i}" for i in range(12)]
    models = {name: model((1 + i % 4) * GIB) for i, name in enumerate(names)}
    asked = zipf(2000, names)
    for limits in ({"capacity": 3}, {"memory_budget": ByteSize(9 * GIB)}):
        assert colds(Cached(evict="lru", **limits), models, asked) == colds(LruCached(**limits), models, asked)


def sieve(asked: Sequence[str], capacity: int) -> list[int]:
    """The positions of the misses, by the paper's own form: a list with the newest first, and a hand that moves from
    the oldest to the newest.
    """
    queue: list[str] = []
    visited: OrderedDict[str, bool] = OrderedDict()
    hand: str | None = None
    misses = []
    for position, each in enumerate(asked):
        if each in visited:
            visited[each] = True
            continue
        misses.append(position)
        if len(queue) == capacity:
            at = queue.index(hand) if hand is not None else len(queue) - 1
            while visited[queue[at]]:
                visited[queue[at]] = False
                at = at - 1 if at > 0 else len(queue) - 1
            hand = queue[at - 1] if at > 0 else None
            del visited[queue.pop(at)]
        queue.insert(0, each)
        visited[each] = False
    return misses


@pytest.mark.parametrize("capacity", [1, 2, 5, 9])
def test_sieve_evicts_as_its_paper_says(capacity: int) -> None:
    names = [f"m{i}" for i in range(12)]
    asked = zipf(3000, names, exponent=0.7)
    found = colds(Cached(evict="sieve", capacity=capacity), {name: model() for name in names}, asked)
    assert found == sieve(asked, capacity)


def test_aged_gdsf_prefers_what_is_dear_for_its_size() -> None:
    """Two small models that load slowly stay, and those that load fast take turns in what is left."""
    models = {"dear": model(GIB, 60.0), "slow": model(GIB, 30.0), **{f"m{i}": model(2 * GIB) for i in range(4)}}
    asked = ["dear", "slow", *[each for i in range(100) for each in ("dear", "slow", f"m{i % 4}")]]
    found = colds(Cached(evict="aged-gdsf", memory_budget=ByteSize(4 * GIB)), models, asked)
    assert {asked[position] for position in found if position > 2} <= {f"m{i}" for i in range(4)}


def test_an_aged_frequency_lets_what_was_popular_go() -> None:
    names = [f"m{i}" for i in range(6)]
    models = {name: model() for name in names}
    asked = ["m0"] * 500 + [each for _ in range(400) for each in names[1:4]]
    found = colds(Cached(evict="aged-gdsf", capacity=3), models, asked)
    assert found[-1] < 1200  # m0 has left, and the three that are in use stay


LOOP = [f"m{i % 8}" for i in range(4000)]


def test_best_follows_the_rule_that_costs_the_least() -> None:
    """A loop over more models than fit is LRU's worst case: it never finds any. SIEVE and GDSF do."""
    models = {f"m{i}": model() for i in range(8)}
    by_rule = {rule: len(colds(Cached(evict=rule, capacity=6), models, LOOP)) for rule in RULES}  # type: ignore[arg-type]
    assert by_rule["lru"] == len(LOOP)
    best = len(colds(Cached(capacity=6), models, LOOP))
    assert best <= 1.1 * min(by_rule.values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_best_is_not_much_worse_than_lru(seed: int, share: float) -> None:
    """On recent use alone, which suits LRU the most, and on stationary popularity."""
    draws = random.Random(seed)
    names = [f"m{i}" for i in range(40)]
    models = {name: model(draws.randrange(1, 32) * GIB // 16) for name in names}
    budget = ByteSize(max(2 * GIB, round(share * sum(each.nbytes for each in models.values()))))
    stack = [*names]
    recent = []
    for _ in range(8000):
        stack.insert(0, stack.pop(min(int(draws.expovariate(1 / 8)), len(names) - 1)))
        recent.append(stack[0])
    for asked in (recent, zipf(8000, names, seed)):
        best, lru = (
            sum(models[asked[position]].cold_start for position in colds(each, models, asked))
            for each in (Cached(memory_budget=budget), LruCached(memory_budget=budget))
        )
        assert best <= 1.03 * lru


def test_a_model_of_unknown_size_is_evicted_like_any_other() -> None:
    strategy = Decisions(Cached(capacity=1), "cached")
    strategy.start({})
    for now, model_id in enumerate("abab"):
        strategy.requested(model_id, float(now))
    assert not strategy.faults


def test_pinned_models_stay_and_take_their_room() -> None:
    models = {name: model() for name in "abcd"}
    options = {"ttl": "forever", "pin": ["a"], "memory_budget": ByteSize(3 * GIB)}
    for rule in ("best", "lru", "sieve", "aged-gdsf"):
        strategy = KeepAlive(evict=rule, **options)  # type: ignore[arg-type]
        asked = [each for _ in range(50) for each in "abacad"]
        found = colds(strategy, models, asked)
        assert [asked[position] for position in found].count("a") == 1


def test_options_in_yaml() -> None:
    entry = load_plugins().strategy("cached")
    for options in ({}, {"capacity": 3}, {"memory_budget": 512 << 20, "evict": "sieve"}, {"evict": "best"}):
        assert entry.validate(dict(options)) == options


@pytest.mark.process
def test_many_threads_stay_within_the_budget(checkpoints: list[Path]) -> None:
    loader = FakeLoader()
    keeper = keeper_of(Cached(memory_budget=ByteSize(2 * SIZE)), loader, *checkpoints)

    def use(thread: int) -> None:
        for i in range(100):
            model_id = "abc"[(thread * 5 + i) % 3]
            keeper.record_request(model_id)
            with keeper.lease(model_id) as lent:
                assert lent.model.predict(["good"]) == [("POSITIVE", 0.75)]
                lent.answered = 1

    in_threads(8, use)
    assert loader.most == 2 * SIZE
    assert len(ids(keeper)) == 2
    assert not keeper.decisions.faults
    keeper.close()
