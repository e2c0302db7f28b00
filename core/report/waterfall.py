"""Where the time of a request that waits for a load goes, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 48  # characters for the slowest answer


def waterfall(summary: Mapping[str, Any]) -> str:
    """One block for each trial that had cold requests: its phases one after the other, on a common scale."""
    trials = [trial for trial in summary["trials"] if trial["cold"]["phases_ms"].get("answer")]
    slowest = max((trial["cold"]["phases_ms"]["answer"] for trial in trials), default=0.0)
    if not trials:
        return "No request of the steady state waited for a load."
    return "\n\n".join("\n".join(_block(trial, WIDTH / slowest)) for trial in trials)


def _block(trial: Mapping[str, Any], scale: float) -> Iterator[str]:
    medians: dict[str, float] = dict(trial["cold"]["phases_ms"])
    answer = medians["answer"]
    yield f"{trial['label']}: median of the requests that waited for a load, {answer:.1f} ms"
    begin = 0.0
    for name, ms in parts(medians, answer):
        bar = "█" * max(1, round(ms * scale)) if ms >= 0.05 else ""
        yield f"  {name:<14} {ms:>7.1f} ms  {' ' * round(begin * scale)}{bar}"
        begin += ms


def parts(medians: Mapping[str, float], answer: float) -> Iterator[tuple[str, float]]:
    """(name, ms) in the order of time. Medians of parts need not add up to the median of the whole."""
    phases = {name.removeprefix("load-"): ms for name, ms in medians.items() if name.startswith("load-")}
    load = medians.get("load", 0.0)
    yield "queue", medians.get("queue", 0.0)
    yield from phases.items()
    yield "rest of load", max(0.0, load - sum(phases.values()))
    yield "first forward", medians.get("inference", 0.0)
    yield "HTTP and rest", max(0.0, answer - medians.get("queue", 0.0) - load - medians.get("inference", 0.0))
