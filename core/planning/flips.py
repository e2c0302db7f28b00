"""What changes a plan's answer: another price of memory, or a target for latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..costs.memory_price import Bill, memory_price_flips
from ..results.flips import LatencyFlip, MemoryPriceFlip
from ..results.plan import SettingFigures

QUICKER = 0.9  # times the latency: what is closer is within the simulator's error


def flips(ranked: Sequence[SettingFigures], price: float | None) -> list[MemoryPriceFlip | LatencyFlip]:
    """The price of memory and the target for latency at which another setting is the better one. `ranked` are the
    eligible settings, the chosen one first; `price` is that of a GiB-hour, None if memory has no price of its own.
    """
    if not ranked:
        return []
    best, *others = ranked
    if price is None:
        return list(_latency(best, others))
    dearer = [_bill(each, price) for each in others if each.cost.total > best.cost.total]
    return [*memory_price_flips(_bill(best, price), dearer, price), *_latency(best, others)]


def _bill(setting: SettingFigures, price: float) -> Bill:
    gib_hours = setting.gib_hours
    return Bill(setting.label, {0: gib_hours}, {0: setting.cost.total - gib_hours * price})


def _latency(best: SettingFigures, others: Sequence[SettingFigures]) -> Iterator[LatencyFlip]:
    """The target for latency that needs a faster setting, and the cheapest such setting."""
    percentile, ours = ("p99", best.p99_ms) if best.p99_ms is not None else ("p50", best.p50_ms)
    if ours is None:
        return
    for other in others:
        theirs = other.p99_ms if percentile == "p99" else other.p50_ms
        if theirs is not None and theirs < QUICKER * ours:
            yield LatencyFlip(
                at=ours, percentile=percentile, to=other.label, to_ms=theirs, instead=best.label, clients=0
            )
            return
