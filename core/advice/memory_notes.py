"""What a card notes of memory: from where loads are priced, which size each trial needs, and what a limit rules out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ..costs.economics import Costs, TrialCost
from ..costs.loads import LoadPrice
from ..results.economics import LoadsLacking, SizePrice
from ..results.notes import (
    Finding,
    Fitting,
    LatenciesMeasured,
    LoadCostUnknown,
    LoadDifference,
    LoadsPriced,
    MemoryLimit,
    SizeFits,
)
from ..results.recorded import PageCache
from ..results.summary import Measurements
from ..stats.intervals import VERDICT_ROUNDS, interval


def memory_notes(measured: Measurements, costs: Costs) -> list[Finding]:
    """Findings of the card."""
    return [*_sizes(costs), *_loads(measured.page_cache, costs), *_limit(measured)]


def _loads(measured: PageCache, costs: Costs) -> Iterator[Finding]:
    """From where loads are priced, and for which trials that could not be measured."""
    prices = costs.prices
    if prices.billing == "size" and not prices.latency_hour:
        return  # a load costs nothing that is not paid for already
    loading = [(trial.label, trial.load) for trial in costs.trials if trial.load is not None]
    known = [(label, load) for label, load in loading if load.lacking is None]
    if known:
        yield LoadsPriced(
            page_cache=prices.loads_from,
            billing=prices.billing,
            measured=measured,
            differences=_differences(known) if prices.loads_from != measured else [],
        )
    if known and prices.loads_from != measured:
        yield LatenciesMeasured(page_cache=measured)
    unknown: defaultdict[LoadsLacking, list[str]] = defaultdict(list)
    for label, load in loading:
        if load.lacking is not None:
            unknown[load.lacking].append(label)
    for reason, labels in unknown.items():
        yield LoadCostUnknown(page_cache=prices.loads_from, labels=labels, reason=reason)


def _differences(loads: Sequence[tuple[str, LoadPrice]]) -> list[LoadDifference]:
    """How these loads differ from those that were measured under traffic, as far as the rounds can show it."""
    found = []
    for label, load in loads:
        waits, rounds = [each.ms for each in load.rounds.values()], len(load.rounds)
        low, high = interval(waits)[:2] if rounds >= VERDICT_ROUNDS else (load.further.ms,) * 2
        further = load.further if low * high > 0 else None
        found.append(
            LoadDifference(
                label=label,
                rounds=rounds,
                further_ms=further.ms if further else None,
                further_processor_s=further.processor_s if further else None,
            )
        )
    return found


def _sizes(costs: Costs) -> Iterator[Finding]:
    """Which trials fit which size, and how many requests its cores have time for."""
    fitting: defaultdict[SizePrice, list[TrialCost]] = defaultdict(list)
    for trial in costs.trials:
        if trial.size is not None:
            fitting[trial.size].append(trial)
    for size, trials in fitting.items():
        yield SizeFits(
            size=size,
            trials=[Fitting(label=trial.label, per_hour=trial.size_capacity or 0.0) for trial in trials],
            waiting_costs=bool(costs.prices.latency_hour),
        )


def _limit(measured: Measurements) -> Iterator[Finding]:
    if measured.limit is not None:
        yield MemoryLimit(limit_mib=measured.limit.memory_mib, floor=measured.floor)
