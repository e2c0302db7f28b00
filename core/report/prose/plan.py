"""What is said of a plan: which setting to use, what would change that, and what it is based on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ...config.quantities import duration
from ...costs.worth import MONTH
from ...results.economics import PricesUsed
from ...results.plan import ComparedFigures, Confirmed, ConfirmedSetting, Plan, SimulationError
from ...results.plan_findings import (
    CheaperButMissed,
    CheaperButUnknown,
    CoresLacking,
    CostTheSame,
    NamedAmongTies,
    NoneEligible,
    NoSettings,
    OverLimit,
    PlanTraffic,
    QueueExceeded,
    Recommended,
    Saves,
    SettingCost,
    SizeToPay,
    TargetShare,
    TargetUnknown,
    TrifleMore,
    WithinLimit,
)
from ..families import families, in_families
from ..format import listed, milliseconds, number, percent, target, whole_mib
from .economics import APART_FROM_WAITING, floor_takes, hourly_prices, size_at_its_price
from .plan_models import say_theory_over_models
from .plan_nodes import on_nodes
from .plan_notes import notes_in_words
from .plan_reference import say_theory
from .sentences import say

OTHER_CLOCK = (
    "The trace is replayed at another speed ('speed'), which changes the gaps that timeouts depend on. So there is no"
    " advice on timeouts, and settings under which models expire are left out. Remove 'speed' to have it."
)

NOTHING_CONFIRMED = "Nothing was confirmed: no trial was finished."


def answer(plan: Plan) -> list[str]:
    """What to use, what would change that, and how well it was chosen."""
    trade = [plan.trade] if plan.trade is not None else []
    said = [say(finding) for finding in (*plan.answer, *trade, *plan.flips)]
    if plan.hindsight is not None and plan.hindsight.ratio is not None:
        said.append(say(plan.hindsight))
    return said if plan.on_its_own_clock else [*said, OTHER_CLOCK]


def grounds(plan: Plan) -> list[str]:
    """The basis of the answer."""
    theory = _theory(plan)
    minimum = [say(plan.minimum)] if plan.minimum is not None else []
    loads = [say(each) for each in plan.eviction]
    return [
        *theory,
        *minimum,
        *loads,
        prices_in_words(plan.prices),
        *(f"Note: {note}" for note in notes_in_words(plan.notes)),
    ]


def of_models(plan: Plan) -> list[str]:
    """Which models cost the most, which to pin and to drop, and how much memory pays off; none for one model."""
    return [say(finding) for finding in plan.over_models]


def _theory(plan: Plan) -> list[str]:
    """A sentence for each model that differs from the others; one for all of a loader that has many."""
    summed_up = {each.loader for each in plan.theory_over_models}
    few = [each for each in plan.theory if each.loader not in summed_up]
    return [
        *(say_theory(each, timeouts=plan.on_its_own_clock) for each in few),
        *(say_theory_over_models(each, timeouts=plan.on_its_own_clock) for each in plan.theory_over_models),
    ]


def confirmed_in_words(confirmed: Confirmed) -> list[str]:
    """How far off the simulator was for each setting."""
    return [say(each) for each in confirmed.trials] or [NOTHING_CONFIRMED]


@say.register
def say_no_settings(finding: NoSettings) -> str:
    return (
        f"{_traffic(finding.traffic)} there is no setting to choose from: name some under 'grid', with a"
        " 'memory_budget' that has room for the largest model."
    )


@say.register
def say_none_eligible(finding: NoneEligible) -> str:
    return (
        f"{_traffic(finding.traffic)} no setting can be recommended: each one exceeds its capacity, misses the target,"
        " or is too large. Lower the rate, ease the target or the limit, or measure a faster loader."
    )


@say.register
def say_recommended(finding: Recommended) -> str:
    return f"{_traffic(finding.traffic)}, use {finding.setting.label}: {_cost(finding.setting)}."


@say.register
def say_size_to_pay(finding: SizeToPay) -> str:
    but = APART_FROM_WAITING if finding.is_waiting_priced else ""
    most = whole_mib(finding.most_mib)
    held = f"It holds up to {most}, so it is billed"
    if finding.nodes > 1:
        held = f"A node holds up to {most}, so each of the {finding.nodes} is billed"
    also = f", as are {listed(in_families(finding.others))}: they cost the same, however much of it they use{but}"
    return f"{held} for the size with {size_at_its_price(finding.size)}{also if finding.others else ''}."


@say.register
def say_cost_the_same(finding: CostTheSame) -> str:
    return (
        f"{listed(in_families(finding.labels))} cost the same: without the costs common to all settings, they differ by"
        f" at most {percent(finding.within)}, or their order changes with the seed."
    )


@say.register
def say_trifle_more(finding: TrifleMore) -> str:
    labels, most = list(finding.more), number(max(finding.more.values()))
    which, up_to = (labels[0], "") if len(labels) == 1 else (f"{len(labels)} settings", "up to ")
    return (
        f"{which} would cost {up_to}{most} a month more than the cheapest, {finding.cheapest}; savings of"
        f" less than {finding.trifle:g} a month are ignored ('trifle')."
    )


@say.register
def say_named_among_ties(finding: NamedAmongTies) -> str:
    lowest = f"its mean latency is the lowest, to within {percent(finding.within)}"
    why = lowest if finding.by_latency else "it is the simplest"
    return f"Any of these will do; {finding.label} is named because {why}."


@say.register
def say_saves(finding: Saves) -> str:
    parts, runner_up, simplest = [], finding.runner_up, finding.simplest
    if runner_up is not None:
        also = ", which is also the simplest setting," if runner_up.is_simplest else ","
        what = f"the runner-up, {runner_up.setting.label}{also} at {_cost(runner_up.setting)}"
        parts.append(f"{_saved(runner_up.saves)} {what}")
    if simplest is not None:
        parts.append(f"{_saved(simplest.saves)} the simplest setting, {simplest.label}")
    if finding.is_simplest:
        parts.append("is the simplest setting, too")
    return f"In a month at this rate ({MONTH:.0f} hours) it {'; it '.join(parts)}."


@say.register
def say_cheaper_but_missed(finding: CheaperButMissed) -> str:
    return f"Cheaper settings that miss {_targets(finding.slo)}: {listed(in_families(finding.labels))}."


@say.register
def say_cheaper_but_unknown(finding: CheaperButUnknown) -> str:
    return (
        f"Cheaper settings for which {_targets(finding.slo)} cannot be judged: {listed(in_families(finding.labels))}."
    )


@say.register
def say_target_unknown(finding: TargetUnknown) -> str:
    meets = f"{finding.label} meets {target(finding.target.percentile, finding.target.target_ms)}"
    return f"Whether {meets} is not known: {_why_not_known(finding.target, finding.requests)}."


@say.register
def say_cores_lacking(finding: CoresLacking) -> str:
    needs = listed(
        [
            f"{_range([number(each) for each in sorted(finding.cores[label] for label in labels)])} under {family}"
            for family, labels in families(finding.cores).items()
        ]
    )
    most = number(finding.largest)
    requests = "the busiest node's requests" if finding.nodes > 1 else "its requests"
    return f"Left out, because on average {requests} need more than the {most} cores of the largest size: {needs}."


@say.register
def say_queue_exceeded(finding: QueueExceeded) -> str:
    return (
        f"Under {listed(in_families(finding.labels))}, more than {finding.most} requests would wait for one model,"
        " and some would get 503."
    )


@say.register
def say_within_limit(finding: WithinLimit) -> str:
    return f"{_floor(finding)}; every setting stays below the {_limit(finding)}."


@say.register
def say_over_limit(finding: OverLimit) -> str:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for family, labels in families(finding.most_mib).items():
        most = sorted(finding.most_mib[label] for label in labels)
        alike[_range([whole_mib(each) for each in most])].append(family)
    figures = "; ".join(f"{most} under {listed(labels)}" for most, labels in alike.items())
    return (
        f"Left out, because a server would exceed the {_limit(finding)} in resident memory at some point (start-up"
        f" included): {figures}. {_floor(finding)}."
    )


@say.register
def say_confirmed_setting(finding: ConfirmedSetting) -> str:
    measured, simulated, error = finding.measured, finding.simulated, finding.error
    errors = [error.cold_share, error.mean_ms, *([] if measured.cost_per_hour is None else [error.cost_per_hour])]
    held = "within" if all(each is not None and abs(each) <= finding.target for each in errors) else "beyond"
    return (
        f"{finding.label}, measured against simulated: cold {percent(measured.cold_share, 1)} against"
        f" {percent(simulated.cold_share, 1)} ({_error(error.cold_share)}), mean {measured.mean_ms:.1f} against"
        f" {simulated.mean_ms:.1f} ms ({_error(error.mean_ms)}), {_money(measured, simulated, error)}: {held} the"
        f" target of {percent(finding.target)}."
    )


def _money(measured: ComparedFigures, simulated: ComparedFigures, error: SimulationError) -> str:
    if measured.cost_per_hour is None or simulated.cost_per_hour is None:
        return "money not known"
    both = f"{number(measured.cost_per_hour)} against {number(simulated.cost_per_hour)}"
    return f"loads, models in memory and waiting {both} an hour ({_error(error.cost_per_hour, 'none was measured')})"


def prices_in_words(prices: PricesUsed) -> str:
    """The prices that the plan's costs are made of."""
    if prices.sizes:
        return f"{hourly_prices(prices.sizes)}; an hour of a caller's waiting {prices.latency_hour:g}."
    return (
        f"Prices: {prices.memory_gib_hour:g} for a GiB-hour of memory (charge: {prices.charge}, billing:"
        f" {prices.billing}), {prices.cpu_hour:g} for a core-hour, {prices.latency_hour:g} for an hour of a caller's"
        " waiting."
    )


