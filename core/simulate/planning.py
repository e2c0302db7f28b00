"""A plan: every setting under the workload, which of them to use, and how far from the best possible it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..decide.app_settings import app_settings
from .bounds import eviction, theory
from .candidates import Candidate, pool_of
from .choosing import Choice, choose, saves
from .flips import flips
from .grid import left_out
from .plan_file import Planned
from .profile import Profile
from .words import answer, grounds


def plan_of_settings(
    planned: Planned, found: Sequence[Candidate], confirmed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`plan.json`, of these candidates, with what `--confirm` found."""
    arrivals = planned.arrivals
    choice = choose(found, planned.trifle)
    ranked = choice.ranked if choice else []
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
        "trifle": planned.trifle,
        "slo": planned.slo,
        "settings": [_described(candidate) for candidate in found],
        "recommended": ranked[0].label if ranked else None,
        "runner_up": ranked[1].label if len(ranked) > 1 else None,
        "choice": _choice(choice) if choice else None,
        "flips": flips([_described(each) for each in _differ(choice)], planned.prices.memory_gib_hour),
        "yaml": _settings(planned, ranked[0]) if ranked else None,
        "hindsight": _hindsight(pool_of(found)),
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
        "targets": candidate.targets,
        "decides_per_hour": list(candidate.costs),
        "first_half": candidate.halves[0],
        "second_half": candidate.halves[1],
    }


def _choice(choice: Choice) -> dict[str, Any]:
    """Why, by labels; `saves` is money a month, against those of them that it saves any."""
    others = {"simplest": choice.simplest} | ({"runner_up": choice.others[0]} if choice.others else {})
    return {
        "cheapest": choice.cheapest.label,
        "same": [each.label for each in choice.same],
        "trifling": {each.label: saves(choice.cheapest, each) for each in choice.trifling},
        "by_latency": choice.by_latency,
        **{name: each.label for name, each in others.items()},
        "saves": {each.label: saves(choice.chosen, each) for each in others.values()},
    }


def _differ(choice: Choice | None) -> list[Candidate]:
    """The chosen one, and those that are no tie with it."""
    return [choice.chosen, *choice.others] if choice else []


def _hindsight(pool: Sequence[Candidate]) -> dict[str, Any] | None:
    """What the cheapest setting of the first half costs in the second, against the cheapest that there was for it."""
    if not pool:
        return None
    by_first, best = (min(pool, key=lambda each: each.halves[half]) for half in (0, 1))
    cost, least = by_first.halves[1], best.halves[1]
    ratio = cost / least if least else None
    return {"by_first": by_first.label, "best": best.label, "best_cost": least, "cost": cost, "ratio": ratio}
