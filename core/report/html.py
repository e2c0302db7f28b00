"""`report.html`: one file that opens without a network and can be read without a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..results.card import Card
from ..results.environment import Environment
from ..results.summary import Summary
from .figures import cost_curves, distributions, latencies, lines, load_waterfall
from .nodes import node_sheet
from .over_time import over_time, parts_over_time
from .prose.card import CardText
from .sheets import (
    break_even_sheet,
    environment_sheet,
    first_sheet,
    latency_data,
    main_sheet,
    price_sheet,
    prices_in_words,
    time_data,
    waterfall_data,
)

if TYPE_CHECKING:
    from ..stats.rounds import Run

PAGE = Path(__file__).with_name("page")


class Said(NamedTuple):
    """The sentences of a run, as the terminal shows them."""

    answer: Sequence[str]
    """What was measured."""
    warnings: Sequence[str]
    """What casts doubt on it."""
    card: CardText
    """What to use."""
    footnotes: Sequence[str]
    """Of the table with all columns."""


def report(summary: Summary, run: Run, said: Said, environment: Environment | None) -> str:
    """The page of a run. What the run does not have is left out, or said to be missing.

    `environment` is None where its file was lost. Everything that comes from the run is escaped.
    """
    from jinja2 import Environment as Templates  # for the escaping; PyTorch brings it anyway
    from jinja2 import FileSystemLoader, StrictUndefined

    measured, parts = latencies(run), parts_over_time(run)
    economics, waterfall = summary.economics, load_waterfall(summary)
    template = Templates(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    return template.render(
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        summary=summary,
        labels=run.labels,
        said=said,
        first=first_sheet(summary),
        table=main_sheet(summary),
        nodes=node_sheet(summary),
        latency=distributions(measured),
        latency_data=latency_data(measured),
        waterfall=waterfall,
        waterfall_data=waterfall_data(summary),
        cost=cost_curves(economics, rates(summary.card)) if economics else None,
        cost_labels=[trial.label for trial in lines(economics)] if economics else [],
        price_sheets=[price_sheet(economics), break_even_sheet(economics)] if economics else [],
        prices=prices_in_words(economics.prices) if economics else "",
        times=over_time(parts),
        time_data=time_data(parts),
        environment=environment_sheet(environment) if environment else None,
    )


def rates(card: Card) -> list[float]:
    """The rates at which its answer changes."""
    return [flip.at for flip in card.flips if flip.what == "rate"]
