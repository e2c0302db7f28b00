"""The actions of the commands. Each returns the exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..advice.summary import summarise
from ..bench.convert import convert as convert_checkpoint
from ..bench.describe import describe, long_run_warning
from ..bench.engines import engines_of
from ..bench.experiment import HAS_A_RATE, ResolvedExperiment, load_experiment
from ..bench.ray_rounds import run_rounds
from ..bench.resume import START_ENGINES, check_checkpoints, check_commands, read_experiment
from ..bench.run import locate_models, prepare, run_trials, write_header
from ..errors import FileError, PluginError, ResidencyError, ResultsError, YamlError
from ..names import COMMAND
from ..planning.candidates import candidates
from ..planning.confirm import check, errors, write_experiment
from ..planning.plan import plan_of_settings
from ..planning.plan_file import load_plan
from ..report.export import export as export_run
from ..report.progress import RunProgress
from ..results.folder import RecordWriter, new_folder, read_header, read_records
from ..results.header import RunHeader
from ..results.records import NarrowIntervals
from ..stats.rounds import arrange
from ..stats.stopping import precise_enough
from .conduct import conduct_text
from .results_folder import OlderRun, compare_runs, warn_of_differences, write_environment, write_plan
from .run_report import ReportOptions, report_run

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(resolved: ResolvedExperiment, output: Path, options: ReportOptions, ray: str | None = None) -> int:
    """Measure the experiment in a new folder, then report it. `ray` is the address of a cluster for its rounds."""
    folder, checkpoints = start(resolved, output)
    return measure(resolved, checkpoints, folder, options, ray)


def describe_run(resolved: ResolvedExperiment) -> int:
    """Print what a run of the experiment would do. Writes and downloads nothing."""
    print(describe(resolved, locate_models(resolved)))
    return OK


def start(resolved: ResolvedExperiment, output: Path) -> tuple[Path, Mapping[str, Path]]:
    """Make a new folder with the header of the run. Returns it, and the checkpoints by model id."""
    checkpoints, digests = prepare(resolved)
    folder = new_folder(output, resolved.experiment.name)
    write_environment(folder)
    write_header(resolved, checkpoints, digests, folder)
    return folder, checkpoints


def measure(
    resolved: ResolvedExperiment,
    checkpoints: Mapping[str, Path],
    folder: Path,
    options: ReportOptions,
    ray: str | None = None,
) -> int:
    """Measure the trials that the folder lacks, then report. An interrupted run is reported, too."""
    precision = resolved.experiment.precision

    def reason_to_stop(number: int) -> NarrowIntervals | None:
        """Why no round is needed after round `number`, or None."""
        if precision is None:
            return None
        return precise_enough(arrange(read_records(folder, rounds=number + 1)), precision)

    with RecordWriter(folder) as records:
        past = read_records(folder)
        left = past.rounds_due * len(resolved.trials) - len(past.finished_trials)
        if warning := long_run_warning(resolved, left):
            print(warning, file=sys.stderr)
        try:
            with RunProgress(resolved.experiment.repeats, left, (resolved.requests or 0) + 1) as progress:
                if ray is None:
                    run_trials(resolved, checkpoints, records, progress, past, reason_to_stop)
                else:
                    run_rounds(folder, records, progress, past, reason_to_stop, ray)
        except KeyboardInterrupt:
            flag = f" {START_ENGINES}" if engines_of(resolved.experiment.models) else ""
            command = f"{COMMAND} resume {folder}{flag}"
            print(f"Interrupted. Finished trials are kept; continue with: {command}", file=sys.stderr)
            report_run(folder, options)
            return INTERRUPTED
    return OK if report_run(folder, options) else FAILED


def resume(folder: Path, options: ReportOptions, ray: str | None = None, *, start_engines: bool = False) -> int:
    """Measure the trials that an earlier run did not finish, then report."""
    with _as_bad_input():
        header = read_records(folder).header
        _check_header(options, header)
        check_commands(folder, header, may_start=start_engines)
        resolved = read_experiment(folder, header)
        checkpoints, digests = prepare(resolved)
        check_checkpoints(folder, header, digests)
        warn_of_differences(folder)
        return measure(resolved, checkpoints, folder, options, ray)


def report(folder: Path, options: ReportOptions) -> int:
    """Report a run again."""
    with _as_bad_input():
        _check_header(options, read_header(folder))
        return OK if report_run(folder, options) else FAILED


def export(folder: Path, output: Path) -> int:
    """Write a run's requests, figures and table to `output`, for other tools."""
    with _as_bad_input():
        run = arrange(read_records(folder))
    output.mkdir(parents=True, exist_ok=True)
    print(*export_run(run, summarise(run), output), sep="\n")
    return OK


