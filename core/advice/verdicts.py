"""Comparisons and targets in words: a verdict if the data supports one, else figures and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..config.quantities import limit
from ..costs.break_even import SAME_MIB
from ..report.format import milliseconds, missing
from ..stats.intervals import VERDICT_ROUNDS

Part = Mapping[str, Any]
"""A part of a summary."""


def compared(summary: Part) -> Iterator[str]:
    """A sentence for each comparison of a trial with the first of the file."""
    trials = {trial["label"]: trial for trial in summary["trials"]}
    lacking = judged = 0
    for pair in summary["comparisons"]:
        one, other = trials[pair["trial"]], trials[pair["against"]]
        if pair["against"] != summary["trials"][0]["label"] or not pair["rounds"]:
            continue
        for name in pair["told"]:
            yield _sentence(name, pair["statistics"][name], one, other)
        if "idle_pss" not in pair["told"]:
            yield f"The memory of {one['label']} is unknown: this system has no /proc."
        lacking = max(lacking, VERDICT_ROUNDS - pair["rounds"])
        judged += sum(pair["statistics"][name]["verdict"] is not None for name in pair["told"])
    if lacking > 0:
        yield (
            f"These are measurements, not verdicts: a verdict needs {VERDICT_ROUNDS} rounds finished by both trials;"
            f" {missing(lacking)} (set repeats: {VERDICT_ROUNDS})."
        )
    if judged > 1:
        yield (
            f"In 95 of 100 runs all {judged} verdicts are true at once. They describe a typical server process of each"
            " strategy (the median over rounds)."
        )


def targets(summary: Part) -> Iterator[str]:
    """Whether each trial meets the targets of `slo`."""
    lacking = 0
    for trial in summary["trials"]:
        for target in trial["slo"]:
            if target["share_within"] is None:
                continue
            name = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}"
            start = f"{trial['label']} misses {name}" if target["verdict"] == "missed" else f"{trial['label']}, {name}"
            between = target["share_ci95"]
            within = f" (95 % interval {_share(between[0])} to {_share(between[1])})" if between else ""
            yield (
                f"{start}: {_share(target['share_within'])} of the requests are within it{within},"
                f" {_number(target['goodput_rps'])} such answers a second{_processes(target)}."
            )
            lacking = max(lacking, target["further_rounds"] or 0 if target["verdict"] is None else 0)
    if lacking:
        yield f"Judging a target needs {VERDICT_ROUNDS} rounds; {missing(lacking)}."


def _processes(target: Part) -> str:
    """What is known of the processes, which may differ: how many met the target, and what that says of others."""
    met, rounds, least = target["processes_met"], target["rounds"], target["processes_least"]
    if target["verdict"] == "met":
        return f". All {rounds} server processes met it, so at least {least:.0%} of all such processes do"
    if target["verdict"] != "not settled":
        return ""
    if met == rounds:
        further = target["further_rounds"]
        more = f"; about {further} more rounds without a miss would be" if further else ""
        return f". All {rounds} server processes met it, which is not yet proof{more}"
    return f". {met} of {rounds} server processes met it, so this is not settled; find out why the others did not"


def ending(summary: Part) -> Iterator[str]:
    """Why the run ended before its cap, or what `precision` still lacks."""
    if summary["stopped"]:
        yield f"The run ended before its {summary['rounds_planned']} rounds: {summary['stopped']['reason']}"
    elif summary["precision"]:
        wide = {label: width for label, width in (summary["widths"] or {}).items() if width > summary["precision"]}
        figures = ", ".join(f"{label} {width:.1%}" for label, width in wide.items())
        found = f" The widest intervals: {figures}." if wide else ""
        yield f"The precision of {summary['precision']:.1%} was not reached.{found} Raise 'repeats'."


def _sentence(name: str, found: Part, one: Part, other: Part) -> str:
    """The verdict on one statistic, with the figures of both and what bounds their ratio or difference."""
    ours, theirs, figures = one["label"], other["label"], _figures(name, one, other)
    amount, low, high = _amounts(name, found)
    if found["verdict"] is None:
        kind = "ratio" if "ratio" in found else "difference"
        return f"{ours} against {theirs}: {figures}, a {kind} of {amount} in {_rounds(found['rounds'])}."
    within = f"95 % interval {low} to {high}, {found['rounds']} rounds"
    if name == "idle_pss" and _is_same_memory(found, other):
        return f"{ours} holds the same memory as {theirs}, to within 1 MiB: {figures} ({within})."
    if found["verdict"] != "not separable":
        verb, has_amount = _verb(name, found["verdict"], one, other), "{}" in VERBS.get(name, ("", ""))[0]
        ratio = "" if has_amount else f"{'ratio' if 'ratio' in found else 'difference'} {amount}, "
        return f"{ours} {verb.format(amount)} {theirs}: {figures} ({ratio}{within})."
    kind = "ratio" if "ratio" in found else "difference"
    return f"{ours} and {theirs} are not separable: {figures} ({kind} {amount}, {within}). {_remedy(found)}"


VERBS = {  # of a statistic that is higher, and of one that is lower; {} is the ratio
    "p50": ("takes {} times as long as",) * 2,
    "mean": ("takes {} times as long on average as",) * 2,
    "p99": ("takes {} times as long as",) * 2,
    "throughput": ("answers {} times as many requests per second as",) * 2,
    "cold_share": ("has more cold requests than", "has fewer cold requests than"),
    "loads_per_request": ("loads more often than", "loads less often than"),
}


def _verb(name: str, verdict: str, one: Part, other: Part) -> str:
    if name != "idle_pss":
        return VERBS[name][verdict == "lower"]
    ours, theirs = (each["memory_mib"]["idle_pss"] for each in (one, other))
    return f"holds {abs(ours - theirs):.0f} MiB {'more' if verdict == 'higher' else 'less'} than"


def _is_same_memory(found: Part, other: Part) -> bool:
    """Whether the whole interval lies within a MiB."""
    return all(abs(bound - 1) * other["memory_mib"]["idle_pss"] < SAME_MIB for bound in found["ci95"])


def _figures(name: str, one: Part, other: Part) -> str:
    if name in ("p50", "mean", "p99"):
        return f"{name} {_latency(one, name)} against {_latency(other, name)}"
    if name == "throughput":
        return f"{_number(one['throughput_rps'])} against {_number(other['throughput_rps'])} requests/s"
    if name == "idle_pss":
        ours, theirs = (each["memory_mib"]["idle_pss"] for each in (one, other))
        return f"PSS between requests {ours:.0f} against {theirs:.0f} MiB"
    if name == "cold_share":
        return f"{one['cold']['share']:.1%} against {other['cold']['share']:.1%} of the requests"
    return f"{one['loads_per_request']:.3f} against {other['loads_per_request']:.3f} loads for each request"


def _amounts(name: str, found: Part) -> tuple[str, str, str]:
    """The ratio or the difference, and its bounds."""
    values = [found["ratio" if "ratio" in found else "difference"], *(found["ci95"] or (0.0, 0.0))]
    if "ratio" in found:
        first, low, high = map(_times, values)
    elif name == "cold_share":
        first, low, high = (f"{value * 100:+.1f} points" for value in values)
    else:
        first, low, high = (f"{value:+.3f}" for value in values)
    return first, low, high


def _remedy(found: Part) -> str:
    """What would decide it, if the rounds do not."""
    low, high = found["ci95"]
    middle = 1 if "ratio" in found else 0
    if not low <= middle <= high:
        return "Taken alone, the two would be separable; but among several verdicts one can look so by chance."
    if (further := found["further_rounds"]) is not None:
        return f"About {further} more rounds would decide it, if the true difference is as large as measured."
    bounds = f" (it is between {low - 1:+.1%} and {high - 1:+.1%})" if middle else ""
    unknown = "The number of further rounds needed is unknown"
    return f"{unknown}: the difference is too small relative to its noise{bounds}."


def _latency(trial: Part, name: str) -> str:
    """The latency of all steady requests, with the share of cold ones if both kinds occurred."""
    value, share = trial["latency_ms"][name], trial["cold"]["share"]
    return milliseconds(value) + (f" ({share:.0%} cold)" if share and 0 < share < 1 else "")


def _times(ratio: float) -> str:
    """Three digits; more if the ratio is close to 1."""
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.3f}" if 0.9 < ratio < 1.1 else f"{ratio:.2f}"


def _share(value: float) -> str:
    return f"{value:.2%}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _rounds(count: int) -> str:
    return f"{count} round{'s' if count > 1 else ''}"
