"""What a strategy pays on hard traffic, compared to a clairvoyant, to a timeout of k/m and to LRU.

All have the same requests, and pay the same prices for memory and cold starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from time import perf_counter
from typing import Any

from ..plugins import PRICE_OPTIONS, Registered
from ..residency.decisions import Decisions
from ..residency.replay import Replay
from .adversary import oppose
from .checks import require
from .rivals import break_even_money, clairvoyant_money, lru_cold_starts, replayed
from .scenarios import PRICES, Scenario, drift, hostile, many, narrow, thousand

MODELS = 300  # for which a decision is timed
TIMED = ("requested", "keep", "evict")
LIMITS = ("memory_budget", "capacity")


@dataclass(frozen=True)
class Standing:
    """What a strategy pays in a scenario, divided by what others pay for the same requests."""

    scenario: str
    limit: str | None
    """The option that was set to limit its memory; None if none was."""
    clairvoyant: float
    """Money for memory and cold starts, divided by what a clairvoyant without a limit pays."""
    break_even: float
    """The same, divided by what it costs to keep each model for its k/m, without a limit."""
    lru: float | None
    """Money for cold starts, divided by what LRU pays within the same limit; None if there is no limit, or if the
    strategy does not share models.
    """


@dataclass(frozen=True)
class Conduct:
    """How a strategy decides on hard traffic."""

    strategy: str
    standings: tuple[Standing, ...]
    decision_s: Mapping[str, float]
    """The median duration of a call with 300 models, by member."""
    state_bytes: int
    """The size of its state at the end of the drifting catalogue."""
    state_models: int
    """The number of models that were requested until then."""


@dataclass(frozen=True)
class _Run:
    """A strategy at the end of a scenario."""

    limit: str | None
    decisions: Decisions
    scenario: Scenario
    replay: Replay

    @property
    def standing(self) -> Standing:
        decisions, scenario, replay = self.decisions, self.scenario, self.replay
        money = replay.holding + replay.cold_starts
        evicts = decisions.is_limited and decisions.shared
        return Standing(
            scenario.name,
            self.limit,
            money / clairvoyant_money(scenario),
            money / break_even_money(scenario),
            replay.cold_starts / lru_cold_starts(scenario, decisions.capacity, decisions.budget) if evicts else None,
        )

    def check(self) -> None:
        """Raise ContractBroken if a member failed, or if more memory was taken than the strategy allows."""
        where, most = f"in the scenario '{self.scenario.name}'", self.replay.most_bytes
        faults = [f"{member} fails {where}: {why}" for member, why in self.decisions.reasons.items()]
        require(not faults, "; ".join(faults))
        budget = self.decisions.budget
        is_kept = budget is None or most <= budget
        require(is_kept, f"{most} bytes were in memory {where}, where memory_budget allows {budget}")


def conduct_of(registered: Registered, options: Mapping[str, Any] | None = None) -> Conduct:
    """How a strategy with these options decides; also with each option that limits its memory, if it has any.

    Raises ContractBroken if it fails.
    """
    given = options or {}
    runs = list(_checked_runs(registered, given))
    drifted = next(run for run in runs if run.scenario.name == drift().name)
    return Conduct(
        registered.name,
        tuple(run.standing for run in runs),
        _decision_s(registered, given),
        len(drifted.decisions.state() or ""),
        len({name for _, name in drifted.scenario.requests}),
    )


def check_decisions(registered: Registered) -> None:
    """Raise ContractBroken if the strategy fails on hard traffic, or exceeds its memory_budget there."""
    for _ in _checked_runs(registered, {}):
        pass


def _checked_runs(registered: Registered, options: Mapping[str, Any]) -> Iterator[_Run]:
    limits = (None, *_limits(registered, options))
    replayed_runs = (run for limit in limits for run in _runs(registered, options, limit))
    for run in chain([_opposed(registered, options)], replayed_runs):
        run.check()
        yield run


def _limits(registered: Registered, options: Mapping[str, Any]) -> list[str]:
    """The options that limit its memory, and are not given."""
    return [name for name in LIMITS if name in registered.options.model_fields and name not in options]


def _opposed(registered: Registered, options: Mapping[str, Any]) -> _Run:
    """The strategy against an adversary."""
    decisions, scenario = _prepared(registered, options, None, hostile())
    replay = Replay(decisions, scenario.models)
    scenario = replace(scenario, requests=oppose(replay, scenario.models))
    replay.end(scenario.end)
    return _Run(None, decisions, scenario, replay)


def _runs(registered: Registered, options: Mapping[str, Any], limit: str | None) -> Iterator[_Run]:
    for drawn in (drift(), thousand(), narrow()):
        decisions, scenario = _prepared(registered, options, limit, drawn)
        if drawn is not narrow() or limit or decisions.budget is not None:
            yield _Run(limit, decisions, scenario, replayed(decisions, scenario))


def _prepared(
    registered: Registered, options: Mapping[str, Any], limit: str | None, scenario: Scenario
) -> tuple[Decisions, Scenario]:
    """The decisions of the strategy, with the option `limit` set for the scenario, and the scenario itself. If the
    strategy has a budget of its own, the models are scaled to fit it.
    """
    limits = {"memory_budget": scenario.budget, "capacity": scenario.capacity}
    chosen = {**options, **({limit: limits[limit]} if limit else {})}
    prices = {name: getattr(PRICES, name) for name in PRICE_OPTIONS}
    strategy = registered.cls(**registered.validate(registered.with_prices(chosen, prices)))
    decisions = Decisions(strategy, registered.name)
    budget = scenario.budget if decisions.budget is None else decisions.budget
    return decisions, scenario if budget == scenario.budget else scenario.fitted(budget)


def _decision_s(registered: Registered, options: Mapping[str, Any]) -> dict[str, float]:
    """The median duration of a call, by member."""
    decisions, scenario = _prepared(registered, options, next(iter(_limits(registered, options)), None), many(MODELS))
    timed = _Timed(decisions.strategy)
    replayed(Decisions(timed, registered.name), scenario)
    return {member: median(seconds) for member, seconds in timed.seconds.items() if seconds}


class _Timed:
    """A strategy that records how long each call takes."""

    def __init__(self, strategy: Any) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in TIMED if hasattr(strategy, name)}
        self._strategy = strategy
        for member, seconds in self.seconds.items():
            setattr(self, member, _timed(getattr(strategy, member), seconds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)


def _timed(member: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        began = perf_counter()
        answer = member(*arguments)
        seconds.append(perf_counter() - began)
        return answer

    return call
