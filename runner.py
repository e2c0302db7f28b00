"""Run an experiment: `python runner.py experiments/default.yaml`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.bench.convert import converted
from core.bench.describe import describe, long_run
from core.bench.experiment import HAS_A_RATE, Overrides, Plan, load_experiment
from core.bench.records import Record, Records, behind_link, new_folder, read_records, rounds_due, settled
from core.bench.resume import check_checkpoints, plan_of
from core.bench.run import begin, look_up, prepare, run_trials
from core.command_line import parse
from core.decide.economics import states_a_rate
from core.decide.precision import precise_enough
from core.errors import PluginError, ResidencyError, ResultsError, YamlError
from core.plugins import load_plugins
from core.report.plugin_list import plugin_list
from core.report.progress import RunProgress
from core.results import Wanted, baseline, warn_of_differences, write_environment, write_plan, write_run
from core.simulate.candidates import candidates
from core.simulate.confirm import check, errors, write_experiment
from core.simulate.plan_file import load_plan
from core.simulate.planning import plan_of_settings
from core.terminal import lenient_streams

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all trials finished and agree, 1 one failed or regressed, 2 bad input, 130 interrupted."""
    _end_as_at_ctrl_c()
    with lenient_streams() as out:
        status = _status(parse(arguments))
    if out.lost is not None:
        print(f"runner.py: standard output: {out.lost.strerror}.", file=sys.stderr)
        return status or FAILED
    return status


