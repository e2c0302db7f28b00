"""A plan: every setting under the workload, which of them to use, and how far from the best possible it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..decide.app_settings import app_settings
from ..decide.prices import Prices
from .arrivals import Arrivals
from .bounds import clairvoyant, eviction, theory
from .flips import flips
from .grid import left_out, settings
from .outcome import Outcome
from .plan_file import Planned
from .profile import Profile
from .server import Server
from .setting import Setting
from .words import answer, grounds


@dataclass(frozen=True)
class Candidate:
    """A setting under a loader; `first` and `second` are what it costs in each half, None where that rules it out."""

    label: str
    """The setting, and the loader where the plan has several."""
    profile: Profile
    setting: Setting
    result: dict[str, Any]
    first: float | None
    second: float | None


def simulate(
    setting: Setting,
    profile: Profile,
    arrivals: Arrivals,
    max_batch: int,
    seed: int,
    prices: Prices | None = None,
    resident: Sequence[int] = (),
) -> Outcome:
    """One setting under these arrivals; models with the indices `resident` have answered a request before them."""
    server = Server(setting.decisions(prices), list(profile.models), list(profile.models.values()), max_batch, seed)
    for model in resident:
        server.preload(model, answered=1)
    return server.run(arrivals.at, arrivals.asked)


def candidates(planned: Planned) -> Iterator[Candidate]:
    """Every setting under every loader, simulated; without those that expire where the workload is on another clock."""
    arrivals = planned.arrivals
    first, second = arrivals.halves()
    for profile in planned.profiles:
        models = list(profile.models.values())
        loader = f", {profile.shown_as}" if len(planned.profiles) > 1 else ""
        least = clairvoyant(profile, arrivals, planned.prices)
        for setting in settings(planned.settings, profile, planned.prices):
            seed, most, prices = planned.file.seed, planned.max_batch, planned.prices
            whole = simulate(setting, profile, arrivals, most, seed, prices)
            if whole.least_keep is not None and not planned.on_its_own_clock:
                continue
            result = whole.described(profile.base_mib, models, planned.prices)
            result["regret"] = whole.keep_alive_cost(models, planned.prices) / least if least else None
            halves = (simulate(setting, profile, half, most, seed, prices) for half in (first, second))
            costs = [_cost_if_sound(planned, profile, outcome) for outcome in halves]
            yield Candidate(f"{setting.label}{loader}", profile, setting, result, *costs)


def _cost_if_sound(planned: Planned, profile: Profile, outcome: Outcome) -> float | None:
    """What the setting decides: its money without what every one pays at least."""
    if outcome.exceeded or not outcome.meets(planned.slo):
        return None
    money = outcome.money(profile.base_mib, list(profile.models.values()), planned.prices)
    return money["total"] - _unavoidable(planned, outcome)


def _unavoidable(planned: Planned, outcome: Outcome) -> float:
    """The smallest empty server, and each forward under the loader whose forwards take the least."""
    models = zip(*(profile.models.values() for profile in planned.profiles), strict=True)
    least = [min(model.request_cpu for model in same) for same in models]
    forwards = sum(n * cpu for n, cpu in zip(outcome.requests, least, strict=True))
    empty = min(profile.base_mib for profile in planned.profiles)
    return planned.prices.holding(empty) * outcome.seconds + planned.prices.processor(forwards)


def ranking(found: Sequence[Candidate]) -> list[Candidate]:
    """By what they cost in the first half, of those that do the same the first; before what the second half rules out.

    What the first half rules out is none of them.
    """
    distinct: dict[tuple[Any, ...], Candidate] = {}
    for each in found:
        if each.first is not None:
            does = (each.first, each.second, each.result["mean_mib"], each.result["mean_ms"])
            distinct.setdefault(does, each)
    return sorted(distinct.values(), key=lambda each: (each.second is None, each.first))


def plan_of_settings(
    planned: Planned, found: Sequence[Candidate], confirmed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`plan.json`, of these candidates, with what `--confirm` found."""
    arrivals = planned.arrivals
    ranked = ranking(found)
    capacities = [capacity for each in found if (capacity := each.setting.decisions().capacity) is not None]
    plan = {
        "plan": planned.file.name,
        "profile": str(planned.folder),
        "workload": planned.traffic.workload.model_dump(mode="json", exclude_none=True),
        "traffic": str(planned.traffic),
        "on_its_own_clock": planned.on_its_own_clock,
        "requests": len(arrivals.at),
        "seconds": arrivals.at[-1],
        "models": len(planned.traffic.models),
        "prices": vars(planned.prices),
        "slo": planned.slo,
        "settings": [_described(candidate) for candidate in found],
        "recommended": ranked[0].label if ranked else None,
        "runner_up": ranked[1].label if len(ranked) > 1 else None,
        "flips": flips([_described(candidate) for candidate in ranked], planned.prices.memory_gib_hour),
        "yaml": _settings(planned, ranked[0]) if ranked else None,
        "hindsight": _hindsight(found, ranked),
        "theory": [row for profile in planned.profiles for row in theory(planned, profile, arrivals)],
        "eviction": eviction(capacities, planned.profiles[0], arrivals, planned.prices),
        "notes": [note for each in planned.profiles for note in _notes(planned, each)],
        "confirmed": confirmed,
    }
    return plan | {"answer": answer(plan), "grounds": grounds(plan)}


def _notes(planned: Planned, profile: Profile) -> list[str]:
    return [*left_out(planned.settings, profile, planned.prices), *profile.notes]


def _settings(planned: Planned, chosen: Candidate) -> str | None:
    """To paste; a plan for a number of models like one that was measured has none of its own to serve."""
    if planned.file.models is not None:
        return None
    return app_settings(planned.run.header | {"plugins": planned.plugins}, _described(chosen), chosen.label)


def _described(candidate: Candidate) -> dict[str, Any]:
    return {
        "label": candidate.label,
        "strategy": candidate.setting.strategy,
        "route": candidate.setting.route,
        "options": dict(candidate.setting.options),
        "loader": candidate.profile.loader,
        "loader_options": dict(candidate.profile.options),
        **candidate.result,
        "first_half": candidate.first,
        "second_half": candidate.second,
    }


def _hindsight(found: Sequence[Candidate], ranked: Sequence[Candidate]) -> dict[str, Any] | None:
    """What the choice of the first half costs in the second, against the best setting that there was for it."""
    sound = [each for each in found if each.second is not None]
    if not ranked or not sound:
        return None
    best = min(sound, key=lambda each: each.second or 0.0)
    chosen = ranked[0].second
    ratio = chosen / best.second if chosen is not None and best.second else None
    return {"best": best.label, "best_cost": best.second, "cost": chosen, "ratio": ratio}
