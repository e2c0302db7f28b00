"""What is said of rates, prices and targets at which an answer changes."""

from __future__ import annotations

from ...results.flips import (
    BreakEvenFlip,
    Capacity,
    CapacityFlip,
    CapacityReachedFlip,
    LatencyFlip,
    Longer,
    MeasuredFlip,
    MemoryPriceFlip,
    OtherRateFlip,
    Rates,
)
from ..format import between, milliseconds, number, rate
from .sentences import say


@say.register
def say_break_even_flip(flip: BreakEvenFlip) -> str:
    rates = f"From {number(flip.start)} to" if flip.start else "Below"
    return (
        f"{rates} {rate(flip.at)}{between(flip.ci95)} {flip.to} is cheaper, by at most {number(flip.saves)} a"
        f" month{_longer(flip.longer)}. Above that rate {flip.instead} is cheaper, and the saving grows with the rate:"
        f" {number(flip.saves_above)} a month at {rate(flip.above)}."
    )


@say.register
def say_measured_flip(flip: MeasuredFlip) -> str:
    return (
        f"By these measurements {flip.to} and {flip.instead} cost the same at {rate(flip.at)}, and {flip.to} costs less"
        " below that rate; that is not a verdict."
    )


@say.register
def say_capacity_flip(flip: CapacityFlip) -> str:
    cheaper = "is cheaper" if flip.is_verdict else "costs less by these measurements"
    return (
        f"Up to {rate(flip.at)} {flip.to} {cheaper}{_longer(flip.longer)}. Above that rate it may not keep up, so use"
        f" {flip.instead}: {say(flip.capacity)}."
    )


@say.register
def say_other_rate_flip(flip: OtherRateFlip) -> str:
    side = flip.side.capitalize()
    return f"{side} {rate(flip.at)}{between(flip.ci95)} {flip.to} would be cheaper than {flip.instead}."


@say.register
def say_capacity_reached_flip(flip: CapacityReachedFlip) -> str:
    return f"Above {rate(flip.at)}, use {flip.to} instead of {flip.instead}: {say(flip.capacity)}."


@say.register
def say_memory_price_flip(flip: MemoryPriceFlip) -> str:
    side = "more" if flip.side == "above" else "less"
    return (
        f"If a GiB-hour of memory cost {side} than {number(flip.at)}{between(flip.ci95)} (it costs"
        f" {number(flip.price)}), {flip.to} would be cheaper."
    )


@say.register
def say_latency_flip(flip: LatencyFlip) -> str:
    of = f" of {senders(flip.clients)}" if flip.clients > 1 else ""
    return (
        f"If {flip.percentile}{of} must be below {milliseconds(flip.at)}, {flip.instead} is too slow, whatever its"
        f" cost; use {flip.to} ({flip.percentile} {milliseconds(flip.to_ms)})."
    )


@say.register
def say_rates(rates: Rates) -> str:
    if rates.start == rates.end:
        return f"at {rate(rates.end)}{', as in this run' if rates.as_measured else ''}"
    return f"from {number(rates.start)} to {rate(rates.end)}" if rates.start else f"up to {rate(rates.end)}"


@say.register
def say_capacity(capacity: Capacity) -> str:
    if capacity.cores is not None:
        return f"the {number(capacity.cores)} cores of its size can compute at most {rate(capacity.per_hour)}"
    return f"it answered at most {rate(capacity.per_hour)} for {senders(capacity.clients)}"


@say.register
def say_longer(longer: Longer) -> str:
    more = milliseconds(longer.ms)
    if longer.clients == 1:
        return f"a request that does not have to queue takes {more} longer on average"
    if longer.clients:
        return f"for {senders(longer.clients)}, a request takes {more} longer on average"
    return f"it costs your callers {more} each on average"


def senders(clients: int) -> str:
    """Who sends the requests of a closed loop."""
    return f"{f'{clients} clients' if clients > 1 else 'one client'} sending requests back to back"


def _longer(longer: Longer | None) -> str:
    return "" if longer is None else f"; {say(longer)}"
