"""What each trial costs: a, for an hour of holding its models without a request, and b, for each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..results.economics import (
    BreakEven,
    CoresOverSizes,
    Economics,
    LoadFigures,
    MemoryOverSizes,
    NotMeasured,
    SizePrice,
    TrialCosts,
    Unpriced,
)
from ..results.figures import Interval
from ..results.header import Charge
from ..stats.intervals import VERDICT_ROUNDS, interval, typical
from ..stats.rounds import Round, Run
from .limit import most_rss
from .loads import Further, LoadPrice, cold_requests, load_price
from .prices import HOUR, MIB_PER_GIB, Prices

MILLION = 1e6
IDLE_SECONDS = 1.0  # after the last request, when idle memory is read


@dataclass(frozen=True)
class RoundCost:
    """One server process, priced."""

    charged_mib: float
    """Paid for without a request, too; under `peak` billing the most that was held, under `size` the size's memory."""
    average_mib: float
    """Paid for on average over the steady state."""
    holding: float
    """a: money per hour."""
    per_request: float
    """b: money per answered request."""
    rate: float
    """Answered requests per hour of the steady state."""

    @property
    def measured(self) -> float:
        """Money per hour of the steady state: a + b · rate."""
        return self.holding + self.per_request * self.rate

    @property
    def per_answer(self) -> float:
        """Money for each answered request, holding included."""
        return self.measured / self.rate

    @property
    def gib_hours(self) -> float:
        """GiB-hours of memory that are paid for with each answered request."""
        return self.average_mib / MIB_PER_GIB / self.rate


@dataclass(frozen=True)
class TrialCost:
    """A trial, priced round by round."""

    label: str
    rounds: Mapping[int, RoundCost]
    capacity: float | None
    """The most requests per hour that it can answer: those of a closed loop of clients, or those that the cores of its
    size have time for, if these are fewer; None if neither is known.
    """
    is_line: bool
    """Whether a + b · rate holds at other rates than the one that was measured."""
    least_keep: float | None = None
    """Seconds without a request after which the first of its models would be freed; None: at once, or never."""
    load: LoadPrice | None = None
    """How its loads are priced; None if no request waited for one."""
    size: SizePrice | None = None
    """The size that it is billed for."""
    size_capacity: float | None = None
    """Requests per hour for which the cores of that size have time; `capacity` is no more than that."""

    @property
    def is_limited_by_size(self) -> bool:
        """Whether those cores, and not what was measured, limit the requests that it can answer."""
        return self.size_capacity is not None and self.size_capacity == self.capacity

    def values(self, name: str) -> list[float]:
        """The field of that name in each round."""
        return [float(getattr(self.rounds[number], name)) for number in sorted(self.rounds)]

    def typical(self, name: str) -> float:
        """The field of that name in a typical round."""
        return typical(self.values(name))


@dataclass(frozen=True)
class Costs:
    """A run, priced."""

    prices: Prices
    trials: list[TrialCost]
    """The trials that can be priced, in the order of the file."""
    unpriced: dict[str, Unpriced]
    """Why the others cannot be, by label."""


def price(run: Run, prices: Prices) -> Costs:
    """Prices every trial of the run."""
    trials: list[TrialCost] = []
    unpriced: dict[str, Unpriced] = {}
    for spec in run.header.trials:
        label = spec.label
        rounds = run.finished(label)
        least_keep = min((s for each in rounds if (s := each.ended.least_keep) is not None), default=None)
        flat = prices.billing == "size" and not prices.latency_hour  # whatever is loaded, and however often
        is_line = least_keep is None or flat or _is_line(least_keep, rounds)
        closed, size = not run.header.states_a_rate, None
        if why := _unpriced(rounds, prices, is_line):
            unpriced[label] = why
            continue
        load = load_price(run, spec, prices.loads_from)
        if prices.sizes:
            cores = 0.0 if closed else typical([_core_seconds(each, load) / each.ended.steady_s for each in rounds])
            size = prices.size_for(most_rss(rounds) or 0.0, cores)
            if size is None:
                unpriced[label] = _does_not_fit(rounds, prices.sizes[-1], cores)
                continue
        priced = {each.number: _round_cost(each, prices, is_line, load, size) for each in rounds}
        limits = [typical([cost.rate for cost in priced.values()])] if closed else []
        of_size = None
        if size is not None:
            of_size = size.cpu / typical([_core_seconds(each, load) / len(each.answered) for each in rounds]) * HOUR
            limits.append(of_size)
        capacity = min(limits, default=None)
        trials.append(TrialCost(label, priced, capacity, is_line, least_keep, load, size, of_size))
    return Costs(prices, trials, unpriced)


def economics(costs: Costs | None, pairs: list[BreakEven], *, states_a_rate: bool) -> Economics | None:
    """The costs, with the break-even rates of `pairs`; None if nothing can be priced."""
    if costs is None or not costs.trials:
        return None
    return Economics(
        prices=costs.prices.recorded,
        trials=[_described(trial, states_a_rate=states_a_rate) for trial in costs.trials],
        break_even=pairs,
        unpriced=costs.unpriced,
    )


