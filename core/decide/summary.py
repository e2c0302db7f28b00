"""The summary of a run, made from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .agreement import Agreement
from .memory_return import memory_return
from .statistics import mean_interval, median, percentile, samples_for

Record = dict[str, Any]
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """`summary.json`: see the README for its keys. Rounds that did not finish are counted, not averaged."""
    run = records[0]
    finished: defaultdict[str, list[Record]] = defaultdict(list)
    samples: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records[1:]:
        if record["kind"] == "trial":
            finished[record["trial"]].append(record)
        elif record["kind"] == "sample":
            samples[record["trial"], record["round"]].append(record)
    agreement = Agreement({trial["label"]: trial["dtype"] for trial in run["trials"]})
    for spec in run["trials"]:
        for record in finished[spec["label"]]:
            agreement.check(samples[spec["label"], record["round"]])
    trials = []
    for spec in run["trials"]:
        rounds = finished[spec["label"]]
        trial = _trial(spec, rounds, [samples[spec["label"], record["round"]] for record in rounds])
        trial["models"] = run["models"]
        trial["labels_agree"] = spec["label"] not in agreement.disagreements
        trials.append(trial)
    failures = [record for record in records if record["kind"] == "failure"]
    return {
        "schema": run["schema"],
        "experiment": run["experiment"],
        "question": run["question"],
        "started": run["started"],
        "rounds_planned": run["rounds"],
        "page_cache": run["page_cache"],
        "batching": run.get("batching", "off"),  # which older runs did not have
        "trials": trials,
        "failures": [{key: record[key] for key in ("trial", "round", "reason")} for record in failures],
        "disagreements": list(agreement.disagreements.values()),
    }


def _trial(spec: Record, rounds: list[Record], samples: list[list[Record]]) -> dict[str, Any]:
    firsts = [sample for each in samples for sample in each if sample["first"]]
    steady = [[sample for sample in each if not sample["first"]] for each in samples]
    answered = [[sample for sample in each if sample["status"] == 200] for each in steady]
    everything = [sample for each in answered for sample in each]
    memory_keys = ("idle_pss", "idle_private", "peak_rss")
    return {
        **{key: spec[key] for key in ("label", "strategy", "options", "loader", "loader_options", "dtype")},
        "rounds": len(rounds),
        "requests": sum(len(each) for each in steady),
        "errors": sum(sample["status"] != 200 for each in samples for sample in each),
        "ready_s": _mean(record["ready_s"] for record in rounds),
        "first_answer_s": _mean(record["first_answer_s"] for record in rounds),
        "first_request_ms": _mean(sample["ms"] for sample in firsts if sample["status"] == 200),
        "latency_ms": _latency([[sample["ms"] for sample in each] for each in answered]),
        "cold": {
            "share": _mean(float(sample["cold"]) for sample in everything),
            "phases_ms": _cold_phases(everything),
        },
        "throughput_rps": _ratio(len(everything), sum(record["steady_s"] for record in rounds)),
        "memory_mib": {key: _mean(record["memory_mib"][key] for record in rounds) for key in memory_keys},
        "loads": sum(record["loads"] for record in rounds),
        "weights_mib": spec["weights_mib"],
        "memory_return": memory_return(samples, spec["weights_mib"]),
    }


def _latency(rounds: list[list[float]]) -> dict[str, Any]:
    """Mean over rounds with its interval, and percentiles over all requests; null ones say why."""
    pooled = [value for each in rounds for value in each]
    means = [float(np.mean(each)) for each in rounds if each]
    interval = mean_interval(means)
    result: dict[str, Any] = {"mean": _mean(means), "mean_ci95": list(interval) if interval else None}
    why = {} if interval else {"mean_ci95": f"needs 2 rounds, has {len(means)}"}
    for name, q in PERCENTILES.items():
        result[name] = percentile(pooled, q)
        if result[name] is None:
            why[name] = f"needs {samples_for(q)} requests, has {len(pooled)}"
    return result | {"null_because": why}


def _cold_phases(samples: list[Record]) -> dict[str, float | None]:
    """Where the time of a cold request goes: the median of each part of its Server-Timing, in ms."""
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if sample["cold"]:
            parts["answer"].append(sample["ms"])
            for name, value in sample["timing"].items():
                parts[name].append(value)
    return {name: median(values) for name, values in parts.items()}


def _mean(values: Any) -> float | None:
    """The mean, or None when there is no value, or one that could not be read."""
    listed = list(values)
    return float(np.mean(listed)) if listed and None not in listed else None


def _ratio(count: int, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
