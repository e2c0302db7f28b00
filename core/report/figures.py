"""The figures of a run: distributions of latency, where a load's time goes, cost against rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..costs.prices import HOUR
from ..results.economics import Economics, TrialCosts
from ..results.summary import Summary
from .canvas import COLOURS, Drawing, axes, log_ticks, shortened
from .format import number
from .waterfall import cold_starts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..stats.rounds import Run

Latencies = dict[str, dict[str, list[float]]]
BINS = 60
ROW = 0.5  # inches for a trial's distribution
LINE = 0.17  # … for a line of text
Dash = str | tuple[float, Sequence[float]]
DASHES: Sequence[Dash] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # as in the style sheet
RATES = (1.0, 1e5)  # requests an hour, where nothing says what matters


def latencies(run: Run) -> Latencies:
    """Milliseconds of the answered steady requests, of all rounds: by trial, `warm` and `cold`."""
    return {
        label: {
            kind: [sample.ms for each in run.finished(label) for sample in each.answered if sample.cold is cold]
            for kind, cold in (("warm", False), ("cold", True))
        }
        for label in run.labels
    }


def distributions(measured: Latencies) -> Drawing | None:
    """A row for each trial, on one logarithmic scale; a row's highest bin is as high as the row."""
    everything = np.array([ms for kinds in measured.values() for part in kinds.values() for ms in part if ms > 0])
    if not everything.size:
        return None
    edges = np.geomspace(everything.min() / 1.1, everything.max() * 1.1, BINS + 1)

    def draw(figure: Figure) -> None:
        ax = axes(figure, 0.05, ROW * len(measured))
        for row, (label, kinds) in enumerate(measured.items()):
            _row(ax, len(measured) - 1 - row, label, kinds, edges)
        ax.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, len(measured)), xlabel="latency (ms)", yticks=[])
        ax.spines["left"].set_visible(False)
        log_ticks(ax.xaxis, edges[0], edges[-1], crowded=200)

    words = " ".join(f"{label}: {_in_words(kinds)}." for label, kinds in measured.items())
    return Drawing("latency", "Latencies, warm and cold", words, ROW * len(measured) + 0.5, draw)


def _row(ax: Axes, base: int, label: str, kinds: Mapping[str, Sequence[float]], edges: np.ndarray) -> None:
    counts = {kind: np.histogram(values, edges)[0] for kind, values in kinds.items() if values}
    highest = max((int(count.max()) for count in counts.values()), default=0) or 1
    for kind, count in counts.items():
        heights = base + 0.62 * count / highest
        ax.stairs(heights, edges, baseline=base, fill=True, color=COLOURS[kind], alpha=0.85 if kind == "warm" else 0.4)
        if kind == "cold":  # an outline distinguishes it without a colour, too
            ax.stairs(heights, edges, baseline=base, color=COLOURS[kind], linewidth=0.8)
    ax.axhline(base, color=COLOURS["muted"], linewidth=0.6)
    medians = ", ".join(f"{kind} {number(float(np.median(values)))}" for kind, values in kinds.items() if values)
    inside = ax.get_yaxis_transform()
    ax.text(0, base + 0.72, shortened(label), transform=inside)
    ax.text(1, base + 0.72, medians or "no answer", transform=inside, ha="right", color=COLOURS["muted"])


def _in_words(kinds: Mapping[str, Sequence[float]]) -> str:
    def part(kind: str, values: Sequence[float]) -> str:
        if not values:
            return f"no {kind} requests"
        low, middle, high = (number(float(ms)) for ms in np.quantile(values, (0, 0.5, 1)))
        return f"{len(values)} {kind} requests, median {middle} ms, {low} to {high}"

    return "; ".join(part(kind, values) for kind, values in kinds.items())


