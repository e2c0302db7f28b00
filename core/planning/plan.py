"""A plan: every setting under the workload, which of them to use, and how far from the best possible it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..advice.app_settings import Chosen, app_settings
from ..report.format import number
from .bounds import eviction, theory
from .candidates import Candidate, TooLarge, pool_of
from .choosing import Choice, choose, saves
from .flips import flips
from .grid import left_out
from .plan_file import Planned
from .profile import Profile
from .words import answer, grounds

FAR = 2.0  # times the rate: beyond, the CPU time of a request may be another one


def plan_of_settings(
    planned: Planned,
    found: Sequence[Candidate],
    too_large: Sequence[TooLarge] = (),
    confirmed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`plan.json`, of these candidates, with what `--confirm` found."""
    arrivals = planned.arrivals
    price = None if planned.prices.sizes else planned.prices.memory_gib_hour
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
        "prices": asdict(planned.prices),
        "limit_mib": planned.limit_mib,
        "floor_mib": _floor(planned),
        "too_large": {each.label: each.most_mib for each in too_large},
        "trifle": planned.trifle,
        "slo": planned.slo,
        "settings": [_described(candidate) for candidate in found],
        "recommended": ranked[0].label if ranked else None,
        "runner_up": ranked[1].label if len(ranked) > 1 else None,
        "choice": _choice(choice) if choice else None,
        "flips": flips([_described(each) for each in _differ(choice)], price),
        "yaml": _settings(planned, ranked[0]) if ranked else None,
        "hindsight": _hindsight(pool_of(found)),
        "theory": [row for profile in planned.profiles for row in theory(planned, profile, arrivals)],
        "eviction": eviction(capacities, planned.profiles[0], arrivals, planned.prices),
        "notes": [note for each in planned.profiles for note in _notes(planned, each)],
        "confirmed": confirmed,
    }
    return plan | {"answer": answer(plan), "grounds": grounds(plan)}


def _floor(planned: Planned) -> float | None:
    """MiB of resident memory that the smallest server takes between requests when it holds no model."""
    known = [profile.resident.base_mib for profile in planned.profiles if profile.resident]
    return min(known, default=None)


def _notes(planned: Planned, profile: Profile) -> list[str]:
    rate = [f"{profile.shown_as}: {note}" for note in _rate(planned, profile)]
    return [*left_out(planned.settings, profile, planned.prices), *profile.notes, *rate]


def _rate(planned: Planned, profile: Profile) -> Iterator[str]:
    """A note if requests come at another rate than that at which their CPU time was measured."""
    arrivals, measured = planned.arrivals, profile.requests_per_second
    if measured is None or not planned.prices.cpu_hour or not arrivals.at[-1]:
        return
    here = len(arrivals.at) / arrivals.at[-1]
    if not 1 / FAR <= here / measured <= FAR:
        yield (
            f"the CPU time of a request was measured at {number(measured)} requests a second, and is used here"
            f" for {number(here)}: it depends on the rate. A run with this workload measures it."
        )


def _settings(planned: Planned, chosen: Candidate) -> str | None:
    """The settings to paste; None for a plan with simulated copies of a model, which cannot be served."""
    if planned.file.models is not None:
        return None
    setting, profile = chosen.setting, chosen.profile
    header = planned.run.header.model_copy(update={"plugins": planned.plugins})
    served = Chosen(setting.strategy, setting.route, setting.options, profile.loader, profile.options)
    return app_settings(header, served, chosen.label)


def _described(candidate: Candidate) -> dict[str, Any]:
    return {
        "label": candidate.label,
        "strategy": candidate.setting.strategy,
        "route": candidate.setting.route,
        "options": dict(candidate.setting.options),
        "loader": candidate.profile.loader,
        "loader_options": dict(candidate.profile.options),
        **candidate.result,
        "most_mib": candidate.most_mib,
        "targets": candidate.targets,
        "decides_per_hour": list(candidate.costs),
        "first_half": candidate.halves[0],
        "second_half": candidate.halves[1],
    }


def _choice(choice: Choice) -> dict[str, Any]:
    """Why the setting was chosen, by labels; `saves` is money a month, against the simplest one and the runner-up."""
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
    """The chosen setting, and those that do not tie with it."""
    return [choice.chosen, *choice.others] if choice else []


def _hindsight(pool: Sequence[Candidate]) -> dict[str, Any] | None:
    """What the cheapest setting of the first half costs in the second half, and what the cheapest one there costs."""
    if not pool:
        return None
    by_first, best = (min(pool, key=lambda each: each.halves[half]) for half in (0, 1))
    cost, least = by_first.halves[1], best.halves[1]
    ratio = cost / least if least else None
    return {"by_first": by_first.label, "best": best.label, "best_cost": least, "cost": cost, "ratio": ratio}
