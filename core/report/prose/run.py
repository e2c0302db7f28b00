"""What is said of a run, besides its table and its card."""

from __future__ import annotations

from collections.abc import Sequence

from ...advice.findings import findings
from ...results.figures import TooFew
from ...results.records import NarrowIntervals
from ...results.run_findings import (
    ColdRequestTime,
    LoadedFromDisk,
    LoadingAdds,
    MemoryLeaks,
    MemoryReturned,
    PartlyCold,
    PrecisionMissed,
    RanOnMachines,
    RequestsFailed,
    RoundsUnfinished,
    SharedByNodes,
    StoppedEarly,
)
from ...results.summary import Failed, Measurements
from ...results.warnings import WARNINGS, ApartAnswer, Disagreement
from ..format import MISSING, listed, milliseconds, percent, widths
from .sentences import say

DOUBTS = (Disagreement, ApartAnswer, Failed, RequestsFailed, RoundsUnfinished, MemoryLeaks, *WARNINGS)
"""What is marked as a warning."""


def answer_in_words(summary: Measurements) -> list[str]:
    """Sentences: what failed, which the table does not show, then the answer, then other doubts."""
    return [f"Warning: {say(each)}" if isinstance(each, DOUBTS) else say(each) for each in findings(summary)]


@say.register
def say_too_few(reason: TooFew) -> str:
    return f"needs {reason.needed} {reason.unit} and has {reason.found}"


@say.register
def say_failed(finding: Failed) -> str:
    return f"{finding.trial} failed in round {finding.round + 1}: {finding.reason}"


@say.register
def say_requests_failed(finding: RequestsFailed) -> str:
    why = f": {finding.error.rstrip('.')}" if finding.error else ""
    log = f" The server's log says: {finding.log.rstrip('.')}." if finding.log else ""
    return f"{finding.trial} answered {finding.errors} requests with an error{why}.{log} See server.log."


@say.register
def say_rounds_unfinished(finding: RoundsUnfinished) -> str:
    return f"{finding.rounds} of {finding.due} rounds of {finding.trial} did not run to the end."


@say.register
def say_loading_adds(finding: LoadingAdds) -> str:
    kept, loaded = finding.kept_ms, finding.loaded_ms
    private = ""
    if finding.private_mib is not None:
        private = (
            f" Keeping the model takes {finding.private_mib:.0f} MiB of private memory,"
            f" {percent(finding.private_mib / finding.weights_mib)} of the weights."
        )
    return (
        f"{finding.loader} ({finding.dtype}): p50 is {milliseconds(kept)} with the model kept in memory and"
        f" {milliseconds(loaded)} if it is loaded for every request ({milliseconds(max(0.0, loaded - kept))} more)."
        f"{private}"
    )


@say.register
def say_cold_request_time(finding: ColdRequestTime) -> str:
    whose = f" ({finding.trial})" if finding.trial is not None else ""
    split = ", ".join(f"{name} {milliseconds(ms)}" for name, ms in finding.phases_ms.items())
    return (
        f"Of the median {milliseconds(finding.answer_ms)} of a request with a load{whose}, the load takes"
        f" {milliseconds(finding.load_ms)}{f' ({split})' if split else ''} and the forward pass"
        f" {milliseconds(finding.forward_ms)}."
    )


@say.register
def say_partly_cold(finding: PartlyCold) -> str:
    slow, quick = (MISSING if ms is None else milliseconds(ms) for ms in (finding.cold_ms, finding.warm_ms))
    return (
        f"Under {finding.trial}, {percent(finding.share)} of the requests waited for a load: p50 is {slow} for these"
        f" and {quick} for the others."
    )


@say.register
def say_shared_by_nodes(finding: SharedByNodes) -> str:
    full = finding.most_of_budget
    held = "" if full is None else f" At its fullest, a node's memory_budget was {percent(full)} used."
    nodes = f"the {finding.nodes} nodes" if finding.nodes > 1 else "the one node"
    what = f"The busiest of {nodes} of {finding.trial}, {finding.busiest},"
    return f"{what} answered {percent(finding.share)} of the requests.{held}"


@say.register
def say_memory_returned(finding: MemoryReturned) -> str:
    measured = finding.measured
    slope, interval = measured.slope_mib_per_cycle, measured.slope_ci95
    within = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return (
        f"After {measured.cycles} loads, {finding.trial} has returned {percent(measured.returned_share, 1)} of the"
        f" {measured.weights_mib:.0f} MiB of weights; its memory grows by {slope:.3f} MiB with each load{within}."
    )


@say.register
def say_memory_leaks(finding: MemoryLeaks) -> str:
    return f"{finding.trial} does not give its memory back; find out what keeps it."


@say.register
def say_loaded_from_disk(_: LoadedFromDisk) -> str:
    return "Whenever a request waited for a load, the checkpoint came from disk, not from the page cache."


@say.register
def say_ran_on_machines(finding: RanOnMachines) -> str:
    where = [f"{each.name} ({_rounds(each.rounds)})" for each in finding.machines]
    if len(where) == 1:
        return f"Each round ran on {finding.machines[0].name}."
    unlike = "" if finding.are_alike else " They are not alike, so figures in milliseconds differ from round to round."
    return f"The rounds ran on {listed(where)}; trials are compared within a round.{unlike}"


def _rounds(numbers: Sequence[int]) -> str:
    return f"round{'' if len(numbers) == 1 else 's'} {listed([str(number + 1) for number in numbers])}"


@say.register
def say_stopped_early(finding: StoppedEarly) -> str:
    reason = finding.reason if isinstance(finding.reason, str) else say(finding.reason)
    return f"The run ended before its {finding.rounds_planned} rounds: {reason}"


@say.register
def say_narrow_intervals(reason: NarrowIntervals) -> str:
    what = "the mean latency" if reason.relative_to is None else f"p50 relative to {reason.relative_to}"
    return (
        f"After {reason.rounds} rounds, the interval of {what} is no wider than {percent(reason.precision, 1)}:"
        f" {widths(reason.widths)}."
    )


@say.register
def say_precision_missed(finding: PrecisionMissed) -> str:
    found = f" The widest intervals: {widths(finding.widths)}." if finding.widths else ""
    return f"The precision of {percent(finding.precision, 1)} was not reached.{found} Raise 'repeats'."
