"""A plan: every setting under the workload, which of them to use, and how far from the best possible it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..advice.app_settings import Chosen, app_settings
from ..results.header import WorkloadSpec
from ..results.plan import ChoiceReasons, Confirmed, Plan, PlanNote, SettingFigures
from ..results.plan_findings import OtherRate
from ..results.plan_models import ModelsFinding
from .bounds import eviction, theory
from .candidates import Candidate, TooLarge
from .choosing import Choice, choose, saves
from .findings import answer, minimum
from .flips import flips
from .grid import left_out
from .hindsight import hindsight
from .memory_curve import memory_curve
from .models_card import costliest, pin_and_drop
from .plan_file import PlanInputs
from .profile import Profile
from .theory import theory_over_models
from .trade import trade

FAR = 2.0  # times the rate: beyond, the CPU time of a request may be another one


def plan_of_settings(
    inputs: PlanInputs,
    found: Sequence[Candidate],
    too_large: Sequence[TooLarge] = (),
    confirmed: Confirmed | None = None,
) -> Plan:
    """The plan of these candidates, with what `--confirm` found."""
    arrivals, traffic, prices = inputs.arrivals, inputs.traffic, inputs.prices
    choice = choose(found, inputs.trifle)
    ranked = choice.ranked if choice else []
    rows = [row for profile in inputs.profiles for row in theory(inputs, profile, arrivals)]
    plan = Plan(
        plan=inputs.file.name,
        profile=str(inputs.folder),
        workload=WorkloadSpec.model_validate(traffic.workload.model_dump(mode="json", exclude_none=True)),
        traffic=str(traffic),
        on_its_own_clock=inputs.on_its_own_clock,
        requests=len(arrivals.at),
        seconds=arrivals.at[-1],
        models=len(traffic.models),
        nodes=inputs.nodes.recorded if inputs.nodes else None,
        prices=prices.recorded,
        limit_mib=inputs.limit_mib,
        floor_mib=_floor(inputs),
        too_large={each.label: each.most_mib for each in too_large},
        trifle=inputs.trifle,
        slo=inputs.slo,
        settings=[candidate.figures for candidate in found],
        recommended=ranked[0].label if ranked else None,
        runner_up=ranked[1].label if len(ranked) > 1 else None,
        choice=_reasons(choice) if choice else None,
        answer=[],
        flips=flips(_differ(choice), None if prices.sizes else prices.memory_gib_hour),
        trade=trade(ranked[0], found, prices) if ranked else None,
        over_models=list(_over_models(inputs, ranked[0])) if ranked else [],
        yaml=_settings(inputs, ranked[0]) if ranked else None,
        hindsight=hindsight(inputs, found),
        theory=rows,
        theory_over_models=list(theory_over_models(inputs.profiles, arrivals, prices, rows)),
        minimum=None,
        eviction=[] if inputs.nodes else list(eviction(inputs, [each.setting.decisions(prices) for each in found])),
        notes=[note for each in inputs.profiles for note in _notes(inputs, each)],
        confirmed=confirmed,
    )
    return plan.model_copy(update={"answer": answer(plan), "minimum": minimum(plan)})


def _over_models(inputs: PlanInputs, chosen: Candidate) -> Iterator[ModelsFinding]:
    """What is found of the models under the chosen setting, if there are several."""
    arrivals, prices = inputs.arrivals, inputs.prices
    if (found := costliest(chosen, prices)) is not None:
        yield found
    if inputs.nodes is not None:  # a pin, and a budget, are those of each node
        return
    if inputs.on_its_own_clock:
        yield from pin_and_drop(chosen, arrivals, prices)
    if (curve := memory_curve(chosen.profile, arrivals, prices)) is not None:
        yield curve


def _floor(inputs: PlanInputs) -> float | None:
    """MiB of resident memory that the smallest server takes between requests when it holds no model."""
    known = [profile.resident.base_mib for profile in inputs.profiles if profile.resident]
    return min(known, default=None)


def _notes(inputs: PlanInputs, profile: Profile) -> list[PlanNote]:
    found = [*left_out(inputs.settings, profile, inputs.prices), *profile.notes, *_rate(inputs, profile)]
    return [PlanNote(loader=profile.shown_as, finding=finding) for finding in found]


def _rate(inputs: PlanInputs, profile: Profile) -> Iterator[OtherRate]:
    """Whether requests come at another rate than that at which their CPU time was measured."""
    arrivals, measured = inputs.arrivals, profile.requests_per_second
    if measured is None or not inputs.prices.cpu_hour or not arrivals.at[-1]:
        return
    here = len(arrivals.at) / arrivals.at[-1]
    if not 1 / FAR <= here / measured <= FAR:
        yield OtherRate(measured=measured, here=here)


def _settings(inputs: PlanInputs, chosen: Candidate) -> str | None:
    """The settings to paste; None for what cannot be served: simulated copies of a model, and Ray's own routing."""
    nodes = inputs.nodes
    if inputs.file.models is not None or (nodes is not None and nodes.routing == "multiplexed"):
        return None
    setting, profile = chosen.setting, chosen.profile
    header = inputs.run.header.model_copy(update={"plugins": inputs.plugins})
    cluster = None if nodes is None else nodes.cluster
    served = Chosen(setting.strategy, setting.options, profile.loader, profile.options, cluster)
    return app_settings(header, served)


def _reasons(choice: Choice) -> ChoiceReasons:
    runner_up = choice.others[0] if choice.others else None
    rivals = [choice.simplest] if runner_up is None else [choice.simplest, runner_up]
    return ChoiceReasons(
        cheapest=choice.cheapest.label,
        same=[each.label for each in choice.same],
        trifling={each.label: saves(choice.cheapest, each) for each in choice.trifling},
        by_latency=choice.by_latency,
        simplest=choice.simplest.label,
        runner_up=None if runner_up is None else runner_up.label,
        saves={each.label: saves(choice.chosen, each) for each in rivals},
    )


def _differ(choice: Choice | None) -> list[SettingFigures]:
    """The chosen setting, and those that do not tie with it."""
    return [each.figures for each in (choice.chosen, *choice.others)] if choice else []
