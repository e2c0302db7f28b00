"""The summary of a run, made from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..costs.break_even import break_even
from ..costs.economics import economics, header_costs
from ..costs.limit import floor, most_rss, over_limit
from ..results.figures import MemoryFigures, TrialFigures
from ..results.header import TrialSpec
from ..results.records import OK, Memory
from ..results.summary import Failed, Measurements, Stopped, Summary
from ..stats.agreement import Agreement
from ..stats.arrival import arrival
from ..stats.comparison import compare
from ..stats.intervals import typical
from ..stats.latency import latencies
from ..stats.memory_return import memory_return
from ..stats.rounds import AsUsed, Round, Run, generator
from ..stats.slo import goodput
from ..stats.stopping import reached
from ..stats.warnings import warnings
from .card import card
from .nodes import by_node, machines


def summarise(run: Run) -> Summary:
    """What summary.json says of the run."""
    measured = measure(run)
    costs = header_costs(run)
    pairs = break_even(costs)
    priced = economics(costs, pairs, states_a_rate=run.header.states_a_rate)
    return Summary.of(measured, priced, card(run, measured, costs, pairs))


def measure(run: Run) -> Measurements:
    """The figures of the run, without prices."""
    header = run.header
    agreement = Agreement({label: _computed_in(used) for label, used in run.used.items()}, header.most_labels)
    for label in run.labels:
        for each in run.finished(label):
            agreement.check(each.samples)
    return Measurements(
        experiment=header.experiment,
        question=header.question,
        started=header.started,
        rounds_planned=header.rounds,
        rounds_due=run.rounds_due,
        stopped=Stopped(round=run.stop.round, reason=run.stop.reason) if run.stop else None,
        page_cache=header.page_cache,
        batching=header.batching_key,
        workload=header.workload,
        slo=header.slo,
        precision=header.precision,
        cost=header.cost,
        rate=header.rate,
        limit=header.limit,
        floor=floor(run),
        widths=reached(run) if header.precision else None,
        machines=machines(run),
        trials=[_trial(run, spec, agreement) for spec in header.trials],
        comparisons=compare(run),
        warnings=[*agreement.warnings(), *warnings(run)],
        failures=[Failed(trial=each.trial, round=each.round, reason=each.reason) for each in run.failures],
        disagreements=list(agreement.disagreements.values()),
    )


def _computed_in(used: AsUsed) -> str:
    """What trials must share to give equal scores: to other dtypes than float32 each loader rounds in its own way."""
    return used.dtype if used.dtype == "float32" else f"{used.dtype} by {' and '.join(used.loaders)}"


def _trial(run: Run, spec: TrialSpec, agreement: Agreement) -> TrialFigures:
    rounds, used = run.finished(spec.label), run.used[spec.label]
    ended, latency = [each.ended for each in rounds], latencies(rounds)
    return TrialFigures(
        label=spec.label,
        strategy=spec.strategy,
        options=spec.options,
        loader=spec.loader,
        loader_options=spec.loader_options,
        dtype=used.dtype,
        used_loaders=used.loaders,
        rounds=len(rounds),
        requests=sum(len(each.steady) for each in rounds),
        errors=sum(sample.status != OK for each in rounds for sample in each.samples),
        error=_usual_error(rounds),
        log=next((end.log for end in reversed(ended) if end.log), None),
        ready_s=_typical(end.ready_s for end in ended),
        first_answer_s=_typical(end.first_answer_s for end in ended),
        first_request_ms=_typical(_firsts(rounds)),
        latency_ms=latency.whole,
        warm=latency.warm,
        cold=latency.cold,
        throughput_rps=_typical(_ratio(len(each.answered), each.ended.steady_s) for each in rounds),
        generator=generator(rounds),
        slo=goodput(rounds, run.header.slo or {}),
        memory_mib=_memory([end.memory_mib for end in ended]),
        over_limit=over_limit(most_rss(rounds), run.header.limit),
        loads=sum(end.loads for end in ended),
        loads_per_request=_per_request(rounds),
        weights_mib=used.weights_mib,
        memory_return=memory_return([each.samples for each in rounds], used.weights_mib),
        models=run.header.models,
        cluster=spec.cluster,
        nodes=by_node(ended),
        labels_agree=spec.label not in agreement.disagreements,
        arrival=arrival(rounds),
    )


def _memory(measured: Sequence[Memory]) -> MemoryFigures:
    """Of a typical process."""
    return MemoryFigures(
        idle_pss=_typical(each.idle_pss for each in measured),
        idle_private=_typical(each.idle_private for each in measured),
        peak_rss=_typical(each.peak_rss for each in measured),
        start_peak_rss=_typical(each.start_peak_rss for each in measured),
    )


def _usual_error(rounds: Iterable[Round]) -> str | None:
    """The most frequent error of the requests that failed."""
    errors = Counter(sample.error for each in rounds for sample in each.samples if sample.error is not None)
    return max(errors, key=lambda error: errors[error]) if errors else None


def _firsts(rounds: Iterable[Round]) -> list[float]:
    return [sample.ms for each in rounds for sample in each.samples if sample.first and sample.status == OK]


def _typical(values: Iterable[float | None]) -> float | None:
    """The figure of a typical process; None when there is no value, or one that could not be read."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return typical(known) if known and len(known) == len(listed) else None


def _per_request(rounds: Sequence[Round]) -> float | None:
    """Loads in the steady state for each of its requests."""
    loads = [each.ended.steady_loads for each in rounds]
    sent = sum(len(each.steady) for each in rounds)
    return sum(count for count in loads if count is not None) / sent if sent and None not in loads else None


def _ratio(count: int, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
