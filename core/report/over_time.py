"""One round of each trial over time: memory with loads and unloads, and requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..results.records import OK, MemoryOverTime, ModelEvent, Sample
from .canvas import COLOURS, Drawing, axes, log_ticks
from .format import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..stats.rounds import Round, Run

MOST = 300  # requests of a kind that are drawn; more would be one blot
MARKED = 400  # loads and unloads, for the same reason
EMPTY = MemoryOverTime(at=[], rss_mib=[])
MARKS = {"load": ("^", "cold", 0.17), "unload": ("v", "warm", 0.06)}  # shape, colour, height above the axis


class Dot(NamedTuple):
    """A request: when it was due, in seconds since the steady state began, and its latency."""

    at: float
    ms: float


class Part(NamedTuple):
    """What is drawn of a trial: one of its rounds."""

    label: str
    round: Round
    requests: dict[str, list[Dot]]
    """By kind: warm, cold, failed."""

    @property
    def memory(self) -> MemoryOverTime:
        return self.round.ended.timeline or EMPTY

    @property
    def events(self) -> Sequence[ModelEvent]:
        """The latest ones, as many as can be told apart."""
        return (self.round.ended.events or [])[-MARKED:]

    @property
    def drawable(self) -> bool:
        """Results of an older version have no times."""
        return any(self.requests.values()) or bool(self.memory.at)


def parts_over_time(run: Run) -> list[Part]:
    """Of each trial the first round that all of them finished; without one the first of its own."""
    together = run.complete()[:1]
    found = []
    for label in run.labels:
        for each in [each for each in run.finished(label) if [each.number] == together or not together][:1]:
            requests: dict[str, list[Dot]] = {"warm": [], "cold": [], "failed": []}
            for sample in each.steady:
                if sample.at is not None:
                    requests[_kind(sample)].append(Dot(sample.at, sample.ms))
            found.append(Part(label, each, requests))
    return [part for part in found if part.drawable]


def _kind(sample: Sample) -> str:
    return "failed" if sample.status != OK else "cold" if sample.cold else "warm"


def over_time(parts: Sequence[Part]) -> list[Drawing]:
    """One drawing for each trial, their scales alike but for the time."""
    mib = [value for part in parts for value in part.memory.rss_mib]
    ms = [dot.ms for part in parts for kind in part.requests.values() for dot in kind if dot.ms > 0]
    memory, latency = _range(mib, 0.15), (min(ms) / 1.3, max(ms) * 1.3) if ms else None
    return [_drawing(number, part, memory, latency) for number, part in enumerate(parts)]


def _range(values: Sequence[float], margin: float) -> tuple[float, float] | None:
    """With room below for the marks of loads and unloads."""
    if not values:
        return None
    low, high = min(values), max(values)
    span = max(high - low, 0.05 * high)
    return max(0.0, low - 2.5 * margin * span), high + margin * span


def _drawing(
    number: int, part: Part, memory: tuple[float, float] | None, latency: tuple[float, float] | None
) -> Drawing:
    times = [dot.at for kind in part.requests.values() for dot in kind] + part.memory.at
    end = max([*times, 0.0]) or 1.0
    span = (-0.02 * end, 1.02 * end)

    def draw(figure: Figure) -> None:
        top = axes(figure, 0.22, 0.95, left=0.5)
        top.set(title="memory (MiB)", xlim=span, xticklabels=[])
        if memory:
            top.set_ylim(memory)
        top.plot(part.memory.at, part.memory.rss_mib, color=COLOURS["memory"], linewidth=1.3)
        if not part.memory.at:
            _say(top, "not known")
        for event, (shape, colour, height) in MARKS.items():
            at = [each.at for each in part.events if each.event == event]
            [marks] = top.plot(at, [height] * len(at), marker=shape, color=COLOURS[colour], markersize=4)
            marks.set(transform=top.get_xaxis_transform(), linestyle="none", clip_on=False)
        below = axes(figure, 1.45, 0.95, left=0.5)
        below.set(title="latency of requests (ms)", xlim=span, xlabel="seconds", yscale="log")
        if latency:
            below.set_ylim(latency)
            log_ticks(below.yaxis, *latency, crowded=50)
        for kind, dots in part.requests.items():
            _dots(below, dots, COLOURS["error" if kind == "failed" else kind])
        if not any(part.requests.values()):
            _say(below, "no times in these results")

    return Drawing(f"time-{number}", part.label, " ".join(_in_words(part)), 2.85, draw)


def _say(ax: Axes, what: str) -> None:
    ax.text(0.5, 0.5, what, transform=ax.transAxes, ha="center", color=COLOURS["muted"])


def _dots(ax: Axes, dots: Sequence[Dot], colour: str) -> None:
    """As one path of short strokes with round ends, which a page holds more easily than a mark for each."""
    shown = thinned(dots)
    if not shown:
        return
    at, ms = np.array(shown, float).T
    stroke = ax.get_xlim()[1] * 1e-4
    x = np.column_stack([at - stroke, at + stroke, np.full(len(at), np.nan)]).ravel()
    y = np.column_stack([ms, ms, np.full(len(ms), np.nan)]).ravel()
    ax.plot(x, y, color=colour, linewidth=2.6, solid_capstyle="round")


def thinned(samples: Sequence[Dot]) -> Sequence[Dot]:
    """At most `MOST`, as far apart as they were."""
    return samples[:: -(-len(samples) // MOST)] if samples else samples


def _in_words(part: Part) -> Iterator[str]:
    ended = part.round.ended
    yield f"{part.label}, round {part.round.number + 1}, {number(ended.steady_s)} s."
    for kind, dots in part.requests.items():
        if dots:
            ms = [dot.ms for dot in dots]
            yield f"{len(dots)} {kind} request{'s' * (len(dots) > 1)}, {number(min(ms))} to {number(max(ms))} ms."
            if len(dots) > MOST:
                yield f"{len(thinned(dots))} of them are drawn."
    if rss := part.memory.rss_mib:
        average = f", {number(ended.mean_rss)} on average" if ended.mean_rss is not None else ""
        yield f"Memory {number(min(rss))} to {number(max(rss))} MiB{average}."
    counts = {event: sum(each.event == event for each in part.events) for event in MARKS}
    if any(counts.values()):
        loads, unloads = counts.values()
        yield f"The latest {loads} loads and {unloads} unloads are marked;"
        yield f"since its start there were {ended.loads} and {ended.unloads}."
    elif ended.events is not None:
        yield "Nothing was loaded or unloaded meanwhile."
