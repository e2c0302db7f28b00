"""Run an experiment: `python runner.py experiments/default.yaml`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.bench.describe import describe
from core.bench.environment import describe_environment, differences
from core.bench.experiment import Overrides, Plan, load_experiment
from core.bench.records import Record, Records, new_folder, read_records, settled
from core.bench.resume import check_checkpoints, plan_of
from core.bench.run import begin, prepare, run_trials
from core.command_line import parser
from core.decide.changes import changes
from core.decide.precision import precise_enough
from core.decide.rounds import arrange
from core.decide.summary import summarise
from core.decide.words import answer_in_words
from core.errors import FileError, ResidencyError, ResultsError
from core.plugins import load_plugins
from core.report.card import card
from core.report.html import report
from core.report.plugin_list import plugin_list
from core.report.progress import RunProgress
from core.report.table import footnotes, table
from core.report.waterfall import waterfall
from core.simulate.confirm import errors, write_experiment
from core.simulate.plan_file import load_plan
from core.simulate.planning import candidates, plan_of_settings
from core.simulate.report import write_plan

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
BROKEN = (KeyError, TypeError, ValueError, AttributeError)  # what a record of another form leads to


@dataclass(frozen=True)
class Wanted:
    """What a report shows besides the table, the words and the summary."""

    waterfall: bool = False
    baseline: list[Record] | None = None
    """The records of an older run."""
    older: Path | None = None
    """Its folder."""
    tolerance: float = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all trials finished and agree, 1 one failed or regressed, 2 bad input, 130 interrupted."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: keep what was measured
    flags = parser().parse_args(arguments)
    try:
        return _dispatch(flags)
    except OSError as error:
        print(f"runner.py: {error.filename or 'standard output'}: {error.strerror}.", file=sys.stderr)
        return FAILED
    except ResidencyError as error:
        print(f"runner.py: {error}", file=sys.stderr)
        return BAD_INPUT if not isinstance(error, ResultsError) or flags.report or flags.resume else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(flags: argparse.Namespace) -> int:
    wanted = Wanted(flags.waterfall, _baseline(flags.compare), flags.compare, flags.tolerance)
    if flags.report:
        return write_report(flags.report, wanted)
    if flags.resume:
        return resume(flags.resume, wanted)
    if flags.confirm and not flags.plan:
        parser().error("--confirm goes with --plan FILE")
    if flags.plan:
        return plan_ahead(flags.plan, flags.output, confirm=flags.confirm)
    if flags.plugins and not flags.experiment:
        print(plugin_list(load_plugins()))
        return OK
    if not flags.experiment:
        parser().error("name an experiment, such as experiments/default.yaml")
    strategies = [name.strip() for name in flags.strategies.split(",")] if flags.strategies else None
    plan = load_experiment(flags.experiment, Overrides(flags.repetitions, flags.repeats, strategies, dict(flags.model)))
    if flags.plugins or flags.dry_run:
        print(plugin_list(plan.plugins) if flags.plugins else describe(plan))
        return OK
    return run(plan, flags.output, wanted)


def run(plan: Plan, output: Path, wanted: Wanted) -> int:
    """Measure in a new folder, then report."""
    folder, checkpoints = start(plan, output)
    return measure(plan, checkpoints, folder, wanted)


def start(plan: Plan, output: Path) -> tuple[Path, Mapping[str, Path]]:
    """A new folder that says what is run, and the checkpoints by model id."""
    checkpoints, digests = prepare(plan)
    folder = new_folder(output, plan.experiment.name)
    _write_json(folder / "environment.json", describe_environment())
    begin(plan, checkpoints, digests, folder)
    return folder, checkpoints


def plan_ahead(path: Path, output: Path, *, confirm: bool) -> int:
    """Simulate every setting; then, with `confirm`, measure the best two, and say how far the simulator was off."""
    planned = load_plan(path)
    found = list(candidates(planned))
    settings = plan_of_settings(planned, found)
    folder = new_folder(output, planned.file.name)
    print(f"{write_plan(folder, settings)}\n\nWritten to {folder}")
    if not confirm:
        return OK
    experiment = load_experiment(write_experiment(planned, found, folder))
    measured, checkpoints = start(experiment, folder)
    status = measure(experiment, checkpoints, measured, Wanted())
    if status == INTERRUPTED or experiment.traffic is None:
        return status
    print(f"\n{write_plan(folder, settings, errors(planned, found, experiment.traffic, read_records(measured)))}")
    return status


def resume(folder: Path, wanted: Wanted) -> int:
    """Measure what an earlier run did not come to, then report. Raises ResultsError where it cannot go on."""
    past = read_records(folder)
    plan = plan_of(folder, past)
    checkpoints, digests = prepare(plan)
    check_checkpoints(folder, past, digests)
    for difference in differences(_read_json(folder / "environment.json"), describe_environment()):
        print(f"Warning: since the first rounds {difference}: they may not be alike.", file=sys.stderr)
    return measure(plan, checkpoints, folder, wanted)


def measure(plan: Plan, checkpoints: Mapping[str, Path], folder: Path, wanted: Wanted) -> int:
    """Whatever the folder lacks, then report; an interrupted run is reported as far as it came."""
    precision = plan.experiment.precision

    def enough(number: int) -> str | None:
        """Why no round is needed after that one."""
        return precise_enough(read_records(folder, rounds=number + 1), precision) if precision else None

    with Records(folder) as records:
        past = read_records(folder)
        left = plan.experiment.repeats * len(plan.trials) - len(settled(past))
        try:
            with RunProgress(plan.experiment.repeats, left, (plan.requests or 0) + 1) as progress:
                run_trials(plan, checkpoints, records, progress, past, enough)
        except KeyboardInterrupt:
            print(f"Interrupted. This was measured until then; go on with --resume {folder}", file=sys.stderr)
            write_report(folder, wanted)
            return INTERRUPTED
    return write_report(folder, wanted)


def write_report(folder: Path, wanted: Wanted) -> int:
    """Table, words, summary and page from the samples alone. Raises ResultsError."""
    records = read_records(folder)
    try:
        summary = summarise(records)
    except BROKEN as error:
        raise ResultsError(f"{folder} holds a record of another form ({error!r}); it cannot be reported.") from error
    _write_json(folder / "summary.json", summary)
    words, notes = answer_in_words(summary), footnotes(summary)
    title = f"# {summary['experiment']}\n\n{summary['question']}"
    listed = "\n".join(f"- {s}" for s in words)
    paragraphs = (title, table(summary, "pipe"), listed, "\n".join(notes), card(summary, "pipe"))
    (folder / "table.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    print(f"\n{summary['question']}\n\n{table(summary, 'simple')}\n")
    print("\n".join(words), *notes, f"\n{card(summary, 'simple')}", sep="\n")
    page = report(summary, arrange(records), words, notes, _read_json(folder / "environment.json"))
    (folder / "report.html").write_text(page, encoding="utf-8")
    print(f"\nWritten to {folder}; report.html in it shows all of it")
    if wanted.waterfall:
        print(f"\n{waterfall(summary)}")
    changed = changes(wanted.baseline, records, wanted.tolerance) if wanted.baseline else None
    if changed and wanted.older:
        print("\nAgainst the older run:", *changed.sentences, *_since(wanted.older, folder), sep="\n")
    due = summary["rounds_due"]
    sound = all(t["labels_agree"] and not t["errors"] and t["rounds"] == due for t in summary["trials"])
    return OK if sound and not (changed and changed.regressed) else FAILED


def _baseline(folder: Path | None) -> list[Record] | None:
    """An older run's records, found to be whole before anything is measured. Raises FileError."""
    if folder is None:
        return None
    try:
        records = read_records(folder)
        summarise(records)
    except ResultsError as error:
        raise FileError(f"--compare: {error}") from error
    except BROKEN as error:
        raise FileError(f"--compare: {folder} holds a record of another form ({error!r}).") from error
    return records


def _since(older: Path, folder: Path) -> list[str]:
    """What else was different in that run."""
    before, now = (_read_json(each / "environment.json") for each in (older, folder))
    return [f"Since that run {difference}." for difference in differences(before, now)]


def _read_json(path: Path) -> Any:
    """None when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
