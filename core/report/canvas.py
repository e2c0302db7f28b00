"""A figure of the report: drawn by matplotlib as SVG, in the page's own colours, and described in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from warnings import catch_warnings, filterwarnings

from .format import number

if TYPE_CHECKING:  # drawing is imported when something is drawn: whoever only measures must not pay for it
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

WIDTH = 3.4  # inches: a column of the page, which is also a phone's width
SIDE = 0.12  # inches left free at the right and, beside tick labels, at the left
NAMES = ("text", "muted", "line", "warm", "cold", "memory", "error", *(f"s{i}" for i in range(8)))
# Each stands for a variable of the page's style sheet, so that light, dark and print have colours of their own.
COLOURS = {name: f"#0102{number:02x}" for number, name in enumerate(NAMES)}


def _style() -> dict[RcKeyType, str | float]:
    """matplotlib's settings, in the page's colours."""
    return {
        "svg.fonttype": "none",  # text stays text, in the reader's font
        "text.parse_math": False,  # a label may hold a dollar sign
        "path.simplify": False,
        "font.size": 8.5,
        "text.color": COLOURS["text"],
        "axes.labelcolor": COLOURS["muted"],
        "axes.edgecolor": COLOURS["muted"],
        "axes.facecolor": "none",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 8.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": COLOURS["muted"],
        "axes.titlepad": 4,
        "axes.unicode_minus": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.5,
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.minor.visible": False,
        "ytick.minor.visible": False,
    }


PRINTED = {  # the light colours of the page, for a file of its own
    "text": "#1b1f24", "muted": "#57606a", "line": "#e2e5e9", "warm": "#b45309", "cold": "#1d5fc4",
    "memory": "#1a7f4b", "error": "#b3261e", "s0": "#1d5fc4", "s1": "#b45309", "s2": "#0f766e", "s3": "#7e3fbf",
    "s4": "#b3264a", "s5": "#4d6f0d", "s6": "#475569", "s7": "#a21c80",
}  # fmt: skip


class Drawing(NamedTuple):
    """A figure: its name, unique in the page; title and words in plain text; its height in inches; what draws it."""

    name: str
    title: str
    words: str
    height: float
    draw: Callable[[Figure], None]

    @property
    def svg(self) -> str:
        """Markup for the page, in the colours of its style sheet; repeatable."""
        written = StringIO()
        with _figure(self) as figure:
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(written, format="svg", transparent=True, metadata=nothing)
        return _for_the_page(written.getvalue(), self.name, self.title, self.words)

    def save(self, path: Path) -> None:
        """Write it to a file of its own, SVG or PDF by the suffix."""
        page = dict(COLOURS)
        COLOURS.update(PRINTED)
        try:
            with _figure(self) as figure:
                for part in figure.axes:
                    if part.get_legend_handles_labels()[0]:
                        part.legend(fontsize=7, frameon=False)
                figure.savefig(path, bbox_inches="tight", metadata={"Title": self.title})
        finally:
            COLOURS.update(page)


@contextmanager
def _figure(drawing: Drawing) -> Iterator[Figure]:
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.figure import Figure

    with rc_context(), catch_warnings():
        filterwarnings("ignore", "Glyph")  # it is the reader's font that must have it
        rcdefaults()  # not what the user has made of them
        rcParams.update(_style() | {"svg.hashsalt": drawing.name})
        figure = Figure(figsize=(WIDTH, drawing.height))
        drawing.draw(figure)
        yield figure


def axes(figure: Figure, top: float, height: float, *, left: float = SIDE, right: float = SIDE) -> Axes:
    """Axes of that height; `top`, `left` and `right` are what is free around them. All in inches."""
    width, total = figure.get_size_inches()
    box = (left / width, 1 - (top + height) / total, (width - left - right) / width, height / total)
    return figure.add_axes(box)


def shortened(label: str, most: int = 26) -> str:
    """As much of a label as there is room for; the words have all of it."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def log_ticks(axis: Axis, low: float, high: float, *, crowded: float) -> None:
    """1, 2, 5, 10 … in place of powers of ten; 1, 10, 100 … where the range is as wide as `crowded`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    steps = (1.0, 2.0, 5.0) if high / low < crowded else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=8) if high / low > 4 else MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_locator(NullLocator())


def _for_the_page(svg: str, name: str, title: str, words: str) -> str:
    """Without what only a file of its own needs; names are unique in the page, colours are variables."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'( id="|="#|url\(#)', rf"\1{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    [view] = re.findall(r'^<svg[^>]* (viewBox="[^"]*")', svg)
    head = (
        f'<svg {view} role="img"'
        f' aria-labelledby="{name}-title {name}-words"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(words)}</desc>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
