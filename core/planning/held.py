"""What a server loaded and held during a workload, measured or simulated, and the money that a setting can avoid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..costs.prices import HOUR, Prices
from ..results.records import ModelEvent
from ..stats.rounds import Round
from .outcome import Outcome
from .profile import ModelProfile, Profile


@dataclass(frozen=True)
class Held:
    """What one round held, in MiB and seconds; the memory of a model and the CPU time of a load are the profile's."""

    seconds: float
    mib_seconds: float
    """Memory of models, summed over time."""
    peak_mib: float
    """The most memory of models at one time."""
    load_cpu_s: float
    """CPU time of loads."""
    waiting_s: float
    """The waiting of all callers, as if models were loaded from where loads are priced (disk or page cache)."""
    most_mib: float | None
    """The most resident memory of the server; None if it is not known."""
    cores: float
    """The average number of busy cores of the busiest server, with loads and requests."""
    servers: int = 1

    def cost_per_hour(self, prices: Prices) -> float | None:
        """What loads, models in memory and waiting cost, and a size if it is billed; None if that is not known."""
        waiting = prices.waiting(self.waiting_s) / self.seconds * HOUR
        if prices.sizes:
            if self.most_mib is None:
                return None
            return waiting + self.servers * (prices.size_for(self.most_mib, self.cores) or prices.sizes[-1]).hour
        held = self.peak_mib if prices.billing == "peak" else self.mib_seconds / self.seconds
        return waiting + (prices.holding(held) + prices.processor(self.load_cpu_s) / self.seconds) * HOUR


def simulated(profile: Profile, outcome: Outcome) -> Held:
    """The figures of a simulation."""
    models = list(profile.models.values())
    return Held(
        seconds=outcome.seconds,
        mib_seconds=outcome.mib_seconds,
        peak_mib=outcome.peak_mib,
        load_cpu_s=sum(count * model.load_cpu for count, model in zip(outcome.loads, models, strict=True)),
        waiting_s=float(outcome.latencies.sum()) + outcome.cold * models[0].load_further_s,
        most_mib=profile.resident.most(outcome.weights_mib) if profile.resident else None,
        cores=outcome.busiest_cores(models),
        servers=outcome.servers,
    )


def measured(profile: Profile, each: Round) -> Held | None:
    """The figures of a round, from the loads and unloads that its server reported; None if it did not report all.

    Like the simulator, it counts the loads of models that the workload found in memory, and of the first request's.
    """
    events, ended = each.ended.events, each.ended
    if events is None or ended.resident is None or sum(e.event == "load" for e in events) != ended.steady_loads:
        return None
    by_model = defaultdict[str, list[ModelEvent]](list)
    for event in events:
        by_model[event.model].append(event)
    changes: list[tuple[float, float]] = []  # when, and by how many MiB
    loads: defaultdict[str, int] = defaultdict(int, {sample.model: 1 for sample in each.samples if sample.first})
    for name, model in profile.models.items():
        before = _before(by_model[name]) if by_model[name] else ended.resident.count(name)
        loads[name] = max(loads[name], before) + sum(event.event == "load" for event in by_model[name])
        changes += [(0.0, before * model.mib), *_changes(by_model[name], model)]
    cold = sum(bool(sample.cold) for sample in each.answered)
    further = next(iter(profile.models.values())).load_further_s
    return Held(
        seconds=ended.steady_s,
        mib_seconds=sum((ended.steady_s - at) * mib for at, mib in changes),
        peak_mib=_most(changes),
        load_cpu_s=sum(count * profile.models[name].load_cpu for name, count in loads.items()),
        waiting_s=sum(sample.ms for sample in each.answered) / 1e3 + cold * further,
        most_mib=None if ended.nodes else each.most_rss,  # that of all nodes together says nothing of one
        cores=(ended.processor_s or 0.0) / ended.steady_s,
    )


def _before(events: Sequence[ModelEvent]) -> int:
    """How many copies of a model were in memory before these events, which are all of that model."""
    held = least = 0
    for event in events:
        held += 1 if event.event == "load" else -1
        least = min(least, held)
    return -least


def _changes(events: Sequence[ModelEvent], model: ModelProfile) -> Iterator[tuple[float, float]]:
    """When a model's memory was taken and given back; it is taken when a load begins."""
    for event in events:
        if event.event == "load":
            yield max(0.0, event.at - event.seconds), model.mib
        else:
            yield event.at, -model.mib


def _most(changes: Sequence[tuple[float, float]]) -> float:
    held = most = 0.0
    for _, mib in sorted(changes):
        held += mib
        most = max(most, held)
    return most