def _traffic(traffic: PlanTraffic) -> str:
    requests = f"{traffic.requests} requests in {duration(traffic.seconds)}"
    return f"For {requests} ({traffic.shown_as}){on_nodes(traffic.nodes)}"


def _cost(setting: SettingCost) -> str:
    p99 = f", p99 {milliseconds(setting.p99_ms)}" if setting.p99_ms is not None else ""
    return (
        f"{number(setting.cost_per_million)} per million requests, mean {milliseconds(setting.mean_ms)}{p99},"
        f" {percent(setting.cold_share, 1)} cold, {whole_mib(setting.mean_mib)} on average"
    )


def _saved(money: float) -> str:
    return f"saves {number(money)} against" if money >= 0 else f"costs {number(-money)} more than"


def _targets(slo: Mapping[str, float]) -> str:
    return listed([target(name, seconds * 1e3) for name, seconds in slo.items()])


def _why_not_known(found: TargetShare, requests: int) -> str:
    if requests < found.requests_needed:
        return f"that needs {found.requests_needed:,} requests, and there are {requests:,}"
    low, high = (percent(bound, 2) for bound in found.share_ci95)
    return (
        f"{percent(found.share_within, 2)} of the requests are within it (95 % interval {low} to {high}; its upper"
        " bound counts requests that waited for a model's first load as within the target); a longer workload would"
        " decide"
    )


def _range(figures: Sequence[str]) -> str:
    """`560 MiB`, or `560 MiB to 600 MiB`; the least comes first."""
    return figures[0] if figures[0] == figures[-1] else f"{figures[0]} to {figures[-1]}"


def _floor(finding: WithinLimit | OverLimit) -> str:
    return f"{floor_takes(finding.floor_mib)} between requests"


def _limit(finding: WithinLimit | OverLimit) -> str:
    return f"{'largest size' if finding.is_size else 'limit'} of {whole_mib(finding.limit_mib)}"


def _error(error: float | None, otherwise: str = "no measured request was cold") -> str:
    return otherwise if error is None else f"an error of {error:+.1%}"
