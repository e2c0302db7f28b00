"""What a plan finds: which setting to use, what that saves, what is left out, and how far it is from the minimum."""

from __future__ import annotations

from collections.abc import Iterator

from ..results.plan import Plan, SettingFigures
from ..results.plan_findings import (
    AboveMinimum,
    AnswerFinding,
    BelowMinimum,
    CheaperButMissed,
    CheaperButUnknown,
    CoresLacking,
    CostTheSame,
    Minimum,
    NamedAmongTies,
    NoMinimum,
    NoneEligible,
    NoSettings,
    OverLimit,
    PlanTraffic,
    QueueExceeded,
    Recommended,
    RunnerUp,
    Saves,
    SettingCost,
    SettingVerdict,
    SimplestSetting,
    SizeToPay,
    TargetUnknown,
    TrifleMore,
    WithinLimit,
)
from ..results.plan_nodes import OverNodes
from .outcome import SAME
from .tally import MAX_QUEUE
from .timeouts import POISSON_REGRET


def answer(plan: Plan) -> list[AnswerFinding]:
    """What to use, and what is left out."""
    return [*_recommendation(plan), *_limit(plan)]


def minimum(plan: Plan) -> Minimum | None:
    """How far the recommended setting is from the clairvoyant minimum; None without a recommendation."""
    if plan.prices.billing != "average":
        return NoMinimum(billing=plan.prices.billing)
    chosen = plan.chosen
    if chosen is None or chosen.regret is None:
        return None
    if chosen.regret < 1:
        return BelowMinimum(ratio=chosen.regret)
    return AboveMinimum(ratio=chosen.regret, least_ratio=POISSON_REGRET)


def _recommendation(plan: Plan) -> Iterator[AnswerFinding]:
    traffic = PlanTraffic(requests=plan.requests, seconds=plan.seconds, shown_as=plan.traffic, nodes=_nodes(plan))
    chosen = plan.chosen
    if not plan.settings and not plan.too_large:
        yield NoSettings(traffic=traffic)
    elif chosen is None:
        yield NoneEligible(traffic=traffic)
    else:
        yield Recommended(traffic=traffic, setting=_cost(chosen))
        yield from _over_nodes(plan, chosen)
        yield from _size(plan, chosen)
        yield from _tie(plan, chosen)
        yield from _savings(plan, chosen)
        yield from _targets(plan, chosen)
        yield from _capacity(plan)


def _nodes(plan: Plan) -> int:
    return plan.nodes.count if plan.nodes is not None else 1


def _over_nodes(plan: Plan, chosen: SettingFigures) -> Iterator[OverNodes]:
    """How the setting uses its nodes, if there are several."""
    if plan.nodes is None or chosen.nodes is None:
        return
    yield OverNodes(
        label=chosen.label,
        nodes=plan.nodes.count,
        routing=plan.nodes.routing,
        busiest=chosen.nodes.busiest,
        room=chosen.nodes.room,
        capacity=chosen.nodes.capacity,
        distinct=chosen.nodes.distinct,
        models=plan.models,
    )


def _capacity(plan: Plan) -> Iterator[AnswerFinding]:
    """The settings that cannot serve so many requests."""
    lacking = {each.label: each for each in plan.settings if each.size is not None and each.cores > each.size.cpu}
    sizes = [each.size for each in lacking.values() if each.size is not None]
    if sizes:
        yield CoresLacking(
            cores={label: each.cores for label, each in lacking.items()}, largest=sizes[0].cpu, nodes=_nodes(plan)
        )
    exceeded = [each.label for each in plan.settings if each.capacity_exceeded and each.label not in lacking]
    if exceeded:
        yield QueueExceeded(labels=exceeded, most=MAX_QUEUE)


def _limit(plan: Plan) -> Iterator[AnswerFinding]:
    """Which settings exceed the limit, and the floor, which is the memory of a server without a model."""
    limit, floor, sizes = plan.limit_mib, plan.floor_mib, plan.prices.sizes
    if limit is None or floor is None:
        return
    is_size = bool(sizes) and limit == sizes[-1].memory_mib
    if plan.too_large:
        yield OverLimit(limit_mib=limit, is_size=is_size, floor_mib=floor, most_mib=plan.too_large)
    else:
        yield WithinLimit(limit_mib=limit, is_size=is_size, floor_mib=floor)


def _size(plan: Plan, chosen: SettingFigures) -> Iterator[SizeToPay]:
    """The size that is billed, and which other settings fit it."""
    size, most = chosen.size, chosen.most_mib
    if size is not None and most is not None:
        others = [each.label for each in plan.settings if each is not chosen and each.size == size]
        is_waiting_priced = plan.prices.latency_hour > 0
        yield SizeToPay(
            most_mib=most, size=size, others=others, is_waiting_priced=is_waiting_priced, nodes=_nodes(plan)
        )


def _tie(plan: Plan, chosen: SettingFigures) -> Iterator[AnswerFinding]:
    choice = plan.choice
    if choice is None:
        return
    if choice.same:
        yield CostTheSame(labels=[choice.cheapest, *choice.same], within=SAME)
    if choice.trifling:
        yield TrifleMore(more=choice.trifling, cheapest=choice.cheapest, trifle=plan.trifle)
    if choice.same or choice.trifling:
        yield NamedAmongTies(label=chosen.label, by_latency=choice.by_latency, within=SAME)


def _savings(plan: Plan, chosen: SettingFigures) -> Iterator[Saves]:
    """What it saves in a month, against the runner-up and the simplest setting."""
    choice = plan.choice
    if choice is None:
        return
    runner_up, simplest = None, None
    if choice.runner_up is not None:
        [setting] = [_cost(each) for each in plan.settings if each.label == choice.runner_up]
        saves = choice.saves[choice.runner_up]
        runner_up = RunnerUp(setting=setting, saves=saves, is_simplest=choice.runner_up == choice.simplest)
    if choice.simplest not in (choice.runner_up, chosen.label):
        simplest = SimplestSetting(label=choice.simplest, saves=choice.saves[choice.simplest])
    if runner_up is not None or simplest is not None:
        yield Saves(runner_up=runner_up, simplest=simplest, is_simplest=choice.simplest == chosen.label)


def _targets(plan: Plan, chosen: SettingFigures) -> Iterator[AnswerFinding]:
    cheaper = [each for each in plan.settings if each.cost_per_million < chosen.cost_per_million]
    missed = [each.label for each in cheaper if "missed" in _verdicts(each)]
    if missed:
        yield CheaperButMissed(slo=plan.slo, labels=missed)
    unknown = [each.label for each in cheaper if "not known" in _verdicts(each)]
    if unknown and "not known" not in _verdicts(chosen):
        yield CheaperButUnknown(slo=plan.slo, labels=unknown)
    for target in chosen.targets:
        if target.verdict == "not known":
            yield TargetUnknown(label=chosen.label, requests=plan.requests, target=target)


def _verdicts(setting: SettingFigures) -> set[SettingVerdict]:
    return {target.verdict for target in setting.targets}


def _cost(setting: SettingFigures) -> SettingCost:
    return SettingCost(
        label=setting.label,
        cost_per_million=setting.cost_per_million,
        mean_ms=setting.mean_ms,
        p99_ms=setting.p99_ms,
        cold_share=setting.cold_share,
        mean_mib=setting.mean_mib,
    )
