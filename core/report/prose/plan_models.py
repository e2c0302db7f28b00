"""What is said of the models of a plan with several, and of what the recommended setting trades for its cost."""

from __future__ import annotations

from collections.abc import Callable

from ...costs.economics import MILLION
from ...costs.prices import MIB_PER_GIB
from ...results.plan_models import (
    CostliestModels,
    MemoryCurve,
    ModelsToDrop,
    ModelsToPin,
    Quantiles,
    TheoryOverModels,
    TimeoutQuantiles,
    Trade,
)
from ..format import listed, milliseconds, number, percent, whole_mib
from .plan_reference import timeout_in_words
from .sentences import say


@say.register
def say_trade(finding: Trade) -> str:
    return (
        f"{finding.label} costs {percent(finding.saves_share)} less than {finding.sibling}, without the costs common to"
        f" all settings, and {percent(finding.cold_share, 1)} instead of {percent(finding.sibling_cold_share, 1)} of"
        f" the requests are cold: at these prices a cold start is cheap (a million cost"
        f" {number(finding.cold_start * MILLION)}, and delay each caller by {milliseconds(finding.cold_start_ms)})."
    )


@say.register
def say_costliest_models(finding: CostliestModels) -> str:
    named = finding.named
    what = "holding the models and loading them costs" if any(each.holding for each in named) else "cold starts cost"
    said = f"Under {finding.label}, {what} {number(finding.total)} a month"
    if len(named) == finding.models:
        return f"{said}."
    return (
        f"{said}; the {len(named)} of {finding.models} models that cost the most take"
        f" {percent(sum(each.share for each in named))} of it."
    )


@say.register
def say_models_to_pin(finding: ModelsToPin) -> str:
    return (
        f"Pin {_named(finding)}: in hindsight, keeping each in memory all the time costs the least, if there is room."
        f" Compared to {finding.label}, this saves {number(finding.saves)} a month in all."
    )


@say.register
def say_models_to_drop(finding: ModelsToDrop) -> str:
    return (
        f"Drop {_named(finding)}: in hindsight, freeing each after every request costs the least. Compared to"
        f" {finding.label}, this saves {number(finding.saves)} a month in all."
    )


@say.register
def say_memory_curve(finding: MemoryCurve) -> str:
    step, budget = _memory(finding.step_mib), f"{_memory(finding.pays_until_mib)} of weights"
    said = f"More memory pays off up to {budget}"
    if finding.less is None:
        said = f"More memory than {budget}, which has room for the largest model, does not pay off"
    parts = []
    if finding.more is None:
        said += ", which has room for all models that are requested"
    else:
        saves, costs = number(finding.more.cold_starts), number(finding.more.holding)
        parts.append(f"{step} more would save {saves} a month in cold starts and cost {costs}")
    if finding.less is not None:
        saves, costs = number(finding.less.holding), number(finding.less.cold_starts)
        parts.append(f"{step} less would save {saves} a month and cost {costs} in cold starts")
    assumed = "the least recently used model is evicted, requests end at once, and the budget is held all the time"
    return f"{said}{': ' if parts else ''}{'; '.join(parts)}. This assumes that {assumed}."


@say.register
def say_theory_over_models(finding: TheoryOverModels, *, timeouts: bool = True) -> str:
    """What keeping models costs and when it pays; with `timeouts`, also when to free them."""
    said = [f"each takes {_quantiles(finding.mib, lambda mib: f'{mib:.0f}')} MiB of memory"]
    if finding.break_even_per_hour is not None:
        said.append(f"keeping it pays above {_quantiles(finding.break_even_per_hour, number)} requests an hour")
    if timeouts:
        idle = "k/m (the cost of a load divided by that of a second in memory)"
        said.append(f"{idle} is {_quantiles(finding.timeout_s, timeout_in_words)}")
    if timeouts and finding.best_timeout_s is not None:
        said.append(f"the best timeout on its gaps here is {_quantiles(finding.best_timeout_s, timeout_in_words)}")
    start = f"{finding.models} models with {finding.loader} (least / quartiles / most): {'; '.join(said)}."
    if not timeouts:
        return start
    return (
        f"{start} A model that is freed after k/m idle costs at most twice the clairvoyant minimum. Of"
        f" {finding.requested} models with requests, {finding.always} would cost the least if they were kept all the"
        f" time, and {finding.never} if they were freed after each request."
    )


def _named(finding: ModelsToPin | ModelsToDrop) -> str:
    first, *others = finding.named
    said = [f"{first.model} (saves {number(first.saves)})"]
    said += [f"{each.model} ({number(each.saves)})" for each in others]
    return listed([*said, *([f"{finding.rest} more"] if finding.rest else [])])


def _memory(mib: float) -> str:
    return whole_mib(mib) if mib % MIB_PER_GIB else f"{mib / MIB_PER_GIB:.0f} GiB"


def _quantiles(found: Quantiles | TimeoutQuantiles, shown: Callable[..., str]) -> str:
    values = (found.least, found.lower_quartile, found.median, found.upper_quartile, found.most)
    return " / ".join(map(shown, values))
