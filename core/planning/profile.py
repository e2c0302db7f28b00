"""What a run measured of its models under each loader, in the form that a simulation needs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydantic import JsonValue

from ..costs.loads import Further, LoadPrice, load_price
from ..costs.prices import BYTES_PER_MIB, Prices
from ..errors import ResultsError
from ..results.header import TrialSpec
from ..results.plan_findings import (
    EnginesAtATime,
    LoadPriceUnknown,
    LoadsFromDisk,
    LoadsPricedFrom,
    NoteFinding,
    Unmeasured,
)
from ..stats.rounds import Round, Run
from .resources import Memory, Processor, Resident, memory_of, processor_of, resident_of
from .seconds import Seconds, mean_of
from .times import Times, unloading_of


@dataclass(frozen=True)
class ModelProfile:
    """One model under one loader: times in seconds, of which a simulation draws, and memory in MiB."""

    warm: tuple[float, ...]
    """Forward passes of one text."""
    first: tuple[float, ...]
    """Forward passes that follow a load."""
    load: tuple[float, ...]
    """Loads, in units of `load_unit_s`."""
    unload: float
    further: float
    """What each further text of a batch adds to a forward pass."""
    around: float
    """What a lone warm request takes besides the forward pass."""
    around_cold: float
    """What a lone cold request takes besides the load and the forward pass."""
    weights_mib: float
    """What a memory budget counts."""
    mib: float
    """What is paid for while the model is in memory."""
    request_cpu: float
    load_cpu: float
    """Core seconds."""
    parallel: int | None = None
    """How many requests it answers at a time, if it is an engine."""
    load_unit_s: float = 1.0
    """The seconds of such a unit: models of any size share the measured loads, relative to the usual one of a size."""
    load_further_s: float = 0.0
    """How much longer callers would wait for a load from where it is priced, disk or page cache. It is priced and not
    simulated, so that latencies are those that the run measured.
    """

    @cached_property
    def nbytes(self) -> int:
        """The bytes of its weights."""
        return round(self.weights_mib * BYTES_PER_MIB)

    @cached_property
    def waiting_s(self) -> float:
        """How much longer than a warm one a lone cold request takes, on average."""
        cold = self.load_s + mean_of(self.first) + self.around_cold
        return max(0.0, cold - self.warm_s + self.load_further_s)

    @cached_property
    def warm_s(self) -> float:
        """How long a lone warm request takes, on average."""
        return self.forward_s + self.around

    @cached_property
    def forward_s(self) -> float:
        """Mean seconds of a forward pass of one text."""
        return mean_of(self.warm)

    @cached_property
    def load_s(self) -> float:
        """Mean seconds of a load."""
        return mean_of(self.load) * self.load_unit_s

    def cold_start(self, prices: Prices) -> float:
        """k, in money."""
        return prices.cold_start(processor=self.load_cpu, waiting=self.waiting_s, load=self.load_s, mib=self.mib)

    def cold_start_as_served(self, prices: Prices) -> float:
        """k as a server computes it from its own loads and weights, since it does not know what its memory costs."""
        waiting, mib = self.load_s, self.weights_mib
        return prices.cold_start(processor=self.load_cpu, waiting=waiting, load=self.load_s, mib=mib)


@dataclass(frozen=True)
class Profile:
    """A loader with its options, as a run measured it."""

    loader: str
    options: Mapping[str, JsonValue]
    base_mib: float
    """Charged memory of a server that holds no model."""
    models: Mapping[str, ModelProfile]
    """By model id."""
    notes: tuple[NoteFinding, ...]
    """What was not measured, so that something is assumed instead."""
    resident: Resident | None = None
    requests_per_second: float | None = None
    """The rate at which the CPU time of a request was measured; None if it was not."""
    loads: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Seconds of each load that was measured, by model id."""

    @property
    def shown_as(self) -> str:
        """The loader, with its options if it has some."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.loader} ({options})" if options else self.loader

    def of_many(self, count: int) -> Profile:
        """As many models, each like the first one."""
        name, first = next(iter(self.models.items()))
        return replace(self, models={f"{name}-{number}": first for number in range(1, count + 1)})


def profiles(run: Run, prices: Prices) -> list[Profile]:
    """One for each loader of the run; the prices say which memory is paid for, and where loads come from.

    Raises ResultsError if nothing was measured that a plan could be based on.
    """
    by_loader: defaultdict[str, list[TrialSpec]] = defaultdict(list)
    for spec in run.header.trials:
        # The memory of a cluster is that of several servers and a balancer, so it says nothing of a single one.
        if spec.cluster is None and any(each.answered for each in run.finished(spec.label)):
            by_loader[json.dumps([spec.loader, spec.loader_options], sort_keys=True)].append(spec)
    if not by_loader:
        raise ResultsError(
            f"The run '{run.header.experiment}' has no finished trial of a single server to base a plan on."
        )
    return [_profile(run, specs, prices) for specs in by_loader.values()]


def _profile(run: Run, specs: Sequence[TrialSpec], prices: Prices) -> Profile:
    rounds = [each for spec in specs for each in run.finished(spec.label)]
    loader, ids, used = specs[0].loader, list(run.header.models), run.used[specs[0].label]
    total = used.weights_mib
    weights = {model: used.model_mib.get(model, total / len(ids)) for model in ids}
    times, unload = Times(rounds, loader, weights), unloading_of(rounds)
    memory, processor = memory_of(rounds, weights, prices.charge), processor_of(rounds, weights)
    load = _load_price(run, specs, prices)
    models = {model: _model(times, model, weights[model], unload.seconds, memory, processor) for model in ids}
    models = {name: _loaded_from(load, model) for name, model in models.items()}
    engines = {name: spec.engine for name, spec in run.header.models.items() if spec.engine}
    for name, engine in engines.items():
        models[name] = replace(models[name], parallel=engine.parallel, further=0.0)
    at_a_time = {name: engine.parallel for name, engine in engines.items()}
    own = [EnginesAtATime(parallel=at_a_time)] if engines else []
    batches = [note for note in times.notes if len(engines) < len(ids) or note != Unmeasured(what="batches")]
    disk = [LoadsFromDisk()] if run.header.page_cache == "cold" else []
    return Profile(
        loader,
        dict(specs[0].loader_options),
        memory.base_mib,
        models,
        (*disk, *own, *batches, *unload.notes, *memory.notes, *processor.notes, *_page_cache(load, prices)),
        resident_of(rounds, weights),
        None if processor.request is None else _rate(rounds),
        times.loads(),
    )


def _load_price(run: Run, specs: Sequence[TrialSpec], prices: Prices) -> LoadPrice | None:
    """The price of loads of the first trial for which it is known; else of any trial that loads."""
    found = [price for spec in specs if (price := load_price(run, spec, prices.loads_from))]
    return next((price for price in found if not price.lacking), found[0] if found else None)


def _loaded_from(price: LoadPrice | None, model: ModelProfile) -> ModelProfile:
    """The model with loads as they are priced; a load takes no less than 0 CPU time."""
    if price is None:
        return model
    further = price.further
    return replace(model, load_cpu=max(0.0, model.load_cpu + further.processor_s), load_further_s=further.ms / 1e3)


def _page_cache(price: LoadPrice | None, prices: Prices) -> Iterator[NoteFinding]:
    """From where loads are priced, if they were measured from elsewhere, or if their price is not known."""
    if price is None:
        return
    if price.lacking:
        yield LoadPriceUnknown(page_cache=prices.loads_from, reason=price.lacking)
    elif any(further != Further() for further in price.rounds.values()):
        ms, seconds = price.further.ms, price.further.processor_s
        yield LoadsPricedFrom(page_cache=price.page_cache, further_ms=ms, further_processor_s=seconds)


def _rate(rounds: Sequence[Round]) -> float | None:
    """Requests a second over all of them."""
    seconds = sum(each.ended.steady_s for each in rounds)
    return sum(len(each.steady) for each in rounds) / seconds if seconds > 0 else None


def _model(
    times: Times, model: str, weights: float, unload: float, memory: Memory, processor: Processor
) -> ModelProfile:
    warm, cold = times.warm.of(model), times.cold.of(model)
    forwards, loads = Seconds(warm.seconds("inference")), Seconds(cold.seconds("load"))
    return ModelProfile(
        warm=forwards,
        first=Seconds(cold.seconds("inference")),
        load=loads,
        unload=unload,
        further=times.further(model),
        around=warm.around(),
        around_cold=cold.around(),
        weights_mib=weights,
        mib=memory.per_weight * weights,
        request_cpu=forwards.average if processor.request is None else processor.request,
        load_cpu=loads.average if processor.load is None else processor.of_load(weights, loads.average, times.load_s),
    )
