"""Requests that follow each other through a pool, each answered at once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from core.residency.decisions import Decisions
from core.residency.replay import Replay, ReplayedModel

MODELS = {"a": ReplayedModel(100, 1.0, 1.0, holding=2.0, cold_start=10.0), "b": ReplayedModel(60, 1.0, 1.0, 3.0, 20.0)}


def replay_of(**members: Any) -> Replay:
    return Replay(Decisions(SimpleNamespace(**members), "tried"), MODELS)


def test_a_model_is_held_for_as_long_as_its_strategy_says() -> None:
    replay = replay_of(keep=lambda model, now: 5.0)
    assert [replay.request("a", now) for now in (0.0, 4.0, 9.0, 20.0)] == [True, False, True, True]
    assert (replay.due("a"), replay.due("b")) == (25.0, -math.inf)
    replay.end(22.0)
    assert replay.loads == {"a": 3}
    assert replay.held == {"a": 9.0 + 5.0 + 2.0}
    assert (replay.cold_starts, replay.holding) == (30.0, 32.0)


def test_it_counts_the_most_bytes() -> None:
    replay = replay_of(capacity=1)
    for now, name in enumerate("aba"):
        assert replay.request(name, now)
    assert replay.most_bytes == 100
    both = replay_of()
    for now, name in enumerate("ab"):
        both.request(name, now)
    assert both.most_bytes == 160


def test_preloads_are_loads() -> None:
    replay = replay_of(start=list)
    assert not replay.request("a", 3.0)
    replay.end(4.0)
    assert replay.loads == {"a": 1, "b": 1}
    assert replay.held == {"a": 4.0, "b": 4.0}


def test_a_request_that_would_wait_for_good_is_an_error() -> None:
    replay = replay_of(capacity=1, pinned=("a",))
    replay.request("a", 0.0)
    with pytest.raises(RuntimeError, match="'b' waits forever"):
        replay.request("b", 1.0)
