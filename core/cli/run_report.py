"""The report of a run: compute it from the samples, write it to the folder, print it, and judge the run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import get_terminal_size

from ..advice.findings import findings
from ..advice.summary import summarise
from ..planning.bursts import bursts
from ..report.card import card
from ..report.html import Said, report
from ..report.nodes import TITLE, node_table
from ..report.prose.card import card_in_words
from ..report.prose.footnotes import footnotes
from ..report.prose.run import DOUBTS, answer_in_words
from ..report.prose.sentences import say
from ..report.table import table
from ..report.waterfall import waterfall
from ..results.environment import Environment
from ..results.folder import read_records
from ..results.shortfalls import Shortfall
from ..results.summary import Summary
from ..stats.rounds import Run, arrange
from ..stats.slo import unmet
from .results_folder import ChangesText, OlderRun, compare_runs, read_environment, write_json


@dataclass(frozen=True)
class ReportOptions:
    """What to report of a run besides the table, the words and the card."""

    wide: bool = False
    """Whether the table on the terminal has all columns."""
    waterfall: bool = False
    older: OlderRun | None = None
    """The run to compare with."""
    tolerance: float = 0.05
    """Smallest change, as a fraction, that is a regression."""
    exit_on_slo: bool = False
    """Whether a target that is not met is a failure."""
    rate: float | None = None
    """Requests per second for which the card answers in place of the run's own rate."""


@dataclass(frozen=True)
class RunReport:
    """What a run's samples show, compared with an older run and with the targets if that was asked for."""

    run: Run
    summary: Summary
    environment: Environment | None
    changed: ChangesText | None
    """Since the older run; None without one."""
    unmet: Sequence[Shortfall]
    """The targets that are not met, if the exit status depends on them."""

    @property
    def is_sound(self) -> bool:
        """Whether all trials finished and agree, none regressed, and the targets that must be met are met."""
        due = self.summary.rounds_due
        is_whole = all(trial.labels_agree and not trial.errors and trial.rounds == due for trial in self.summary.trials)
        return is_whole and not self.unmet and not (self.changed and self.changed.regressed)


def report_run(folder: Path, options: ReportOptions) -> bool:
    """Report a run from its samples alone, first on disk, then on the terminal. Returns whether the run is sound.

    Raises ResultsError.
    """
    found = compute_report(folder, options)
    write_report(folder, found)
    print_report(folder, found, options)
    return found.is_sound


def compute_report(folder: Path, options: ReportOptions) -> RunReport:
    """What the samples in the folder say. Raises ResultsError."""
    run = _at_rate(arrange(read_records(folder)), options.rate)
    summary = summary_with_bursts(run)
    return RunReport(
        run=run,
        summary=summary,
        environment=read_environment(folder),
        changed=compare_runs(options.older, folder, run, options.tolerance) if options.older else None,
        unmet=unmet(summary) if options.exit_on_slo else [],
    )


def write_report(folder: Path, found: RunReport) -> None:
    """Write summary.json, table.md and report.html."""
    write_json(folder / "summary.json", found.summary.model_dump(mode="json", by_alias=True))
    (folder / "table.md").write_text(_markdown(found), encoding="utf-8")
    page = report(found.summary, found.run, said(found.summary), found.environment)
    (folder / "report.html").write_text(page, encoding="utf-8")


def print_report(folder: Path, found: RunReport, options: ReportOptions) -> None:
    """Print the table, the words and the card, and what `options` ask for."""
    summary = found.summary
    most = get_terminal_size().columns if sys.stdout.isatty() else None
    print(f"\n{summary.question}\n\n{table(summary, 'simple', wide=options.wide, most=most)}\n")
    notes = footnotes(summary, wide=options.wide)
    if nodes := node_table(summary, "simple"):
        notes += ["", TITLE, "", nodes]
    print("\n".join(answer_in_words(summary)), *notes, f"\n{card(summary, 'simple')}", sep="\n")
    print(f"\nWritten to {folder}; open report.html in it to see everything")
    if options.waterfall:
        print(f"\n{waterfall(summary)}")
    if found.changed is not None:
        print("\nAgainst the older run:", *found.changed.sentences, sep="\n")
    if options.exit_on_slo:
        told = "Targets not met (--exit-on-slo exits with 1):" if found.unmet else "All targets are met."
        print(f"\n{told}", *map(say, found.unmet), sep="\n")


def said(summary: Summary) -> Said:
    """The sentences for the page."""
    found, told = findings(summary), card_in_words(summary)
    return Said(
        answer=[say(each) for each in found if not isinstance(each, DOUBTS)],
        warnings=[say(each) for each in found if isinstance(each, DOUBTS)],
        card=told,
        footnotes=footnotes(summary, wide=True),
    )


def _markdown(found: RunReport) -> str:
    """What the terminal shows, as table.md, and at its end the table with all columns."""
    summary = found.summary
    parts = (
        f"# {summary.experiment}",
        summary.question,
        table(summary, "pipe"),
        "\n".join(f"- {sentence}" for sentence in answer_in_words(summary)),
        "\n".join(footnotes(summary, wide=True)),
        *([f"## {TITLE}\n\n{nodes}"] if (nodes := node_table(summary, "pipe")) else []),
        card(summary, "pipe"),
        f"## All figures\n\n{table(summary, 'pipe', wide=True)}",
    )
    return "\n\n".join(parts) + "\n"


def summary_with_bursts(run: Run) -> Summary:
    """The summary, with the card's finding about bursty arrivals."""
    summary = summarise(run)
    card = summary.card.model_copy(update={"bursts": bursts(run, summary)})
    return summary.model_copy(update={"card": card})


def _at_rate(run: Run, rate: float | None) -> Run:
    """The run, with `rate` in place of its own rate; unchanged if `rate` is None."""
    return run if rate is None else replace(run, header=run.header.model_copy(update={"rate": rate}))
