"""The folder of a run or of a plan: what is written there, and what the terminal shows of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..advice.summary import summarise
from ..advice.words import answer_in_words
from ..bench.environment import describe_environment, differences
from ..errors import FileError, ResultsError
from ..planning.bursts import bursts
from ..report.card import card
from ..report.html import report
from ..report.plan import plan_text
from ..report.table import footnotes, table
from ..report.waterfall import waterfall
from ..results.folder import read_records
from ..stats.changes import Changes, changes
from ..stats.rounds import Run, arrange
from ..stats.slo import unmet

ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class OlderRun:
    """A run to compare with."""

    folder: Path
    run: Run


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


def write_run(folder: Path, options: ReportOptions) -> bool:
    """Table, words, summary and page from the samples alone, first on disk, then on the terminal; whether all trials
    finished and agree, none regressed, and, if `options` ask for it, all targets are met.

    Raises ResultsError.
    """
    run = _at_rate(arrange(read_records(folder)), options.rate)
    summary = _with_bursts(summarise(run), run)
    words, notes = answer_in_words(summary), footnotes(summary, wide=True)
    _write_json(folder / "summary.json", summary)
    (folder / "table.md").write_text(_markdown(summary, words, notes), encoding="utf-8")
    page = report(summary, run, words, notes, _read_json(folder / ENVIRONMENT))
    (folder / "report.html").write_text(page, encoding="utf-8")
    changed = compare_runs(options.older, folder, run, options.tolerance) if options.older else None
    print(f"\n{summary['question']}\n\n{table(summary, 'simple', wide=options.wide)}\n")
    print("\n".join(words), *footnotes(summary, wide=options.wide), f"\n{card(summary, 'simple')}", sep="\n")
    print(f"\nWritten to {folder}; report.html in it shows all of it")
    if options.waterfall:
        print(f"\n{waterfall(summary)}")
    if changed is not None:
        print("\nAgainst the older run:", *changed.sentences, sep="\n")
    missed = unmet(summary) if options.exit_on_slo else []
    if options.exit_on_slo:
        print(
            "\nNot met, for which --exit-on-slo exits with 1:" if missed else "\nAll targets are met.",
            *missed,
            sep="\n",
        )
    due = summary["rounds_due"]
    sound = all(t["labels_agree"] and not t["errors"] and t["rounds"] == due for t in summary["trials"])
    return sound and not missed and not (changed and changed.regressed)


def _markdown(summary: Mapping[str, Any], words: Sequence[str], notes: Sequence[str]) -> str:
    """What the terminal shows, as table.md, and at its end the table with all columns."""
    title = f"# {summary['experiment']}\n\n{summary['question']}"
    listed = "\n".join(f"- {s}" for s in words)
    every = f"## All figures\n\n{table(summary, 'pipe', wide=True)}"
    return "\n\n".join((title, table(summary, "pipe"), listed, "\n".join(notes), card(summary, "pipe"), every)) + "\n"


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """plan.json, and plan.md with what the terminal then shows."""
    _write_json(folder / "plan.json", plan)
    (folder / "plan.md").write_text(plan_text(plan, "pipe") + "\n", encoding="utf-8")
    print(f"{plan_text(plan, 'simple')}\n\nWritten to {folder}")


def write_environment(folder: Path) -> None:
    _write_json(folder / ENVIRONMENT, describe_environment())


def warn_of_differences(folder: Path) -> None:
    """Where the environment is no longer that of the first rounds."""
    for difference in differences(_read_json(folder / ENVIRONMENT), describe_environment()):
        print(f"Warning: since the first rounds {difference}: they may not be alike.", file=sys.stderr)


def read_older_run(folder: Path) -> OlderRun:
    """Read a run to compare with. Raises FileError."""
    try:
        return OlderRun(folder, arrange(read_records(folder)))
    except ResultsError as error:
        raise FileError(f"The older run: {error}") from error


def compare_runs(older: OlderRun, folder: Path, run: Run, tolerance: float) -> Changes:
    """What changed since the older run, and whether any of it is a regression."""
    changed = changes(older.run, run, tolerance)
    before, now = (_read_json(each / ENVIRONMENT) for each in (older.folder, folder))
    since = [f"Since that run {difference}." for difference in differences(before, now)]
    return Changes([*changed.sentences, *since], changed.regressed)


def _at_rate(run: Run, rate: float | None) -> Run:
    """The run with that rate in place of its own, if there is one."""
    return run if rate is None else replace(run, header=run.header.model_copy(update={"rate": rate}))


def _with_bursts(summary: dict[str, Any], run: Run) -> dict[str, Any]:
    """With what the card has to say of callers in bursts, below what it says of its flip."""
    found, card = bursts(run, summary), summary["card"]
    sentences = list(card["sentences"])
    if found is not None:
        flips = [flip["sentence"] for flip in card["flips"] if flip["what"] == "rate"]
        last = max((i for i, sentence in enumerate(sentences) if sentence in flips), default=-1)
        sentences.insert(last + 1, found["sentence"])
    return summary | {"card": card | {"sentences": sentences, "bursts": found}}


def _read_json(path: Path) -> Any:
    """None when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
