"""What is said of the targets of `slo`."""

from __future__ import annotations

from ...results.figures import Target
from ...results.run_findings import TargetResult, TargetRoundsMissing
from ...results.shortfalls import (
    NoRequests,
    ProcessWithoutAnswer,
    RequestsTooFew,
    RoundsTooFew,
    SomeProcessesMiss,
    TargetMissed,
    TrialTarget,
)
from ...stats.intervals import VERDICT_ROUNDS
from ..format import decimals, missing, percent, target
from .rounds import say_all_processes_met
from .sentences import say


@say.register
def say_target_result(finding: TargetResult) -> str:
    found = finding.target
    name = target(found.percentile, found.target_ms)
    start = f"{finding.trial} misses {name}" if found.verdict == "missed" else f"{finding.trial}, {name}"
    between = found.share_ci95
    within = f" (95 % interval {percent(between[0], 2)} to {percent(between[1], 2)})" if between else ""
    return (
        f"{start}: {_within(found.share_within or 0.0)}{within},"
        f" {decimals(found.goodput_rps, 1)} such answers a second{_processes(found)}."
    )


def _processes(found: Target) -> str:
    """What is known of the processes, which may differ: how many met the target, and what that says of others."""
    met, rounds = found.processes_met, found.rounds
    if found.verdict == "met":
        return f". {say_all_processes_met(rounds, found.processes_least or 0.0)}"
    if found.verdict != "not settled":
        return ""
    if met == rounds:
        further = found.further_rounds
        more = f"; about {further} more rounds without a miss would be" if further else ""
        return f". All {rounds} server processes met it, which is not yet proof{more}"
    return f". {met} of {rounds} server processes met it, so this is not settled; find out why the others did not"


@say.register
def say_target_rounds_missing(finding: TargetRoundsMissing) -> str:
    return f"Judging a target needs {VERDICT_ROUNDS} rounds; {missing(finding.rounds)}."


@say.register
def say_no_requests(shortfall: NoRequests) -> str:
    wanted = shortfall.target
    return f"{wanted.trial} has no requests in a finished round, so {_name(wanted)} cannot be judged."


@say.register
def say_target_missed(shortfall: TargetMissed) -> str:
    wanted = shortfall.target
    return f"{wanted.trial} misses {_name(wanted)}: {_within(shortfall.share_within)}."


@say.register
def say_process_without_answer(shortfall: ProcessWithoutAnswer) -> str:
    wanted = shortfall.target
    return f"{wanted.trial} cannot be judged against {_name(wanted)}: one of its server processes answered no request."


@say.register
def say_rounds_too_few(shortfall: RoundsTooFew) -> str:
    wanted = shortfall.target
    return (
        f"{wanted.trial} has too few rounds to judge {_name(wanted)}: {VERDICT_ROUNDS} are needed, it has"
        f" {shortfall.rounds}."
    )


@say.register
def say_some_processes_miss(shortfall: SomeProcessesMiss) -> str:
    wanted = shortfall.target
    return (
        f"{wanted.trial} may miss {_name(wanted)}: {shortfall.missed} of {shortfall.rounds} server processes missed it,"
        f" although {_within(shortfall.share_within)}."
    )


@say.register
def say_requests_too_few(shortfall: RequestsTooFew) -> str:
    wanted, (low, high) = shortfall.target, shortfall.share_ci95
    return (
        f"{wanted.trial} may miss {_name(wanted)}: {_within(shortfall.share_within)} (95 % interval {percent(low, 2)}"
        f" to {percent(high, 2)}); more rounds would decide it."
    )


def _name(wanted: TrialTarget) -> str:
    return target(wanted.percentile, wanted.target_ms)


def _within(share: float) -> str:
    return f"{percent(share, 2)} of the requests are within it"
