"""What there is to say of a run, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..costs.break_even import SAME_MIB
from ..results.comparisons import Comparison, Statistic, StatisticName
from ..results.figures import TrialFigures
from ..results.run_findings import (
    ColdRequestTime,
    Compared,
    ComparedFigure,
    JointVerdicts,
    LoadedFromDisk,
    LoadingAdds,
    MeasuredOnly,
    MemoryLeaks,
    MemoryReturned,
    MemoryUnknown,
    NotSeparable,
    PartlyCold,
    PrecisionMissed,
    RanOnMachines,
    RequestsFailed,
    RoundsUnfinished,
    RunFinding,
    SameMemory,
    Separable,
    SharedByNodes,
    StoppedEarly,
    TargetResult,
    TargetRoundsMissing,
    VerdictRoundsMissing,
)
from ..results.summary import Measurements
from ..stats.intervals import VERDICT_ROUNDS

KEPT, LOADED = 0.0, 1.0  # shares of cold requests: none waited for a load, or each did


def findings(summary: Measurements) -> list[RunFinding]:
    """What failed, which the table does not show, then the answer, then other doubts."""
    trials = [trial for trial in summary.trials if trial.latency_ms.p50 is not None]
    return [
        *_failures(summary),
        *_loaders(trials),
        *compared(summary),
        *targets(summary),
        *_cold_request_time(trials),
        *(finding for trial in trials for finding in _partly_cold(trial)),
        *(finding for trial in trials for finding in _by_node(trial)),
        *(finding for trial in summary.trials for finding in _memory_return(trial)),
        *_from_disk(summary),
        *_machines(summary),
        *ending(summary),
        *summary.warnings,
    ]


def _failures(summary: Measurements) -> Iterator[RunFinding]:
    yield from summary.disagreements
    yield from summary.failures
    for trial in summary.trials:
        if trial.errors:
            yield RequestsFailed(trial=trial.label, errors=trial.errors, error=trial.error, log=trial.log)
        failed = sum(failure.trial == trial.label for failure in summary.failures)
        unfinished = summary.rounds_due - trial.rounds - failed
        if unfinished > 0:
            yield RoundsUnfinished(trial=trial.label, rounds=unfinished, due=summary.rounds_due)


def _loaders(trials: Sequence[TrialFigures]) -> Iterator[LoadingAdds]:
    """What loading adds under each loader that was measured with and without it, if there are several."""
    by_loader: dict[str, dict[float | None, TrialFigures]] = {}
    for trial in trials:
        loader = f"{trial.loader} {trial.loader_options} {trial.cluster}"
        by_loader.setdefault(loader, {}).setdefault(trial.cold.share, trial)
    pairs = [(found[KEPT], found[LOADED]) for found in by_loader.values() if {KEPT, LOADED} <= set(found)]
    for kept, loaded in pairs if len(pairs) > 1 else []:
        held, freed = kept.memory_mib.idle_private, loaded.memory_mib.idle_private
        is_known = held is not None and freed is not None and kept.weights_mib
        yield LoadingAdds(
            loader=kept.loader,
            dtype=kept.dtype,
            kept_ms=kept.latency_ms.p50 or 0.0,
            loaded_ms=loaded.latency_ms.p50 or 0.0,
            private_mib=max(0.0, (held or 0.0) - (freed or 0.0)) if is_known else None,
            weights_mib=kept.weights_mib,
        )


def compared(summary: Measurements) -> Iterator[RunFinding]:
    """Each comparison of a trial with the first of the file, and how sure all of them are."""
    trials = {trial.label: trial for trial in summary.trials}
    pairs = [pair for pair in summary.comparisons if pair.against == summary.trials[0].label and pair.rounds]
    for pair in pairs:
        for name in pair.told:
            yield _compared(name, pair, trials[pair.trial], trials[pair.against])
        if "idle_pss" not in pair.told:
            yield MemoryUnknown(trial=pair.trial)
    lacking = max((VERDICT_ROUNDS - pair.rounds for pair in pairs), default=0)
    if lacking > 0:
        yield VerdictRoundsMissing(rounds=lacking)
    judged = sum(pair.statistics[name].verdict is not None for pair in pairs for name in pair.told)
    if judged > 1:
        yield JointVerdicts(verdicts=judged)


def _compared(name: StatisticName, pair: Comparison, one: TrialFigures, other: TrialFigures) -> RunFinding:
    """The verdict on one statistic, or its figures."""
    found = pair.statistics[name]
    both = Compared(
        trial=one.label,
        against=other.label,
        name=name,
        ours=_figure(name, one),
        theirs=_figure(name, other),
        statistic=found,
    )
    if found.verdict is None:
        return MeasuredOnly(compared=both)
    if name == "idle_pss" and _is_same_memory(both):
        return SameMemory(compared=both)
    if found.verdict == "not separable":
        return NotSeparable(compared=both, is_separable_alone=_is_separable_alone(found))
    return Separable(compared=both)


def _figure(name: StatisticName, trial: TrialFigures) -> ComparedFigure:
    """The trial's own figure; of a latency, with the share of cold requests if both kinds occurred."""
    latency, share = trial.latency_ms, trial.cold.share
    values = {
        "p50": latency.p50,
        "mean": latency.mean,
        "p99": latency.p99,
        "throughput": trial.throughput_rps,
        "idle_pss": trial.memory_mib.idle_pss,
        "idle_private": trial.memory_mib.idle_private,
        "cold_share": share,
        "loads_per_request": trial.loads_per_request,
    }
    is_mixed = name in ("p50", "mean", "p99") and share is not None and 0 < share < 1
    return ComparedFigure(value=values[name] or 0.0, cold_share=share if is_mixed else None)


