"""The summary of a run, made from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .agreement import Agreement
from .break_even import break_even
from .card import card
from .comparison import compare
from .economics import economics, header_costs
from .intervals import typical
from .latency import latencies
from .limit import floor, most_rss, over_limit
from .memory_return import memory_return
from .precision import reached
from .rounds import OK, Record, Round, Run, arrange, generator
from .slo import goodput
from .warnings import warnings

MEMORY = ("idle_pss", "idle_private", "peak_rss", "start_peak_rss")


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """`summary.json`: see docs/results.md for its keys. Rounds that did not finish are counted, not averaged."""
    run = arrange(records)
    header = run.header
    computed_in = {trial["label"]: _computed_in(trial) for trial in header["trials"]}
    agreement = Agreement(computed_in, header.get("most_labels", 1))
    for label in run.labels:
        for each in run.finished(label):
            agreement.check(each.samples)
    summary = {
        "schema": header["schema"],
        "experiment": header["experiment"],
        "question": header["question"],
        "started": header["started"],
        "rounds_planned": header["rounds"],
        "rounds_due": run.rounds_due,
        "stopped": {key: run.stop[key] for key in ("round", "reason")} if run.stop else None,
        "page_cache": header["page_cache"],
        "batching": header.get("batching", "off"),  # which older runs did not have
        "workload": header.get("workload"),
        "slo": header.get("slo"),
        "precision": header.get("precision"),
        "cost": header.get("cost"),
        "rate": header.get("rate"),
        "limit": header.get("limit"),
        "floor": floor(run),
        "widths": reached(run) if header.get("precision") else None,
        "trials": [_trial(run, spec, agreement) for spec in header["trials"]],
        "comparisons": compare(run),
        "warnings": [*agreement.warnings(), *warnings(run)],
        "failures": [{key: record[key] for key in ("trial", "round", "reason")} for record in run.failures],
        "disagreements": list(agreement.disagreements.values()),
    }
    costs = header_costs(run)
    summary["economics"] = economics(costs, break_even(costs), header.get("workload"))
    return summary | {"card": card(run, summary)}


def _computed_in(spec: Record) -> str:
    """What trials must share to give equal scores: to other dtypes than float32 each loader rounds in its own way."""
    dtype, loaders = spec["dtype"], " and ".join(spec["used_loaders"])
    return str(dtype) if dtype == "float32" else f"{dtype} by {loaders}"


def _trial(run: Run, spec: Record, agreement: Agreement) -> dict[str, Any]:
    rounds = run.finished(spec["label"])
    ended = [each.ended for each in rounds]
    return {
        **{key: spec[key] for key in ("label", "strategy", "options", "loader", "loader_options", "dtype")},
        "used_loaders": spec["used_loaders"],
        "rounds": len(rounds),
        "requests": sum(len(each.steady) for each in rounds),
        "errors": sum(sample["status"] != OK for each in rounds for sample in each.samples),
        "error": _usual_error(rounds),
        "log": next((said for record in reversed(ended) if (said := record.get("log"))), None),
        "ready_s": _typical(record["ready_s"] for record in ended),
        "first_answer_s": _typical(record["first_answer_s"] for record in ended),
        "first_request_ms": _typical(_firsts(rounds)),
        **latencies(rounds),
        "throughput_rps": _typical(_ratio(len(each.answered), each.ended["steady_s"]) for each in rounds),
        "generator": generator(rounds),
        "slo": goodput(rounds, run.header.get("slo") or {}),
        "memory_mib": {key: _typical(record["memory_mib"][key] for record in ended) for key in MEMORY},
        "over_limit": over_limit(most_rss(rounds), run.header.get("limit")),
        "loads": sum(record["loads"] for record in ended),
        "loads_per_request": _per_request(rounds),
        "weights_mib": spec["weights_mib"],
        "memory_return": memory_return([each.samples for each in rounds], spec["weights_mib"]),
        "models": run.header["models"],
        "labels_agree": spec["label"] not in agreement.disagreements,
    }


def _usual_error(rounds: Iterable[Round]) -> str | None:
    """The most frequent error of the requests that failed."""
    errors = Counter(sample["error"] for each in rounds for sample in each.samples if "error" in sample)
    return max(errors, key=lambda error: errors[error]) if errors else None


def _firsts(rounds: Iterable[Round]) -> list[float]:
    return [sample["ms"] for each in rounds for sample in each.samples if sample["first"] and sample["status"] == OK]


def _typical(values: Iterable[float | None]) -> float | None:
    """The figure of a typical process; None when there is no value, or one that could not be read."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return typical(known) if known and len(known) == len(listed) else None


def _per_request(rounds: Sequence[Round]) -> float | None:
    """Loads in the steady state for each of its requests."""
    loads = [each.ended.get("steady_loads") for each in rounds]
    sent = sum(len(each.steady) for each in rounds)
    return sum(count for count in loads if count is not None) / sent if sent and None not in loads else None


def _ratio(count: int, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
