"""What is said of a plan's reference points: hindsight, the clairvoyant minimum, bounds of evictions, theory."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.quantities import duration
from ...costs.economics import MILLION
from ...costs.prices import BYTES_PER_MIB
from ...results.plan import FewestLoads, Hindsight, LeastColdStarts, ModelTheory
from ...results.plan_findings import AboveMinimum, BelowMinimum, NoMinimum
from ...results.plan_models import Timeout
from ...results.recorded import Recorded
from ..format import count, decimals, milliseconds, number, whole_mib
from .sentences import say


@say.register
def say_hindsight(finding: Hindsight) -> str:
    assert finding.ratio is not None  # or nothing is said of it
    held = "within" if finding.ratio <= finding.target else "beyond"
    best, afterwards = f"the best setting for that half ({finding.best})", ""
    if finding.timeouts_cost is not None and finding.timeouts_cost < finding.best_cost:
        times = decimals(finding.best_cost / finding.timeouts_cost, 2)
        closest = f"{best} costs {times} times as much as they do"
        if finding.best == finding.by_first:
            closest = "no setting of this plan costs less in that half"
        best, afterwards = "the best timeout for each model", f" Such timeouts are known only afterwards; {closest}."
    return (
        f"{finding.by_first}, chosen from the first half of the requests, costs {decimals(finding.ratio, 2)} times as"
        f" much in the second half as {best}, {held} the target of {finding.target:g}.{afterwards} Costs common to all"
        " settings (an empty server, warm answers) are excluded."
    )


@say.register
def say_no_minimum(finding: NoMinimum) -> str:
    what = f"under 'billing: {finding.billing}' a timeout saves nothing"
    return f"There is no clairvoyant minimum to compare with: {what}."


@say.register
def say_below_minimum(finding: BelowMinimum) -> str:
    return (
        f"{_ratio(finding.ratio)}. That minimum assumes that each request is answered at once; here requests wait and"
        " share loads, so there are fewer loads than gaps."
    )


@say.register
def say_above_minimum(finding: AboveMinimum) -> str:
    return (
        f"{_ratio(finding.ratio)} (all future requests known, each model freed whenever that pays). This is not a"
        " target: for Poisson requests at the break-even rate, every policy without that knowledge costs at least"
        f" {decimals(finding.least_ratio, 2)} times the minimum, on average."
    )


@say.register
def say_fewest_loads(finding: FewestLoads) -> str:
    but = "" if finding.optimum else " That minimizes loads, not cost, because cold starts differ in cost."
    worst = max(finding.rooms, key=lambda room: room.lru_loads / room.belady_loads)
    times, alone = decimals(worst.lru_loads / worst.belady_loads, 2), len(finding.rooms) == 1
    return (
        f"If no requests overlap, LRU loads {'' if alone else 'at most '}{times} times as often as the minimum (Belady,"
        f" all future requests known): {worst.lru_loads} against {worst.belady_loads} loads with room for"
        f" {count(worst.capacity, 'model')}{_among(finding.rooms)}.{but}"
    )


@say.register
def say_least_cold_starts(finding: LeastColdStarts) -> str:
    worst = max(finding.rooms, key=lambda room: room.lru_cost / room.least_cost)
    times, alone = decimals(worst.lru_cost / worst.least_cost, 2), len(finding.rooms) == 1
    room = f"room for {count(worst.capacity, 'model')}" if worst.capacity is not None else "a memory_budget of "
    room += whole_mib(worst.memory_budget / BYTES_PER_MIB) if worst.memory_budget is not None else ""
    return (
        f"If no requests overlap, cold starts with {finding.loader} cost {'' if alone else 'at most '}{times} times as"
        f" much under LRU as a lower bound for any eviction (PFOO-L, all future requests known; it may be out of"
        f" reach): {number(worst.lru_cost)} against {number(worst.least_cost)} with {room}{_among(finding.rooms)}."
    )


def _among(rooms: Sequence[Recorded]) -> str:
    return "" if len(rooms) == 1 else f", the worst of {len(rooms)} limits of memory"


@say.register
def say_theory(finding: ModelTheory, *, timeouts: bool = True) -> str:
    """What keeping a model costs and when it pays; with `timeouts`, also when to free it."""
    start = (
        f"{finding.model} with {finding.loader}: keeping it in memory ({whole_mib(finding.mib)}) costs"
        f" {number(finding.holding_per_hour)} an hour; a million cold starts cost"
        f" {number(finding.cold_start * MILLION)} and delay each caller by {milliseconds(finding.cold_start_ms)}"
    )
    if not finding.holding_per_hour:
        return f"{start}. Holding it costs nothing, so keeping it pays at every rate."
    if not finding.break_even_per_hour or not finding.cold_start:
        return f"{start}. Loading it is free, so keeping it never pays."
    start = f"{start}. Keeping it pays above {number(finding.break_even_per_hour)} requests an hour"
    return f"{start}.{_timeouts(finding)}" if timeouts else f"{start}."


def _timeouts(finding: ModelTheory) -> str:
    timeout, meaning = (
        timeout_in_words(finding.timeout_s),
        "k/m, the cost of a load divided by that of a second in memory",
    )
    said = f" If it is freed after {timeout} idle ({meaning}), it costs at most twice the clairvoyant minimum."
    if finding.is_served_otherwise:
        weights = f"the size of its weights ({whole_mib(finding.weights_mib)}) and its own loads"
        said += (
            f" With ttl: auto or learned, a server computes this time from {weights}, because it does not know how much"
            f" memory is charged: {timeout_in_words(finding.served_timeout_s)}. The simulation does so, too."
        )
    if finding.best_timeout_s is not None and finding.gaps:
        gaps = "only gap" if finding.gaps == 1 else f"{finding.gaps} gaps"
        said += f" On its {gaps} here, the best timeout is {timeout_in_words(finding.best_timeout_s)}."
    if finding.expected_timeout_s is not None:
        said += f" For arrivals of this kind and rate it is {timeout_in_words(finding.expected_timeout_s)}."
    return said


def _ratio(ratio: float) -> str:
    return f"Loads and memory of this setting cost {decimals(ratio, 2)} times the clairvoyant minimum"


def timeout_in_words(timeout: Timeout) -> str:
    """A duration, or `forever`."""
    return timeout if isinstance(timeout, str) else duration(timeout)
