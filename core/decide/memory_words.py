"""What a card says of memory: from where a load is priced, which size each trial needs, and what a limit leaves out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .amounts import listed, number
from .economics import Costs, TrialCost
from .intervals import VERDICT_ROUNDS, interval
from .limit import floor_in_words
from .loads import LoadPrice
from .prices import Prices, Size
from .rounds import Run
from .verdicts import milliseconds

FROM = {"cold": "the disk", "warm": "the page cache"}
OTHER = {"cold": "warm", "warm": "cold"}


def memory_in_words(run: Run, summary: Mapping[str, Any], costs: Costs) -> list[str]:
    """Sentences of the card."""
    return [*_sizes(costs), *_loads(run, costs), *_limit(summary)]


def _loads(run: Run, costs: Costs) -> Iterator[str]:
    """From where loads are priced, and in which direction it errs where that is not where they should be."""
    prices, measured = costs.prices, str(run.header["page_cache"])
    if prices.billing == "size" and not prices.latency_hour:
        return  # a load costs nothing that is not paid for already
    loading = [(trial.label, trial.load) for trial in costs.trials if trial.load is not None]
    known = [(label, load) for label, load in loading if not load.lacking]
    if known:
        priced = f"A load is priced from {FROM[prices.loads_from]}, since {_why(prices)}"
        yield f"{priced}{_further(known, measured) if prices.loads_from != measured else ''}."
    if known and prices.loads_from != measured:
        yield f"The milliseconds that callers wait are those measured, with loads from {FROM[measured]}."
    unknown: defaultdict[str, list[str]] = defaultdict(list)
    for label, load in loading:
        if load.lacking:
            unknown[load.lacking].append(label)
    for why, labels in unknown.items():
        yield _not_known(prices.loads_from, labels, why)


def _why(prices: Prices) -> str:
    if prices.loads_from == "cold":
        return "what is freed serves someone else"
    if prices.billing == "average":
        return "mapped pages are nobody's bill, and stay there"
    return "the memory is paid for all the time, and the pages stay in it"


def _further(loads: Sequence[tuple[str, LoadPrice]], measured: str) -> str:
    """What that adds to a load, or takes from it, under each trial."""
    return f" ({'; '.join(f'{label}: {_against(load, measured)}' for label, load in loads)})"


def _against(load: LoadPrice, measured: str) -> str:
    """Of waiting and of processor time, as far as the rounds can tell."""
    waits, rounds = [each.ms for each in load.rounds.values()], len(load.rounds)
    low, high = interval(waits)[:2] if rounds >= VERDICT_ROUNDS else (load.further.ms,) * 2
    if low * high <= 0:
        return f"in {rounds} round{'s' if rounds > 1 else ''} not separable from one from {FROM[measured]}"
    waiting, computing = load.further.ms, load.further.processor_s * 1e3
    longer = f"{milliseconds(abs(waiting))} {'longer' if waiting > 0 else 'less'} than from {FROM[measured]}"
    return f"{longer}, {milliseconds(abs(computing))} {'more' if computing > 0 else 'less'} of a core"


def _not_known(wanted: str, labels: Sequence[str], why: str) -> str:
    errs, rate = ("dearer", "lower") if wanted == "cold" else ("cheaper", "higher")
    return (
        f"What a load from {FROM[wanted]} takes under {listed(labels)} is not known ({why.rstrip('.')}): it is priced"
        f" from {FROM[OTHER[wanted]]}, as measured. In truth loading is {errs}, so that keeping pays from a {rate} rate"
        " on."
    )


def _sizes(costs: Costs) -> Iterator[str]:
    """Which trials fit which size, and how many requests its processor has time for."""
    fitting: defaultdict[Size, list[TrialCost]] = defaultdict(list)
    for trial in costs.trials:
        if trial.size is not None:
            fitting[trial.size].append(trial)
    for size, trials in fitting.items():
        labels = [trial.label for trial in trials]
        of = f"{size.memory_mib:.0f} MiB and {number(size.cpu)} cores at {number(size.hour)} an hour"
        most = [f"{number(trial.size_capacity or 0.0)} ({trial.label})" for trial in trials]
        if len(labels) > 1:
            but = ", but for their callers' waiting" if costs.prices.latency_hour else ""
            fit = f"{listed(labels)} fit the same size, {of}, and so cost the same{but}"
        else:
            fit = f"{labels[0]} needs the size of {of}"
        yield (
            f"{fit}. By the CPU time measured here, its cores answer up to {listed(most)} requests an hour; latencies"
            " are those of this machine's cores."
        )


def _limit(summary: Mapping[str, Any]) -> Iterator[str]:
    if limit := summary.get("limit"):
        yield f"The limit is {limit['memory_mib']:.0f} MiB of resident memory. {floor_in_words(summary)}"