def load_waterfall(summary: Summary) -> Drawing | None:
    """For each trial its phases one after the other, on a common scale."""
    starts = cold_starts(summary)
    if not starts:
        return None
    lines = sum(len(start.phases) + 1.6 for start in starts)
    longest = max(sum(ms for _, ms in start.phases) for start in starts)

    def draw(figure: Figure) -> None:
        ax = axes(figure, 0.05, LINE * lines, left=1.05, right=0.62)
        ax.set(xlim=(0, longest), ylim=(lines, 0), yticks=[], xlabel="ms")
        ax.spines["left"].set_visible(False)
        beside, top = ax.get_yaxis_transform(), 0.5
        for start in starts:
            ax.text(-0.6, top, shortened(start.label), transform=beside, va="center")
            ax.text(1.36, top, f"{number(start.answer_ms)} ms", transform=beside, va="center", ha="right")
            begin = 0.0
            for line, (name, ms) in enumerate(start.phases, start=1):
                for at, text in ((-0.04, name), (1.36, f"{ms:.1f}")):
                    ax.text(at, top + line, text, transform=beside, va="center", ha="right", color=COLOURS["muted"])
                colour = COLOURS["warm" if name == "first forward" else "cold" if _loads(name) else "muted"]
                ax.barh(top + line, ms, left=begin, height=0.7, color=colour, linewidth=0)
                begin += ms
            top += len(start.phases) + 1.6

    words = (
        f"{start.label}, {start.answer_ms:.1f} ms: {', '.join(f'{name} {ms:.1f}' for name, ms in start.phases)}."
        for start in starts
    )
    return Drawing("waterfall", "Where the time of a cold start goes", " ".join(words), LINE * lines + 0.5, draw)


def _loads(phase: str) -> bool:
    return phase not in ("queue", "first forward", "HTTP and rest")


def cost_curves(economics: Economics, flips_of_card: Sequence[float]) -> Drawing | None:
    """Money per hour, a + b λ, of each trial up to its capacity, with the rates at which the cheaper one changes."""
    trials = lines(economics)
    if not trials:
        return None
    flips = sorted({pair.rate_per_hour for pair in economics.break_even if pair.rate_per_hour})
    low, high = (flips[0] / 30, flips[-1] * 10) if flips else RATES
    rates = np.geomspace(low, high, 80)

    def draw(figure: Figure) -> None:
        ax = axes(figure, 0.4, 1.9, left=0.62, right=0.25)
        for place, trial in enumerate(trials):
            most = (trial.capacity_rps or np.inf) * HOUR
            served = np.append(rates[rates < most], min(most, high))
            [line] = ax.plot(served, trial.holding_per_hour + trial.per_request * served, linewidth=1.6)
            line.set(color=COLOURS[f"s{place % 8}"], linestyle=DASHES[place % 4])
            line.set_label(trial.label)  # the page has a legend of its own
        shown: list[float] = []
        for rate in sorted(flips, key=lambda rate: not any(math.isclose(rate, flip) for flip in flips_of_card)):
            ax.axvline(rate, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
            # Else the figures would lie on each other; the table has all.
            if all(max(rate / other, other / rate) > (high / low) ** 0.12 for other in shown):
                ax.text(rate, 1.02, number(rate), transform=ax.get_xaxis_transform(), ha="center", fontsize=8)
                shown.append(rate)
        ax.set(xscale="log", xlim=(low, high), xlabel="requests an hour")
        ax.text(0, 1.12, "cost an hour", transform=ax.transAxes, color=COLOURS["muted"])
        log_ticks(ax.xaxis, low, high, crowded=200)
        least, most = ax.get_ylim()
        if least > 0 and most / least > 30:
            ax.set_yscale("log")
            log_ticks(ax.yaxis, least, most, crowded=50)

    return Drawing("cost", "Cost against request rate", " ".join(_cost_in_words(trials, economics)), 2.8, draw)


def lines(economics: Economics) -> list[TrialCosts]:
    """The trials whose cost at other rates is known."""
    return [trial for trial in economics.trials if trial.is_line]


def _cost_in_words(trials: Sequence[TrialCosts], economics: Economics) -> Iterator[str]:
    for trial in trials:
        yield f"{trial.label}: {number(trial.holding_per_hour)} an hour and {number(trial.per_request)} per request."
    for pair in economics.break_even:
        if pair.rate_per_hour:
            yield (
                f"At {number(pair.rate_per_hour)} requests an hour {pair.trial} and {pair.against} cost the same;"
                f" below, {pair.cheaper_below} is cheaper, above, {pair.cheaper_above}."
            )