def compare(older: OlderRun, newer: Path, tolerance: float) -> int:
    """Print what changed between two runs."""
    with _as_bad_input():
        changed = compare_runs(older, newer, arrange(read_records(newer)), tolerance)
    print(*changed.sentences, sep="\n")
    return FAILED if changed.regressed else OK


@contextmanager
def _as_bad_input() -> Iterator[None]:
    """Turn ResultsError into FileError, because a folder without a run that the user names is bad input."""
    try:
        yield
    except ResultsError as error:
        raise FileError(str(error)) from error


def _check_header(options: ReportOptions, header: RunHeader) -> None:
    check_targets(options, header.slo)
    if options.rate and header.states_a_rate:
        raise YamlError(HAS_A_RATE)


def check_targets(options: ReportOptions, slo: object) -> None:
    """Raise YamlError if the exit status should depend on targets, but there are none."""
    if options.exit_on_slo and not slo:
        raise YamlError("--exit-on-slo: the experiment has no 'slo'; add targets to it, such as slo: {p99: 200ms}.")


def simulate_plan(path: Path, output: Path, *, confirm: bool, start_engines: bool = False) -> int:
    """Simulate every setting. With `confirm`, also measure the best two, and report the simulator's errors."""
    planned = load_plan(path)
    if confirm:
        with _as_bad_input():
            check(planned, start_engines=start_engines)
    found, too_large = candidates(planned)
    folder = new_folder(output, planned.file.name)
    write_plan(folder, plan_of_settings(planned, found, too_large))
    if not confirm:
        return OK
    experiment = load_experiment(write_experiment(planned, found, folder))
    measured, checkpoints = start(experiment, folder)
    status = measure(experiment, checkpoints, measured, ReportOptions())
    if status == INTERRUPTED or experiment.traffic is None:
        return status
    confirmed = errors(planned, found, experiment.traffic, arrange(read_records(measured)))
    write_plan(folder, plan_of_settings(planned, found, too_large, confirmed))
    return status


def convert(references: Sequence[str]) -> int:
    """Convert each checkpoint for servers without PyTorch. A failure does not stop the others."""
    status = OK
    for reference in references:
        try:
            print(f"{reference}: {convert_checkpoint(reference)}")
        except ResidencyError as error:
            print(f"error: {reference}: {str(error).rstrip('.')}.", file=sys.stderr)
            status = FAILED
    return status


def check_plugins(names: Sequence[str]) -> int:
    """Check each part of the contract, and print the results, and how each strategy that keeps it decides."""
    from ..conformance import ContractBroken, checks_of, conduct_of  # imported here, because it imports the server

    checks = checks_of(*names)
    if not checks:
        raise PluginError(f"{', '.join(names)} registers no strategy and no loader, so there is nothing to check.")
    sound = dict.fromkeys(part.subject for part in checks if part.subject.kind == "strategy")
    broken = 0
    for part in checks:
        try:
            part()
            print(f"{part}: yes", flush=True)
        except ContractBroken as fault:
            broken += 1
            sound.pop(part.subject, None)
            print(f"{part}: NO. {str(fault)[:1].upper()}{str(fault)[1:]}.", flush=True)
    for strategy in sound:
        print(f"\n{conduct_text(conduct_of(strategy))}", flush=True)
    return FAILED if broken else OK
