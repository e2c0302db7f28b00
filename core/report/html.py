"""`report.html`: one file that opens without a network and can be read without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import (
    cost_curves,
    distributions,
    latencies,
    lines,
    load_waterfall,
)
from .over_time import over_time, parts_over_time
from .sheets import (
    break_even_sheet,
    environment_sheet,
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
WARNING = "Warning: "


def report(
    summary: Mapping[str, Any],
    run: Run,
    words: Sequence[str],
    notes: Sequence[str],
    environment: Mapping[str, Any] | None,
) -> str:
    """The page of a run. What the run does not have is left out, or said to be missing.

    `words` and `notes` are those of the terminal; `environment` is None where its file was lost. Everything that
    comes from the run is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # for the escaping; PyTorch brings it anyway

    measured, parts = latencies(run), parts_over_time(run)
    economics, waterfall = summary.get("economics"), load_waterfall(summary)
    template = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    return template.render(
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        summary=summary,
        labels=[trial["label"] for trial in summary["trials"]],
        card=summary.get("card"),
        words=[sentence for sentence in words if not sentence.startswith(WARNING)],
        warnings=[sentence.removeprefix(WARNING) for sentence in words if sentence.startswith(WARNING)],
        notes=notes,
        table=main_sheet(summary),
        latency=distributions(measured),
        latency_data=latency_data(measured),
        waterfall=waterfall,
        waterfall_data=waterfall_data(summary),
        economics=economics,
        cost=cost_curves(economics, rates(summary["card"])) if economics else None,
        cost_labels=[trial["label"] for trial in lines(economics)] if economics else [],
        price_sheets=[price_sheet(economics), break_even_sheet(economics)] if economics else [],
        prices=prices_in_words(economics) if economics else "",
        times=over_time(parts),
        time_data=time_data(parts),
        environment=environment_sheet(environment) if isinstance(environment, Mapping) else None,
    )


def rates(card: Mapping[str, Any]) -> list[float]:
    """The rates at which its answer changes."""
    return [float(flip["at"]) for flip in card["flips"] if flip["what"] == "rate"]
