"""The comparison as two figures: each policy against the one that it replaces, and in more detail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from core.report.canvas import COLOURS, Drawing, axes, shortened
from experiments.policies.compare import AUTO, BEST, CLAIRVOYANT, LEARNED, LRU, RULES, Ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.2  # inches for a traffic
ABOVE, BELOW, LEFT = 0.42, 0.42, 1.28
MARKS = ("o", "s", "^")  # they distinguish the series without a colour, too
SERIES = ("s0", "s1", "s2")
LOADS = {"A": "fast loads", "B": "from a disk", "C": "slow loads"}


class Dot(NamedTuple):
    """A ratio in the row of a traffic."""

    traffic: str
    series: int
    ratio: float
    is_hollow: bool = False


class Panel(NamedTuple):
    """Rows of dots; 1 is a line."""

    title: str
    names: Sequence[str]
    """Of the series."""
    dots: Sequence[Dot]
    axis: str

    @property
    def traffic(self) -> list[str]:
        """From the top."""
        return list(dict.fromkeys(dot.traffic for dot in self.dots))

    @property
    def height(self) -> float:
        return ABOVE + ROW * len(self.traffic) + BELOW

    @property
    def words(self) -> str:
        """What it shows, in words."""
        rows = (
            f"{name} {', '.join(f'{dot.ratio:.2f}' for dot in self.dots if dot.traffic == name)}"
            for name in self.traffic
        )
        return f"{self.title}. {'; '.join(rows)}."


def figures(found: Sequence[Ratios]) -> tuple[Drawing, Drawing]:
    """Each policy against `auto` and LRU; and, in more detail, against the best in hindsight and the other rules."""
    timeouts = [each for each in found if AUTO in each.cells]
    evictions = [each for each in found if LRU in each.cells]
    short = (
        Panel(
            "ttl: learned, all memory paid for",
            _costs(timeouts),
            list(_against_auto(timeouts)),
            "cost divided by auto's",
        ),
        Panel(
            "cached, within a budget",
            _budgets(evictions),
            list(_against_lru(evictions)),
            "cost of loads divided by LRU's",
        ),
    )
    long = (
        Panel(
            "auto (hollow) and learned",
            _costs(timeouts),
            list(_against_the_best(timeouts)),
            "cost divided by the least possible",
        ),
        Panel("best, and two of its rules alone", RULES, list(_rules(evictions)), "cost of loads divided by LRU's"),
    )
    return _drawing("policies", "What the policies cost", short), _drawing(
        "policies-details", "Where it comes from", long
    )


def _costs(found: Sequence[Ratios]) -> list[str]:
    """Their names, and what a load is like under them."""
    return [f"{name}: {LOADS.get(name, 'loads')}" for name in dict.fromkeys(each.costs for each in found)]


def _budgets(found: Sequence[Ratios]) -> list[str]:
    return [f"{budget:.0%} fit" for budget in dict.fromkeys(each.budget for each in found)]


def _place(found: Sequence[Ratios], each: Ratios) -> int:
    """Of its costs or its budget among all of these."""
    return list(dict.fromkeys((other.costs, other.budget) for other in found)).index((each.costs, each.budget))


def _against_auto(found: Sequence[Ratios]) -> Iterator[Dot]:
    for each in found:
        yield Dot(each.traffic, _place(found, each), each.of(LEARNED, AUTO))


def _against_lru(found: Sequence[Ratios]) -> Iterator[Dot]:
    for each in found:
        yield Dot(each.traffic, _place(found, each), each.of(BEST, LRU))


def _against_the_best(found: Sequence[Ratios]) -> Iterator[Dot]:
    for each in found:
        for policy in (AUTO, LEARNED):
            ratio = each.of(policy, CLAIRVOYANT)
            yield Dot(each.traffic, _place(found, each), ratio, is_hollow=policy == AUTO)


def _rules(found: Sequence[Ratios]) -> Iterator[Dot]:
    for each in found:
        for series, rule in enumerate(RULES):
            yield Dot(each.traffic, series, each.of(rule, LRU))


def _drawing(name: str, title: str, panels: Sequence[Panel]) -> Drawing:
    panels = [panel for panel in panels if panel.dots]

    def draw(figure: Figure) -> None:
        top = 0.0
        for panel in panels:
            _draw(axes(figure, top + ABOVE, ROW * len(panel.traffic), left=LEFT), panel)
            top += panel.height

    return Drawing(name, title, " ".join(panel.words for panel in panels), sum(panel.height for panel in panels), draw)


def _draw(ax: Axes, panel: Panel) -> None:
    rows = {name: row for row, name in enumerate(panel.traffic)}
    shift = 0.5 / max(1, len(panel.names))  # dots of one row do not hide each other
    for dot in panel.dots:
        colour = COLOURS[SERIES[dot.series % 3]]
        height = rows[dot.traffic] + shift * (dot.series - (len(panel.names) - 1) / 2)
        face = "none" if dot.is_hollow else colour
        ax.plot(dot.ratio, height, MARKS[dot.series % 3], markersize=4, color=colour, markerfacecolor=face)
    ax.axvline(1, color=COLOURS["text"], linewidth=1)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=panel.axis)
    ax.set_yticks(range(len(rows)), [shortened(name, 20) for name in rows])
    ax.tick_params(length=0)
    ax.text(-0.58, 1 + 0.27 / (ROW * len(rows)), panel.title, transform=ax.transAxes)
    for series, name in enumerate(panel.names):
        place = (0.53 * series - 0.58, 1 + 0.08 / (ROW * len(rows)))
        mark = {"o": "●", "s": "■", "^": "▲"}[MARKS[series % 3]]
        ax.text(*place, f"{mark} {name}", transform=ax.transAxes, color=COLOURS[SERIES[series % 3]], fontsize=8)
