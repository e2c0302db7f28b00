"""What a card says of memory: from where loads are priced, which size each trial needs, and what a limit rules out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..costs.economics import Costs, TrialCost
from ..costs.limit import floor_in_words
from ..costs.loads import LoadPrice
from ..costs.prices import Prices, Size
from ..report.format import listed, milliseconds, number
from ..stats.intervals import VERDICT_ROUNDS, interval
from ..stats.rounds import Run

FROM = {"cold": "disk", "warm": "the page cache"}
OTHER = {"cold": "warm", "warm": "cold"}


def memory_in_words(run: Run, summary: Mapping[str, Any], costs: Costs) -> list[str]:
    """Sentences of the card."""
    return [*_sizes(costs), *_loads(run, costs), *_limit(summary)]


def _loads(run: Run, costs: Costs) -> Iterator[str]:
    """From where loads are priced, and whether the price is too low or too high if that could not be measured."""
    prices, measured = costs.prices, run.header.page_cache
    if prices.billing == "size" and not prices.latency_hour:
        return  # a load costs nothing that is not paid for already
    loading = [(trial.label, trial.load) for trial in costs.trials if trial.load is not None]
    known = [(label, load) for label, load in loading if not load.lacking]
    if known:
        priced = f"Loads are priced as loads from {FROM[prices.loads_from]}, because {_why(prices)}"
        yield f"{priced}{_further(known, measured) if prices.loads_from != measured else ''}."
    if known and prices.loads_from != measured:
        yield f"Reported latencies are as measured, with loads from {FROM[measured]}."
    unknown: defaultdict[str, list[str]] = defaultdict(list)
    for label, load in loading:
        if load.lacking:
            unknown[load.lacking].append(label)
    for why, labels in unknown.items():
        yield _not_known(prices.loads_from, labels, why)


def _why(prices: Prices) -> str:
    if prices.loads_from == "cold":
        return "freed memory is assumed to be reused by others"
    if prices.billing == "average":
        return "mapped pages are not charged and stay in the page cache"
    return "the memory is paid for all the time and the pages stay in it"


def _further(loads: Sequence[tuple[str, LoadPrice]], measured: str) -> str:
    """By how much these loads differ from those that were measured, under each trial."""
    return f" ({'; '.join(f'{label}: {_against(load, measured)}' for label, load in loads)})"


def _against(load: LoadPrice, measured: str) -> str:
    """The differences in waiting and in CPU time, as far as the rounds can show them."""
    waits, rounds = [each.ms for each in load.rounds.values()], len(load.rounds)
    low, high = interval(waits)[:2] if rounds >= VERDICT_ROUNDS else (load.further.ms,) * 2
    if low * high <= 0:
        return f"no difference from {FROM[measured]} could be shown in {rounds} round{'s' if rounds > 1 else ''}"
    waiting, computing = load.further.ms, load.further.processor_s * 1e3
    longer = f"{milliseconds(abs(waiting))} {'longer' if waiting > 0 else 'shorter'}"
    more = f"{milliseconds(abs(computing))} {'more' if computing > 0 else 'less'} CPU time"
    return f"{longer} and {more} than from {FROM[measured]}"


def _not_known(wanted: str, labels: Sequence[str], why: str) -> str:
    costs, rate = ("more", "lower") if wanted == "cold" else ("less", "higher")
    their = "its" if len(labels) == 1 else "their"
    return (
        f"The cost of a load from {FROM[wanted]} is unknown for {listed(labels)} ({why.rstrip('.')}), so {their} loads"
        f" are priced as measured, from {FROM[OTHER[wanted]]}. Loads from {FROM[wanted]} cost {costs}, so keeping the"
        f" model pays from a {rate} rate than reported."
    )


def _sizes(costs: Costs) -> Iterator[str]:
    """Which trials fit which size, and how many requests its cores have time for."""
    fitting: defaultdict[Size, list[TrialCost]] = defaultdict(list)
    for trial in costs.trials:
        if trial.size is not None:
            fitting[trial.size].append(trial)
    for size, trials in fitting.items():
        labels = [trial.label for trial in trials]
        of = f"{size.memory_mib:.0f} MiB and {number(size.cpu)} cores at {number(size.hour)} an hour"
        most = [f"{number(trial.size_capacity or 0.0)} ({trial.label})" for trial in trials]
        if len(labels) > 1:
            but = ", apart from the cost of waiting" if costs.prices.latency_hour else ""
            fit = f"{listed(labels)} fit the same size, {of}, and so cost the same{but}"
        else:
            fit = f"{labels[0]} needs the size of {of}"
        yield (
            f"{fit}. By the CPU time measured here, its cores can answer up to {listed(most)} requests an hour;"
            " latencies are those of this machine."
        )


def _limit(summary: Mapping[str, Any]) -> Iterator[str]:
    if limit := summary.get("limit"):
        yield f"The limit is {limit['memory_mib']:.0f} MiB of resident memory. {floor_in_words(summary)}"
