"""What the commands do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..advice.summary import summarise
from ..bench.convert import converted
from ..bench.describe import describe, long_run
from ..bench.experiment import HAS_A_RATE, Plan, load_experiment
from ..bench.resume import check_checkpoints, plan_of
from ..bench.run import (
    begin,
    look_up,
    prepare,
    run_trials,
)
from ..errors import (
    FileError,
    PluginError,
    ResidencyError,
    ResultsError,
    YamlError,
)
from ..names import COMMAND
from ..planning.candidates import candidates
from ..planning.confirm import check, errors, write_experiment
from ..planning.plan import plan_of_settings
from ..planning.plan_file import load_plan
from ..report.export import export as export_run
from ..report.progress import RunProgress
from ..results.folder import Records, new_folder, read_records
from ..results.header import RunHeader
from ..stats.rounds import arrange
from ..stats.stopping import precise_enough
from .results_folder import (
    OlderRun,
    ReportOptions,
    compare_runs,
    warn_of_differences,
    write_environment,
    write_plan,
    write_run,
)

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(plan: Plan, output: Path, options: ReportOptions) -> int:
    """Measure in a new folder, then report."""
    folder, checkpoints = start(plan, output)
    return measure(plan, checkpoints, folder, options)


def describe_run(plan: Plan) -> int:
    """Print what a run of the experiment would do."""
    print(describe(plan, look_up(plan)))
    return OK


def start(plan: Plan, output: Path) -> tuple[Path, Mapping[str, Path]]:
    """Make a new folder that says what is run. Returns it, and the checkpoints by model id."""
    checkpoints, digests = prepare(plan)
    folder = new_folder(output, plan.experiment.name)
    write_environment(folder)
    begin(plan, checkpoints, digests, folder)
    return folder, checkpoints


def measure(plan: Plan, checkpoints: Mapping[str, Path], folder: Path, options: ReportOptions) -> int:
    """Measure whatever the folder lacks, then report; an interrupted run is reported as far as it came."""
    precision = plan.experiment.precision

    def enough(number: int) -> str | None:
        """Why no round is needed after that one."""
        if precision is None:
            return None
        return precise_enough(arrange(read_records(folder, rounds=number + 1)), precision)

    with Records(folder) as records:
        past = read_records(folder)
        left = past.rounds_due * len(plan.trials) - len(past.settled)
        if warning := long_run(plan, left):
            print(warning, file=sys.stderr)
        try:
            with RunProgress(plan.experiment.repeats, left, (plan.requests or 0) + 1) as progress:
                run_trials(plan, checkpoints, records, progress, past, enough)
        except KeyboardInterrupt:
            print(f"Interrupted. All finished trials are kept; to continue: {COMMAND} resume {folder}", file=sys.stderr)
            write_run(folder, options)
            return INTERRUPTED
    return OK if write_run(folder, options) else FAILED


def resume(folder: Path, options: ReportOptions) -> int:
    """Measure what an earlier run did not come to, then report."""
    with _named_by_the_user():
        header = read_records(folder).header
        _check_header(options, header)
        plan = plan_of(folder, header)
        checkpoints, digests = prepare(plan)
        check_checkpoints(folder, header, digests)
        warn_of_differences(folder)
        return measure(plan, checkpoints, folder, options)


def report(folder: Path, options: ReportOptions) -> int:
    """Report a run anew."""
    with _named_by_the_user():
        _check_header(options, read_records(folder).header)
        return OK if write_run(folder, options) else FAILED


def export(folder: Path, output: Path) -> int:
    """Write a run's requests, figures and table into `output`, for other tools."""
    with _named_by_the_user():
        run = arrange(read_records(folder))
    output.mkdir(parents=True, exist_ok=True)
    print(*export_run(run, summarise(run), output), sep="\n")
    return OK


def compare(older: OlderRun, newer: Path, tolerance: float) -> int:
    """Print what changed between two runs."""
    with _named_by_the_user():
        changed = compare_runs(older, newer, arrange(read_records(newer)), tolerance)
    print(*changed.sentences, sep="\n")
    return FAILED if changed.regressed else OK


@contextmanager
def _named_by_the_user() -> Iterator[None]:
    """A folder that the user named and that holds no run is bad input; one that cannot be written is not."""
    try:
        yield
    except ResultsError as error:
        raise FileError(str(error)) from error


def _check_header(options: ReportOptions, header: RunHeader) -> None:
    check_targets(options, header.slo)
    if options.rate and header.states_a_rate:
        raise YamlError(HAS_A_RATE)


def check_targets(options: ReportOptions, slo: object) -> None:
    """Raises YamlError where the exit status is to depend on targets, and there are none."""
    if options.exit_on_slo and not slo:
        raise YamlError("--exit-on-slo: the experiment has no 'slo'; add targets to it, such as slo: {p99: 200ms}.")


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
    status = measure(experiment, checkpoints, measured, ReportOptions())
    if status == INTERRUPTED or experiment.traffic is None:
        return status
    confirmed = errors(planned, found, experiment.traffic, arrange(read_records(measured)))
    write_plan(folder, plan_of_settings(planned, found, too_large, confirmed))
    return status


def convert(references: Sequence[str]) -> int:
    """Convert each checkpoint for servers that have no PyTorch; one that fails does not stop the others."""
    status = OK
    for reference in references:
        try:
            print(f"{reference}: {converted(reference)}")
        except ResidencyError as error:
            print(f"error: {reference}: {str(error).rstrip('.')}.", file=sys.stderr)
            status = FAILED
    return status


def check_plugins(names: Sequence[str]) -> int:
    """Report for each part of the contract whether these plugins keep it."""
    from ..conformance import Broken, checks_of  # which takes what a server takes

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
