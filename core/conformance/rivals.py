"""What the policies that a strategy is compared with pay for the requests of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..contracts import Resident
from ..residency.decisions import Decisions
from ..residency.replay import Replay, ReplayedModel
from .scenarios import Scenario, break_even_s

KEPT = 32  # cached figures: every strategy is compared with the same ones


class BreakEven:
    """A strategy that frees a model when holding it has cost as much as a cold start (ski rental)."""

    def __init__(self, models: Mapping[str, ReplayedModel]) -> None:
        self._seconds = {name: break_even_s(model) for name, model in models.items()}

    def keep(self, model: Resident, now: float) -> float:
        return self._seconds[model.model_id]


class Lru:
    """A strategy that evicts the least recently used model."""

    def __init__(self, capacity: int | None, memory_budget: int | None) -> None:
        self.capacity, self.memory_budget = capacity, memory_budget


def replayed(decisions: Decisions, scenario: Scenario) -> Replay:
    """A replay of the scenario's requests, at its end."""
    replay = Replay(decisions, scenario.models)
    for now, name in scenario.requests:
        replay.request(name, now)
    replay.end(scenario.end)
    return replay


@lru_cache(KEPT)
def break_even_money(scenario: Scenario) -> float:
    """What holding and cold starts cost if each model is kept for its k/m."""
    replay = _rival(BreakEven(scenario.models), scenario)
    return replay.holding + replay.cold_starts


@lru_cache(KEPT)
def clairvoyant_money(scenario: Scenario) -> float:
    """The least that holding and cold starts can cost: each model is held until its next request, or freed at once."""
    last: dict[str, float] = {}
    money = 0.0
    for now, name in scenario.requests:
        model = scenario.models[name]
        held = (now - last[name]) * model.holding if name in last else model.cold_start
        money += min(held, model.cold_start)
        last[name] = now
    return money


@lru_cache(KEPT)
def lru_cold_starts(scenario: Scenario, capacity: int | None, budget: int | None) -> float:
    """What cold starts cost if models are freed only by eviction, the least recently used first."""
    return _rival(Lru(capacity, budget), scenario).cold_starts


def _rival(strategy: Any, scenario: Scenario) -> Replay:
    return replayed(Decisions(strategy, type(strategy).__name__), scenario)
