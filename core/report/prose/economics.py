"""What is said of prices and break-even rates."""

from __future__ import annotations

from collections.abc import Sequence

from ...costs.prices import FARGATE
from ...results.economics import (
    BeyondCapacity,
    CheaperAtAnyRate,
    CoresOverSizes,
    CostNotSeparable,
    Floor,
    LoadsLacking,
    MemoryNotSeparable,
    MemoryOverSizes,
    NoCommonRound,
    NotMeasured,
    OtherRatesUnknown,
    PricesUsed,
    SameCosts,
    SizePrice,
    TooFewRounds,
)
from ...results.figures import OverLimit
from ...results.recorded import PageCache
from ...stats.intervals import VERDICT_ROUNDS
from ..format import count, number, whole_mib
from .rounds import say_further_rounds
from .sentences import say

MEMORY = {"pss": "PSS", "private": "private memory"}
FROM: dict[PageCache, str] = {"cold": "disk", "warm": "the page cache"}
"""Where a load's files come from."""
BILLING = {"average": "while it is held", "peak": "the most that was held, all the time"}
REUSED = "freed memory is assumed to be reused by others"
APART_FROM_WAITING = ", apart from the cost of waiting"
YOURS = "Set your own under 'cost' in the experiment."
NOT_MEASURED = {
    "no finished round": "no round of it was finished",
    "no answered request": "in some round no request was answered",
    "memory unknown": "memory is not known, because this system has no /proc",
    "memory over time unknown": "models expire, and memory over time is not known",
    "CPU time unknown": "CPU time could not be read",
}


@say.register
def say_no_common_round(finding: NoCommonRound) -> str:
    return "No round was finished by both."


@say.register
def say_other_rates_unknown(finding: OtherRatesUnknown) -> str:
    why = "its models expire in the gaps between requests"
    return f"The cost of {finding.label} at other rates is unknown: {why}."


@say.register
def say_cheaper_at_any_rate(finding: CheaperAtAnyRate) -> str:
    return f"{finding.label} holds {_memory(finding)} and costs less per request."


@say.register
def say_beyond_capacity(finding: BeyondCapacity) -> str:
    most = f"{finding.per_hour:,.0f} requests an hour"
    return f"{finding.label} answered at most {most}, less than this break-even rate."


@say.register
def say_too_few_rounds(finding: TooFewRounds) -> str:
    return f"A measurement, not a verdict: a verdict needs {VERDICT_ROUNDS} rounds."


@say.register
def say_memory_not_separable(finding: MemoryNotSeparable) -> str:
    both = f"{finding.label} and {finding.against}"
    start = f"In {finding.rounds} rounds, no difference in memory between {both} could be shown"
    known = finding.cheaper_per_request
    also = f"; {finding.label} costs less per request" if known else ", nor in cost per request"
    return f"{start}{also}. {say_further_rounds(finding.further_rounds)}"


@say.register
def say_same_costs(finding: SameCosts) -> str:
    within = f"cost the same per request (to within {finding.share:.0%})"
    if finding.same_memory:
        return f"{finding.label} and {finding.against} hold the same memory (to within 1 MiB) and {within}."
    return f"{finding.label} holds less memory than {finding.against}, and both {within}."


@say.register
def say_cost_not_separable(finding: CostNotSeparable) -> str:
    unknown = f"in {count(finding.rounds, 'round')}, no difference in cost per request could be shown"
    return f"{finding.label} holds {_memory(finding)}; {unknown}. {say_further_rounds(finding.further_rounds)}"


@say.register
def say_not_measured(finding: NotMeasured) -> str:
    return NOT_MEASURED[finding.kind]


@say.register
def say_memory_over_sizes(finding: MemoryOverSizes) -> str:
    held, largest = whole_mib(finding.held_mib), whole_mib(finding.largest_mib)
    return f"it held up to {held}, start-up included, and the largest of 'sizes' has {largest}"


@say.register
def say_cores_over_sizes(finding: CoresOverSizes) -> str:
    return f"it took {finding.took:.2g} cores on average, and the largest of 'sizes' has {finding.largest:.2g}"


@say.register
def say_over_limit(finding: OverLimit) -> str:
    held, limit = whole_mib(finding.held_mib), whole_mib(finding.limit_mib)
    return f"held up to {held}, start-up included, over the limit of {limit}"


@say.register
def say_loads_lacking(finding: LoadsLacking) -> str:
    unknown = "loads from disk and from the page cache were not measured separately"
    return unknown if finding.recorded is None else finding.recorded.rstrip(".")


@say.register
def say_prices(prices: PricesUsed) -> str:
    hour = number(prices.latency_hour)
    waiting = f"an hour of a caller's waiting {hour}" if prices.latency_hour else "waiting is free"
    if prices.billing == "size":
        return f"{hourly_prices(prices.sizes)}; {waiting}. {YOURS}"
    is_fargate = {"memory_gib_hour": prices.memory_gib_hour, "cpu_hour": prices.cpu_hour} == FARGATE
    source = "in US dollars, AWS Fargate's unit prices" if is_fargate else "as stated under 'cost'"
    size = " Fargate itself bills the size of a task, not what it uses; to price it that way, set 'billing: size'."
    return (
        f"Prices ({source}): a GiB-hour of memory ({MEMORY[prices.charge]}, {BILLING[prices.billing]})"
        f" {number(prices.memory_gib_hour)}; a core-hour {number(prices.cpu_hour)}; {waiting}."
        f"{size if is_fargate else ''} {YOURS}"
    )


@say.register
def say_floor(floor: Floor) -> str:
    return (
        f"{floor_takes(floor.rss_mib)} ({whole_mib(floor.pss_mib)} PSS, measured under {floor.trial}). No setting takes"
        " less."
    )


def hourly_prices(sizes: Sequence[SizePrice]) -> str:
    """The price of each size; a sentence without its full stop."""
    each = [f"{number(size.hour)} for {size_in_words(size)}" for size in sizes]
    return f"Hourly price of each size: {', '.join(each)}"


def size_in_words(size: SizePrice) -> str:
    """`384 MiB and 0.25 cores`."""
    return f"{whole_mib(size.memory_mib)} and {number(size.cpu)} cores"


def size_at_its_price(size: SizePrice) -> str:
    """`384 MiB and 0.25 cores at 0.0123 an hour`."""
    return f"{size_in_words(size)} at {number(size.hour)} an hour"


def floor_takes(mib: float) -> str:
    """The memory of a server without a model; a sentence without its full stop."""
    return f"A server without a model takes {whole_mib(mib)} of resident memory"


def floor_in_words(floor: Floor | None) -> str:
    """The memory of a server without a model, or how to measure it."""
    if floor is not None:
        return say(floor)
    return (
        "The memory of a server without a model is unknown, because every server held one when it was measured. To"
        " measure it, add a strategy that frees its models after each request."
    )


def _memory(finding: CheaperAtAnyRate | CostNotSeparable) -> str:
    if finding.same_memory:
        return f"the same memory as {finding.against} (to within 1 MiB)"
    return f"less memory than {finding.against}"