def _is_same_memory(both: Compared) -> bool:
    """Whether the whole interval lies within a MiB."""
    return all(abs(bound - 1) * both.theirs.value < SAME_MIB for bound in both.statistic.ci95 or ())


def _is_separable_alone(found: Statistic) -> bool:
    """Whether the interval excludes that both are the same."""
    low, high = found.ci95 or (0.0, 0.0)
    return not low <= (0 if found.ratio is None else 1) <= high


def targets(summary: Measurements) -> Iterator[TargetResult | TargetRoundsMissing]:
    """How far each trial meets the targets of `slo`."""
    lacking = 0
    for trial in summary.trials:
        for target in trial.slo:
            if target.share_within is not None:
                yield TargetResult(trial=trial.label, target=target)
                lacking = max(lacking, target.further_rounds or 0 if target.verdict is None else 0)
    if lacking:
        yield TargetRoundsMissing(rounds=lacking)


def _cold_request_time(trials: Sequence[TrialFigures]) -> Iterator[ColdRequestTime]:
    """Where the time of a load goes, under the first trial that loads for every request."""
    found = [trial for trial in trials if trial.cold.share == LOADED]
    phases = {name: ms for name, ms in found[0].cold.phases_ms.items() if ms is not None} if found else {}
    if phases.get("load"):
        yield ColdRequestTime(
            trial=found[0].label if len(found) > 1 else None,
            answer_ms=phases["answer"],
            load_ms=phases["load"],
            phases_ms={name.removeprefix("load-"): ms for name, ms in phases.items() if name.startswith("load-")},
            forward_ms=phases["inference"],
        )


def _partly_cold(trial: TrialFigures) -> Iterator[PartlyCold]:
    share = trial.cold.share
    if share is not None and 0 < share < 1:
        cold, warm = trial.cold.latency_ms.p50, trial.warm.latency_ms.p50
        yield PartlyCold(trial=trial.label, share=share, cold_ms=cold, warm_ms=warm)


def _by_node(trial: TrialFigures) -> Iterator[SharedByNodes]:
    """How even the nodes of a cluster were, and how full."""
    known = [(node.share, node.node) for node in trial.nodes or () if node.share is not None]
    if trial.nodes and known:
        share, busiest = max(known)
        full = [node.most_of_budget for node in trial.nodes if node.most_of_budget is not None]
        most = max(full) if len(full) == len(trial.nodes) else None
        yield SharedByNodes(
            trial=trial.label, nodes=len(trial.nodes), busiest=busiest, share=share, most_of_budget=most
        )


def _memory_return(trial: TrialFigures) -> Iterator[MemoryReturned | MemoryLeaks]:
    """How much memory came back over many loads, if that was measured."""
    if trial.memory_return is not None:
        yield MemoryReturned(trial=trial.label, measured=trial.memory_return)
        if trial.memory_return.leaks:
            yield MemoryLeaks(trial=trial.label)


def _from_disk(summary: Measurements) -> Iterator[LoadedFromDisk]:
    if summary.page_cache == "cold" and any(trial.cold.share for trial in summary.trials):
        yield LoadedFromDisk()


def _machines(summary: Measurements) -> Iterator[RanOnMachines]:
    if summary.machines:
        kinds = {(each.processor, each.cores, each.memory_mib, each.commit) for each in summary.machines}
        yield RanOnMachines(machines=summary.machines, are_alike=len(kinds) == 1)


def ending(summary: Measurements) -> Iterator[StoppedEarly | PrecisionMissed]:
    """Why the run ended before its cap, or what `precision` still lacks."""
    if summary.stopped:
        yield StoppedEarly(rounds_planned=summary.rounds_planned, reason=summary.stopped.reason)
    elif summary.precision:
        wide = {label: width for label, width in (summary.widths or {}).items() if width > summary.precision}
        yield PrecisionMissed(precision=summary.precision, widths=wide)
