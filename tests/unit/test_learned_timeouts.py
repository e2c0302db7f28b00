"""What `ttl: learned` learns from gaps, through the strategy's own members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from core.contracts import Resident
from core.residency.decisions import Decisions
from core.residency.replay import Replay, ReplayedModel
from strategies.keep_alive import KeepAlive

UNIT = 100.0  # k/m of every model here, in seconds: a load takes as long, and its CPU time is free


def model(model_id: str = "a") -> Resident:
    return Resident(model_id, 1 << 30, 0.0, UNIT, 0.0, 1, 0.0, 0)


def learned(**options: Any) -> KeepAlive:
    """With models `a`, `b` and `c`, each loaded once."""
    strategy = KeepAlive(ttl="learned", cpu_hour=0.0, **options)
    for model_id in "abc":
        strategy.loaded(model(model_id), "request", 0.0)
    return strategy


def idle(strategy: KeepAlive, gaps: Sequence[float], model_id: str = "a", since: float = 0.0) -> float:
    """Let these gaps pass, in units of k/m, and return when the last one ended."""
    now = since
    for length in gaps:
        strategy.keep(model(model_id), now)
        now += length * UNIT
        strategy.requested(model_id, now)
    return now


def timeout_after(gaps: Sequence[float]) -> float:
    """In units of k/m."""
    strategy = learned()
    return strategy.keep(model(), idle(strategy, gaps)) / UNIT


@pytest.mark.parametrize(
    ("gaps", "least", "most"),
    [
        ([], 1.0, 1.0),  # as `auto`, as long as nothing is known
        ([3.0] * 40, 0.0, 1 / 8),  # holding the model costs three times a cold start
        ([50.0] * 40, 0.0, 1 / 8),  # longer than any timeout
        ([50.0] * 1000, 0.0, 1 / 32),  # without much doubt
        ([1.8, 0.1, 0.1, 0.1, 0.1, 0.1] * 20, 1 / 8, 1 / 4),  # bridges the short ones
        ([0.9, 0.01, 0.01, 0.01] * 20, 1.0, 1.0),  # a gap costs less than a cold start
        ([1.5, 0.01, 0.01, 0.01] * 20, 1 / 64, 1 / 8),  # each fourth gap costs more
        ([0.02, 30.0] * 40, 1 / 32, 1 / 8),  # bursts of two
        ([0.01] * 400 + [3.0] * 300, 0.0, 1 / 16),  # older gaps count less
    ],
)
def test_the_cheapest_timeout_so_far(gaps: list[float], least: float, most: float) -> None:
    assert least <= timeout_after(gaps) <= most


def test_a_model_without_gaps_of_its_own_learns_from_the_others() -> None:
    strategy = learned()
    now = max(idle(strategy, [20.0] * 30, each) for each in "ab")
    assert strategy.keep(model("c"), now) <= UNIT / 4


def test_a_gap_that_has_not_ended_counts_once_it_outlasts_every_timeout() -> None:
    strategy = learned()
    now = 0.0
    for _ in range(40):
        strategy.keep(model("a"), now)
        now += 4.001 * UNIT
        strategy.requested("b", now)  # any request: the gap of `a` goes on
    assert strategy.keep(model("a"), now) < UNIT / 4


def test_a_gap_is_counted_once() -> None:
    strategy = learned()
    strategy.keep(model(), 0.0)
    strategy.requested("b", 500.0)  # beyond the longest timeout
    strategy.requested("a", 600.0)
    strategy.requested("a", 700.0)  # while it is in use
    assert strategy.state()["gaps"] == 1


def test_what_costs_nothing_is_no_matter_of_learning() -> None:
    nothing_held = KeepAlive(ttl="learned", memory_gib_hour=0.0)
    nothing_held.loaded(model(), "request", 0.0)
    assert nothing_held.keep(model(), 0.0) == float("inf")
    assert nothing_held.explain(model(), 0.0) == "it stays, since holding it costs nothing"
    free_load = KeepAlive(ttl="learned")
    free_load.loaded(model()._replace(load_seconds=0.0), "request", 0.0)
    assert free_load.keep(model(), 0.0) == 0.0


def test_a_model_for_which_learning_was_dear_gets_k_over_m() -> None:
    """Each gap is just longer than the timeout that was chosen for it, as no timeout can foresee."""
    strategy, now, paid, auto = learned(), 0.0, 0.0, 0.0
    for _ in range(400):
        timeout = strategy.keep(model(), now) / UNIT
        length = timeout + 1e-6
        paid += timeout + 1
        auto += length if length <= 1 else 2.0
        now += length * UNIT
        strategy.requested("a", now)
        assert paid <= 1.1 * auto + 7
    assert paid > 1.05 * auto  # it did cost something


def test_why_in_words() -> None:
    strategy = learned()
    said = strategy.explain(model(), 0.0)
    usual = "its ttl is 100 s, in which holding it costs what a cold start does"
    assert said == f"{usual}, because no gap between requests is known yet"
    now = idle(strategy, [0.4] * 30 + [30.0] * 7)
    for other in "bc":
        now = idle(strategy, [0.4] * 3, other, now)
    assert (
        strategy.explain(model(), now)
        == "its ttl is 50 s, which would have cost the least over its 37 gaps and those of 2 other models"
    )
    strategy = learned()
    idle(strategy, [0.4])
    assert strategy.explain(model(), 0.0).endswith("s, which would have cost the least over its 1 gap")
    assert strategy.explain(model("b"), 0.0).endswith("s, which would have cost the least over those of 1 other model")


def test_it_goes_on_after_a_restart() -> None:
    strategy = learned()
    idle(strategy, [0.4, 20.0] * 20)
    decisions = Decisions(strategy, "keep-alive")
    text = decisions.state()
    assert text is not None
    restarted = learned()
    again = Decisions(restarted, "keep-alive")
    again.restore(text)
    assert json.loads(again.state() or "") == json.loads(text)
    for lengths in ([0.4], [3.0] * 5):
        now = idle(strategy, lengths, since=1e6)
        idle(restarted, lengths, since=1e6)
        assert strategy.keep(model(), now) == restarted.keep(model(), now)


def test_a_restart_without_a_model_forgets_it() -> None:
    strategy = learned()
    for model_id in "ab":
        idle(strategy, [0.4] * 5, model_id)
    restarted = learned()
    restarted.restore(strategy.state())
    restarted.start({"b": 1})
    assert list(restarted.state()["models"]) == ["b"]
    assert restarted.state()["gaps"] == 10  # what all models taught stays


@pytest.mark.parametrize(
    "change",
    [{"factors": [1.0]}, {"sums": [1.0, 2.0]}, {"models": {"a": [1, 1.0, 1.0, [None] * 10]}}, {"models": {"a": []}}],
)
def test_a_state_that_is_none_is_a_fault_and_changes_nothing(change: dict[str, Any]) -> None:
    strategy = learned()
    idle(strategy, [0.4] * 5)
    before = strategy.state()
    decisions = Decisions(strategy, "keep-alive")
    decisions.restore(json.dumps(before | change))
    assert decisions.faults == {"restore": 1}
    assert strategy.state() == before


def test_only_a_strategy_that_learns_has_a_state() -> None:
    assert KeepAlive(ttl="auto").state() is None
    assert KeepAlive(ttl={"a": "learned"}).state() is not None
    strategy = learned()
    gaps_of = strategy.state()
    switched = KeepAlive(ttl="auto")
    switched.restore(gaps_of)
    assert switched.state() is None  # nothing was learned
    idle(strategy, [0.4])
    switched.restore(strategy.state())
    assert switched.state() == strategy.state()  # kept, for whoever switches back


def test_a_pool_frees_models_by_what_is_learned() -> None:
    """Over the pool: one model in bursts an hour apart, one that is seldom used. Both cost less than under `auto`."""
    models = {each: ReplayedModel(1 << 30, UNIT, 0.0, 1.0, UNIT) for each in "ab"}
    requests = [(3600.0 * i + j, "a") for i in range(60) for j in range(5)]
    requests = sorted([*requests, *((2000.0 * i, "b") for i in range(100))])

    def cost(ttl: str) -> float:
        replay = Replay(Decisions(KeepAlive(ttl=ttl, cpu_hour=0.0), "keep-alive"), models)  # type: ignore[arg-type]
        for now, model_id in requests:
            replay.request(model_id, now)
        replay.end(requests[-1][0])
        return replay.cold_starts + replay.holding

    assert cost("learned") < 0.6 * cost("auto")
