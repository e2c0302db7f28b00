"""The summary of a run, made from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..costs.break_even import break_even
from ..costs.economics import economics, header_costs
from ..costs.limit import floor, most_rss, over_limit
from ..results.header import RunHeader, TrialSpec
from ..results.records import OK
from ..stats.agreement import Agreement
from ..stats.comparison import compare
from ..stats.intervals import typical
from ..stats.latency import latencies
from ..stats.memory_return import memory_return
from ..stats.rounds import (
    AsUsed,
    Round,
    Run,
    generator,
)
from ..stats.slo import goodput
from ..stats.stopping import reached
from ..stats.warnings import warnings
from .card import card

MEMORY = ("idle_pss", "idle_private", "peak_rss", "start_peak_rss")


def summarise(run: Run) -> dict[str, Any]:
    """`summary.json`: see docs/results.md for its keys. Rounds that did not finish are counted, not averaged."""
    header = run.header
    agreement = Agreement({label: _computed_in(used) for label, used in run.used.items()}, header.most_labels)
    for label in run.labels:
        for each in run.finished(label):
            agreement.check(each.samples)
    summary = {
        "schema": header.schema_version,
        "experiment": header.experiment,
        "question": header.question,
        "started": header.started,
        "rounds_planned": header.rounds,
        "rounds_due": run.rounds_due,
        "stopped": run.stop.model_dump(include={"round", "reason"}) if run.stop else None,
        "page_cache": header.page_cache,
        **_stated(header),
        "floor": floor(run),
        "widths": reached(run) if header.precision else None,
        "trials": [_trial(run, spec, agreement) for spec in header.trials],
        "comparisons": compare(run),
        "warnings": [*agreement.warnings(), *warnings(run)],
        "failures": [{"trial": each.trial, "round": each.round, "reason": each.reason} for each in run.failures],
        "disagreements": list(agreement.disagreements.values()),
    }
    costs = header_costs(run)
    summary["economics"] = economics(costs, break_even(costs), states_a_rate=header.states_a_rate)
    return summary | {"card": card(run, summary)}


def _stated(header: RunHeader) -> dict[str, Any]:
    """The keys of the experiment that were used."""
    cost, workload, limit = header.cost, header.workload, header.limit
    return {
        "batching": header.batching_key,
        "workload": workload.model_dump(exclude_none=True) if workload else None,
        "slo": header.slo,
        "precision": header.precision,
        "cost": cost.model_dump() if cost else None,
        "rate": header.rate,
        "limit": limit.model_dump() if limit else None,
    }


def _computed_in(used: AsUsed) -> str:
    """What trials must share to give equal scores: to other dtypes than float32 each loader rounds in its own way."""
    return used.dtype if used.dtype == "float32" else f"{used.dtype} by {' and '.join(used.loaders)}"


def _trial(run: Run, spec: TrialSpec, agreement: Agreement) -> dict[str, Any]:
    rounds, used = run.finished(spec.label), run.used[spec.label]
    ended = [each.ended for each in rounds]
    return {
        "label": spec.label,
        "strategy": spec.strategy,
        "options": spec.options,
        "loader": spec.loader,
        "loader_options": spec.loader_options,
        "dtype": used.dtype,
        "used_loaders": used.loaders,
        "rounds": len(rounds),
        "requests": sum(len(each.steady) for each in rounds),
        "errors": sum(sample.status != OK for each in rounds for sample in each.samples),
        "error": _usual_error(rounds),
        "log": next((end.log for end in reversed(ended) if end.log), None),
        "ready_s": _typical(end.ready_s for end in ended),
        "first_answer_s": _typical(end.first_answer_s for end in ended),
        "first_request_ms": _typical(_firsts(rounds)),
        **latencies(rounds),
        "throughput_rps": _typical(_ratio(len(each.answered), each.ended.steady_s) for each in rounds),
        "generator": generator(rounds),
        "slo": goodput(rounds, run.header.slo or {}),
        "memory_mib": {key: _typical(getattr(end.memory_mib, key) for end in ended) for key in MEMORY},
        "over_limit": over_limit(most_rss(rounds), run.header.limit),
        "loads": sum(end.loads for end in ended),
        "loads_per_request": _per_request(rounds),
        "weights_mib": used.weights_mib,
        "memory_return": memory_return([each.samples for each in rounds], used.weights_mib),
        "models": {model_id: model.model_dump() for model_id, model in run.header.models.items()},
        "labels_agree": spec.label not in agreement.disagreements,
    }


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
