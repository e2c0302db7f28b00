"""Run an experiment: `python runner.py experiments/default.yaml`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from core.bench.environment import describe_environment
from core.bench.experiment import Overrides, Plan, load_experiment
from core.bench.records import Records, new_folder, read_records
from core.bench.run import prepare, run_trials
from core.decide.summary import summarise
from core.decide.words import answer_in_words
from core.errors import ResidencyError, ResultsError
from core.plugins import load_plugins
from core.report.plugin_list import plugin_list
from core.report.progress import RunProgress
from core.report.table import footnotes, table
from core.report.waterfall import waterfall

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all trials finished and agree, 1 one failed, 2 bad input, 130 interrupted."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: keep what was measured
    parser = _parser()
    flags = parser.parse_args(arguments)
    try:
        if flags.report:
            return write_report(flags.report, flags.waterfall)
        if flags.plugins and not flags.experiment:
            print(plugin_list(load_plugins()))
            return OK
        if not flags.experiment:
            parser.error("name an experiment, such as experiments/default.yaml")
        plan = load_experiment(flags.experiment, _overrides(flags))
        if flags.plugins:
            print(plugin_list(plan.plugins))
            return OK
        if flags.dry_run:
            print(describe(plan))
            return OK
        return run(plan, flags.output, flags.waterfall)
    except OSError as error:
        print(f"runner.py: {error.filename or 'standard output'}: {error.strerror}.", file=sys.stderr)
        return FAILED
    except ResidencyError as error:
        print(f"runner.py: {error}", file=sys.stderr)
        return BAD_INPUT if not isinstance(error, ResultsError) or flags.report else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def run(plan: Plan, output: Path, with_waterfall: bool) -> int:
    """Measure, then report; an interrupted run is reported as far as it came."""
    checkpoints, digests = prepare(plan)
    folder = new_folder(output, plan.experiment.name)
    _write_json(folder / "environment.json", describe_environment())
    resolved = plan.experiment.model_dump(mode="json") | {"texts": list(plan.texts)}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    records = Records(folder)
    try:
        with RunProgress(plan.experiment.repeats, len(plan.trials), plan.requests + 1) as progress:
            run_trials(plan, checkpoints, digests, records, progress)
    except KeyboardInterrupt:
        print("Interrupted; this is what was measured until then.", file=sys.stderr)
        write_report(folder, with_waterfall)
        return INTERRUPTED
    finally:
        records.close()
    return write_report(folder, with_waterfall)


def write_report(folder: Path, with_waterfall: bool) -> int:
    """Table, words and summary from the samples alone. Raises ResultsError."""
    try:
        summary = summarise(read_records(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{folder} holds a record of another form ({error!r}); it cannot be reported.") from error
    _write_json(folder / "summary.json", summary)
    words, notes = answer_in_words(summary), footnotes(summary)
    title = f"# {summary['experiment']}\n\n{summary['question']}"
    paragraphs = (title, table(summary, "pipe"), "\n".join(f"- {s}" for s in words), "\n".join(notes))
    (folder / "table.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    print(f"\n{summary['question']}\n\n{table(summary, 'simple')}\n")
    print("\n".join(words), *notes, f"\nWritten to {folder}", sep="\n")
    if with_waterfall:
        print(f"\n{waterfall(summary)}")
    planned = summary["rounds_planned"]
    sound = all(t["labels_agree"] and not t["errors"] and t["rounds"] == planned for t in summary["trials"])
    return OK if sound else FAILED


def describe(plan: Plan) -> str:
    """What a run would do, in plain words."""
    experiment = plan.experiment
    total = (plan.requests + 1) * len(plan.trials) * experiment.repeats
    lines = [plan.question or experiment.name, ""]
    lines += [f"  {trial.label}: {trial.choice.loader.name}, {trial.dtype}" for trial in plan.trials]
    lines += [f"  model {model_id}: {reference}" for model_id, reference in experiment.models.items()]
    rounds = f"{experiment.repeats} rounds of {len(plan.trials)} trials with 1 + {plan.requests} requests each"
    lines.append(f"{rounds}: {total} requests.")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner.py", description="Measure what loading strategies cost.")
    parser.add_argument("experiment", nargs="?", type=Path, help="a YAML file, such as experiments/default.yaml")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="root of all results")
    parser.add_argument("--repetitions", type=_positive, metavar="N", help="requests for each text in each round")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="rounds")
    parser.add_argument("--strategies", metavar="A,B", help="only these, by label or by strategy")
    parser.add_argument("--model", action="append", default=[], type=_model, metavar="ID=REFERENCE")
    parser.add_argument("--plugins", action="store_true", help="list strategies and loaders, and end")
    parser.add_argument("--dry-run", action="store_true", help="check the experiment, print the plan, and end")
    parser.add_argument("--waterfall", action="store_true", help="draw where the time of a load goes")
    parser.add_argument("--report", type=Path, metavar="DIR", help="rebuild table and summary from samples, and end")
    return parser


def _overrides(flags: argparse.Namespace) -> Overrides:
    strategies = [name.strip() for name in flags.strategies.split(",")] if flags.strategies else None
    return Overrides(flags.repetitions, flags.repeats, strategies, dict(flags.model))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not '{text}'")
    return int(text)


def _model(text: str) -> tuple[str, str]:
    model_id, equals, reference = text.partition("=")
    if not (model_id and equals and reference):
        raise argparse.ArgumentTypeError(f"must be ID=REFERENCE, such as sst2=embedded, not '{text}'")
    return model_id, reference


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
