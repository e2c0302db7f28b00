"""Comparisons and targets in words: a verdict where the data supports one, else figures and what is lacking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..quantities import limit
from .intervals import MOST_FURTHER, VERDICT_ROUNDS

Record = Mapping[str, Any]


def compared(summary: Record) -> Iterator[str]:
    """Every trial against the first of the file."""
    trials = {trial["label"]: trial for trial in summary["trials"]}
    closed = (summary["workload"] or {}).get("closed") or {}
    lacking = 0
    for pair in summary["comparisons"]:
        one, other = trials[pair["trial"]], trials[pair["against"]]
        if pair["against"] != summary["trials"][0]["label"] or not pair["rounds"]:
            continue
        statistics = {name: found for name, found in pair["statistics"].items() if found["ratio"] is not None}
        yield from _latencies(statistics, one, other)
        if "throughput" in statistics and closed.get("clients", 1) > 1:  # one client's is its latency over again
            yield _throughput(statistics["throughput"], one, other)
        if "idle_pss" in statistics:
            yield _memory(statistics["idle_pss"], one, other)
        else:
            yield f"What memory {one['label']} saves or costs is not known: this system has no /proc."
        lacking = max(lacking, VERDICT_ROUNDS - pair["rounds"])
    if lacking > 0:
        yield (
            f"These are figures, no verdict: that takes {VERDICT_ROUNDS} rounds that both trials finished,"
            f" {lacking} more than there are (repeats: {VERDICT_ROUNDS})."
        )


def targets(summary: Record) -> Iterator[str]:
    """Whether each trial meets what `slo` asks for."""
    lacking = 0
    for trial in summary["trials"]:
        for target in trial["slo"]:
            if target["share_within"] is None:
                continue
            name = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}"
            said = {"met": "meets", "missed": "misses"}.get(target["verdict"])
            start = f"{trial['label']} {said} {name}" if said else f"{trial['label']}, {name}"
            doubt = "; whether that meets it is not separable" if target["verdict"] == "not separable" else ""
            between = target["share_ci95"]
            within = f" (95 % interval {_share(between[0])} to {_share(between[1])})" if between else ""
            yield (
                f"{start}: {_share(target['share_within'])} of the requests are within it{within},"
                f" {_number(target['goodput_rps'])} each second{doubt}."
            )
            lacking = max(lacking, target["further_rounds"] or 0)
    if lacking:
        yield f"Whether a target is met takes {VERDICT_ROUNDS} rounds, {lacking} more than there are."


def ending(summary: Record) -> Iterator[str]:
    """Why the run ended before its cap, or what `precision` still lacks."""
    if summary["stopped"]:
        yield f"The run ended before its {summary['rounds_planned']} rounds: {summary['stopped']['reason']}"
    elif summary["precision"]:
        wide = {label: width for label, width in (summary["widths"] or {}).items() if width > summary["precision"]}
        figures = ", ".join(f"{label} {width:.1%}" for label, width in wide.items())
        found = f" The widest intervals: {figures}." if wide else ""
        yield f"The precision of {summary['precision']:.1%} was not reached.{found} Raise 'repeats'."


def _latencies(statistics: Record, one: Record, other: Record) -> Iterator[str]:
    for name in ("p50" if "p50" in statistics else "mean", "p99"):
        if name in statistics:
            figures = f"{name} {_latency(one, name)} against {_latency(other, name)}"
            yield _sentence(
                statistics[name], one, other, figures, "takes {} times as long as", "takes {} of the time of"
            )


def _throughput(found: Record, one: Record, other: Record) -> str:
    figures = f"{_number(one['throughput_rps'])} against {_number(other['throughput_rps'])} requests/s"
    verb = "answers {} times as many requests per second as"
    return _sentence(found, one, other, figures, verb, verb)


def _memory(found: Record, one: Record, other: Record) -> str:
    ours, theirs = one["memory_mib"]["idle_pss"], other["memory_mib"]["idle_pss"]
    figures = f"PSS between requests {ours:.0f} against {theirs:.0f} MiB"
    if found["verdict"] in ("higher", "lower"):
        if abs(ours - theirs) < 1:
            return f"{one['label']} and {other['label']} hold the same memory: {figures}."
        more = "more" if ours > theirs else "less"
        verb = f"holds {abs(ours - theirs):.0f} MiB {more} than"
        return _sentence(found, one, other, figures, verb, verb)
    return _sentence(found, one, other, figures, "", "")


def _sentence(found: Record, one: Record, other: Record, figures: str, higher: str, lower: str) -> str:
    """The verdict on one statistic; `higher` and `lower` are verbs with a place for the ratio."""
    ours, theirs, times = one["label"], other["label"], _times(found["ratio"])
    if found["verdict"] is None:
        return f"{ours} against {theirs}: {figures}, a ratio of {times} in {_rounds(found['rounds'])}."
    low, high = found["ci95"]
    within = f"95 % interval {_times(low)} to {_times(high)}, {found['rounds']} rounds"
    if found["verdict"] != "not separable":
        verb = higher if found["verdict"] == "higher" else lower
        ratio = "" if "{}" in verb else f"ratio {times}, "
        return f"{ours} {verb.format(times)} {theirs}: {figures} ({ratio}{within})."
    if found["further_rounds"] is None:
        remedy = (
            f"Over {MOST_FURTHER} more would be needed; the interval bounds the difference to {low - 1:+.1%} to"
            f" {high - 1:+.1%}."
        )
    else:
        remedy = f"About {found['further_rounds']} more would probably separate a difference of this size."
    return f"{ours} and {theirs} are not separable: {figures} (ratio {times}, {within}). {remedy}"


def _latency(trial: Record, name: str) -> str:
    """Of all steady requests; a mixture of cold and warm ones with its share."""
    value, share = trial["latency_ms"][name], trial["cold"]["share"]
    return milliseconds(value) + (f" ({share:.0%} cold)" if share and 0 < share < 1 else "")


def milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 20 else f"{value:.1f} ms"


def _times(ratio: float) -> str:
    """Three digits where they tell; more where the ratio is close to 1."""
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.3f}" if 0.9 < ratio < 1.1 else f"{ratio:.2f}"


def _share(value: float) -> str:
    return f"{value:.2%}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _rounds(count: int) -> str:
    return f"{count} round{'s' if count > 1 else ''}"
