"""Where the time of a request that waits for a load goes, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..results.summary import Summary

WIDTH = 48  # characters for the slowest answer


class Phase(NamedTuple):
    """A part of a cold start."""

    name: str
    ms: float


class ColdStart(NamedTuple):
    """Where the time of a trial's requests goes that wait for a load."""

    label: str
    answer_ms: float
    """The median of the whole answer."""
    phases: list[Phase]
    """Medians, in the order of time."""


def waterfall(summary: Summary) -> str:
    """One block for each trial that had cold requests: its phases one after the other, on a common scale."""
    found = cold_starts(summary)
    if not found:
        return "No request of the steady state waited for a load."
    slowest = max(start.answer_ms for start in found)
    return "\n\n".join("\n".join(_block(start, WIDTH / slowest)) for start in found)


def _block(start: ColdStart, scale: float) -> Iterator[str]:
    yield f"{start.label}: median of the requests that waited for a load, {start.answer_ms:.1f} ms"
    begin = 0.0
    for name, ms in start.phases:
        bar = "█" * max(1, round(ms * scale)) if ms >= 0.05 else ""
        yield f"  {name:<14} {ms:>7.1f} ms  {' ' * round(begin * scale)}{bar}"
        begin += ms


def cold_starts(summary: Summary) -> list[ColdStart]:
    """Of each trial that had cold requests."""
    found = ((trial.label, trial.cold.phases_ms) for trial in summary.trials)
    return [ColdStart(label, answer, list(_phases(ms, answer))) for label, ms in found if (answer := ms.get("answer"))]


def _phases(medians: Mapping[str, float | None], answer: float) -> Iterator[Phase]:
    """In the order of time. Medians of parts need not add up to the median of the whole."""
    known = {name: ms for name, ms in medians.items() if ms is not None}
    parts = {name.removeprefix("load-"): ms for name, ms in known.items() if name.startswith("load-")}
    queue, load, forward = (known.get(name, 0.0) for name in ("queue", "load", "inference"))
    yield Phase("queue", queue)
    yield from (Phase(name, ms) for name, ms in parts.items())
    yield Phase("rest of load", max(0.0, load - sum(parts.values())))
    yield Phase("first forward", forward)
    yield Phase("HTTP and rest", max(0.0, answer - queue - load - forward))