def _described(trial: TrialCost, *, states_a_rate: bool) -> TrialCosts:
    return TrialCosts(
        label=trial.label,
        is_line=trial.is_line,
        holding_per_hour=trial.typical("holding"),
        holding_ci95=_ci95(trial.values("holding")),
        per_request=trial.typical("per_request"),
        per_request_ci95=_ci95(trial.values("per_request")),
        charged_mib=trial.typical("charged_mib"),
        capacity_rps=None if trial.capacity is None else trial.capacity / HOUR,
        load=_load(trial.load),
        measured_per_hour=trial.typical("measured") if states_a_rate else None,
        per_million=trial.typical("per_answer") * MILLION if states_a_rate else None,
    )


def _load(price: LoadPrice | None) -> LoadFigures | None:
    if price is None:
        return None
    further = price.further
    return LoadFigures(
        page_cache=price.page_cache,
        lacking=price.lacking,
        further_ms=further.ms,
        further_processor_s=further.processor_s,
    )


def _ci95(values: Sequence[float]) -> Interval | None:
    """The interval of the median over rounds; None below 5 rounds."""
    return interval(values)[:2] if len(values) >= VERDICT_ROUNDS else None


def _unpriced(rounds: Sequence[Round], prices: Prices, is_line: bool) -> Unpriced | None:
    """Why the trial cannot be priced; None if it can."""
    if not rounds:
        return NotMeasured(kind="no finished round")
    if not all(each.answered and each.ended.steady_s > 0 for each in rounds):
        return NotMeasured(kind="no answered request")
    if any(_lacks_memory(each, prices) for each in rounds):
        return NotMeasured(kind="memory unknown")
    if prices.billing == "average" and not is_line and any(each.ended.mean_rss is None for each in rounds):
        return NotMeasured(kind="memory over time unknown")
    if any(each.ended.processor_s is None for each in rounds):
        return NotMeasured(kind="CPU time unknown")
    return None


def _lacks_memory(each: Round, prices: Prices) -> bool:
    """Whether memory that is paid for is not known."""
    memory = each.ended.memory_mib
    whole = (memory.idle_rss, each.most_rss) if prices.billing in ("peak", "size") else ()
    return None in (memory.idle(prices.charge), *whole)


def _does_not_fit(rounds: Sequence[Round], largest: SizePrice, cores: float) -> Unpriced:
    held = most_rss(rounds) or 0.0
    if held <= largest.memory_mib:
        return CoresOverSizes(took=cores, largest=largest.cpu)
    return MemoryOverSizes(held_mib=held, largest_mib=largest.memory_mib)


def _core_seconds(each: Round, load: LoadPrice | None) -> float:
    """CPU time of its requests, with loads as they are priced."""
    loads = min(cold_requests(each), each.ended.loads)  # requests that came at the same time may have shared one
    further = load.in_round(each.number) if load else Further()
    return (each.ended.processor_s or 0.0) + loads * further.processor_s


def _round_cost(
    each: Round, prices: Prices, is_line: bool, load: LoadPrice | None, size: SizePrice | None
) -> RoundCost:
    seconds, answered = each.ended.steady_s, len(each.answered)
    charged, above = _memory(each, prices, is_line, size)
    further = load.in_round(each.number) if load else Further()
    waited = (sum(sample.ms for sample in each.answered) + cold_requests(each) * further.ms) / 1e3
    processor = prices.processor(_core_seconds(each, load))
    spent = processor + prices.waiting(waited) + prices.holding(above) * seconds
    return RoundCost(
        charged_mib=charged,
        average_mib=charged + above,
        holding=prices.holding(charged) * HOUR if size is None else size.hour,
        per_request=spent / answered,
        rate=answered / seconds * HOUR,
    )


def _memory(each: Round, prices: Prices, is_line: bool, size: SizePrice | None) -> tuple[float, float]:
    """MiB that are paid for all the time, and MiB that are paid for besides, on average over the steady state.

    Above the idle level only resident memory is known. Under `private` it stands for what is written then, and is at
    least as large, because mapped weights are resident, too. If nothing expires, a mean below the idle level is memory
    that was still growing, and counts as 0.
    """
    if size is not None:
        return size.memory_mib, 0.0
    memory, mean = each.ended.memory_mib, each.ended.mean_rss
    idle, resident = memory.idle(prices.charge) or 0.0, memory.idle_rss
    if prices.billing == "peak":
        return idle + max(0.0, (each.most_rss or 0.0) - (resident or 0.0)), 0.0
    above = mean - resident if mean is not None and resident is not None else 0.0
    return idle, max(0.0, above) if is_line else above


def _is_line(least_keep: float, rounds: Sequence[Round]) -> bool:
    """Whether the cost is linear in the rate. It is not if models expire, for how often they do depends on the gaps
    between requests. A model kept for longer than the idle second and never loaded again counts as linear, as long as
    nothing expires.
    """
    if least_keep <= IDLE_SECONDS:
        return False
    return not any(sample.cold for each in rounds for sample in each.answered)


def header_costs(run: Run, charge: Charge | None = None) -> Costs | None:
    """The run at the prices that it states, perhaps with another `charge`; None if it states none."""
    if run.header.cost is None:
        return None
    prices = Prices.of(run.header.cost)
    return price(run, replace(prices, charge=charge or prices.charge))