def _status(flags: argparse.Namespace) -> int:
    """Do what the flags say; what fails ends with a sentence."""
    try:
        return _dispatch(flags)
    except OSError as error:
        print(f"runner.py: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return FAILED
    except ResidencyError as error:
        print(f"runner.py: {error}", file=sys.stderr)
        return BAD_INPUT if not isinstance(error, ResultsError) or flags.report or flags.resume else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _end_as_at_ctrl_c() -> None:
    """At SIGTERM, and at SIGHUP unless `nohup` has it ignored, keep and report what was measured.

    SIGINT stays as it was inherited: a shell ignores it for what runs in the background.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def _dispatch(flags: argparse.Namespace) -> int:
    older = behind_link(flags.compare) if flags.compare else None
    wanted = Wanted(flags.wide, flags.waterfall, baseline(older), older, flags.tolerance, flags.exit_on_slo, flags.rate)
    if folder := flags.report or flags.resume:
        folder = behind_link(folder)
        if flags.exit_on_slo or flags.rate:
            _check_header(flags, read_records(folder)[0])
        if flags.resume:
            return resume(folder, wanted)
        return OK if write_run(folder, wanted) else FAILED
    if flags.convert:
        return convert(flags.convert)
    if flags.check:
        return check_plugins(flags.check)
    if flags.plan:
        return plan_ahead(flags.plan, flags.output, confirm=flags.confirm)
    if flags.plugins and not flags.experiment:
        print(plugin_list(load_plugins()))
        return OK
    strategies = [name.strip() for name in flags.strategies.split(",")] if flags.strategies else None
    overrides = Overrides(flags.repetitions, flags.repeats, strategies, dict(flags.model), flags.rate)
    plan = load_experiment(flags.experiment, overrides)
    _check_targets(flags, plan.experiment.slo)
    if flags.plugins or flags.dry_run:
        print(plugin_list(plan.plugins) if flags.plugins else describe(plan, look_up(plan)))
        return OK
    return run(plan, flags.output, wanted)


def _check_header(flags: argparse.Namespace, header: Record) -> None:
    _check_targets(flags, header["slo"])
    if flags.rate and states_a_rate(header.get("workload")):
        raise YamlError(HAS_A_RATE)


def _check_targets(flags: argparse.Namespace, slo: object) -> None:
    if flags.exit_on_slo and not slo:
        raise YamlError("--exit-on-slo: the experiment has no 'slo'; add targets to it, such as slo: {p99: 200ms}.")


def convert(references: Sequence[str]) -> int:
    """Convert each checkpoint for servers that have no torch; one that cannot be converted keeps no other from it."""
    status = OK
    for reference in references:
        try:
            print(f"{reference}: {converted(reference)}")
        except ResidencyError as error:
            print(f"runner.py: {reference}: {str(error).rstrip('.')}.", file=sys.stderr)
            status = FAILED
    return status


def check_plugins(names: Sequence[str]) -> int:
    """Say of each part of the contract whether these plugins keep it."""
    from core.conformance import Broken, checks_of  # which takes what a server takes

    checks = checks_of(*names)
    if not checks:
        raise PluginError(f"{', '.join(names)} registers no strategy and no loader, so that there is nothing to check.")
    broken = 0
    for part in checks:
        try:
            part()
            print(f"{part}: yes", flush=True)
        except Broken as fault:
            broken += 1
            print(f"{part}: NO. {str(fault)[:1].upper()}{str(fault)[1:]}.", flush=True)
    return FAILED if broken else OK


def run(plan: Plan, output: Path, wanted: Wanted) -> int:
    """Measure in a new folder, then report."""
    folder, checkpoints = start(plan, output)
    return measure(plan, checkpoints, folder, wanted)


def start(plan: Plan, output: Path) -> tuple[Path, Mapping[str, Path]]:
    """A new folder that says what is run, and the checkpoints by model id."""
    checkpoints, digests = prepare(plan)
    folder = new_folder(output, plan.experiment.name)
    write_environment(folder)
    begin(plan, checkpoints, digests, folder)
    return folder, checkpoints


def plan_ahead(path: Path, output: Path, *, confirm: bool) -> int:
    """Simulate every setting; then, with `confirm`, measure the best two, and say how far the simulator was off."""
    planned = load_plan(path)
    if confirm:
        check(planned)
    found, too_large = candidates(planned)
    folder = new_folder(output, planned.file.name)
    write_plan(folder, plan_of_settings(planned, found, too_large))
    if not confirm:
        return OK
    experiment = load_experiment(write_experiment(planned, found, folder))
    measured, checkpoints = start(experiment, folder)
    status = measure(experiment, checkpoints, measured, Wanted())
    if status == INTERRUPTED or experiment.traffic is None:
        return status
    confirmed = errors(planned, found, experiment.traffic, read_records(measured))
    write_plan(folder, plan_of_settings(planned, found, too_large, confirmed))
    return status


def resume(folder: Path, wanted: Wanted) -> int:
    """Measure what an earlier run did not come to, then report. Raises ResultsError where it cannot go on."""
    past = read_records(folder)
    plan = plan_of(folder, past)
    checkpoints, digests = prepare(plan)
    check_checkpoints(folder, past, digests)
    warn_of_differences(folder)
    return measure(plan, checkpoints, folder, wanted)


def measure(plan: Plan, checkpoints: Mapping[str, Path], folder: Path, wanted: Wanted) -> int:
    """Whatever the folder lacks, then report; an interrupted run is reported as far as it came."""
    precision = plan.experiment.precision

    def enough(number: int) -> str | None:
        """Why no round is needed after that one."""
        return precise_enough(read_records(folder, rounds=number + 1), precision) if precision else None

    with Records(folder) as records:
        past = read_records(folder)
        left = rounds_due(past, plan.experiment.repeats) * len(plan.trials) - len(settled(past))
        if warning := long_run(plan, left):
            print(warning, file=sys.stderr)
        try:
            with RunProgress(plan.experiment.repeats, left, (plan.requests or 0) + 1) as progress:
                run_trials(plan, checkpoints, records, progress, past, enough)
        except KeyboardInterrupt:
            print(f"Interrupted. This was measured until then; go on with --resume {folder}", file=sys.stderr)
            write_run(folder, wanted)
            return INTERRUPTED
    return OK if write_run(folder, wanted) else FAILED


if __name__ == "__main__":
    sys.exit(main())
