"""What is said of a plan's notes: what was not measured, what is assumed instead, and what is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ...results.plan import PlanNote
from ...results.plan_findings import (
    EnginesAtATime,
    LoadPriceUnknown,
    LoadsBySize,
    LoadsFromDisk,
    LoadsPricedFrom,
    MemoryUncertain,
    ModelsAlmostFree,
    OtherRate,
    SettingLeftOut,
    Unmeasured,
)
from ..families import families
from ..format import count, decimals, number, percent
from .economics import FROM, REUSED
from .sentences import say

UNMEASURED = {
    "warm requests": "no request was warm; a warm forward pass is assumed to take as long as after a load.",
    "batches": "batches were not measured; each further text is assumed to cost as much as the first.",
    "unloads": "how long an unload takes was not measured; it is assumed to take no time.",
    "memory": "memory was not measured; an empty server is assumed to take none, and a model as much as its weights.",
    "memory of a model": (
        "only servers that hold the same number of models were measured; a model is assumed to take as much as its"
        " weights."
    ),
    "CPU time": (
        "CPU time was not measured; a load or a forward pass is assumed to use one core for as long as it lasts."
    ),
    "CPU time of loads": (
        "the CPU time of loads cannot be separated from that of requests; a load is assumed to use one core."
    ),
}


def notes_in_words(notes: Sequence[PlanNote]) -> list[str]:
    """A sentence for each; one for the settings of a loader that are left out and differ in one option."""
    left_out: defaultdict[str, dict[str, SettingLeftOut]] = defaultdict(dict)
    for note in notes:
        if isinstance(note.finding, SettingLeftOut):
            left_out[note.loader][note.finding.label] = note.finding
    said = [f"{loader}: {sentence}" for loader, found in left_out.items() for sentence in _left_out(found)]
    return [*said, *(say(note) for note in notes if not isinstance(note.finding, SettingLeftOut))]


@say.register
def say_plan_note(note: PlanNote) -> str:
    return f"{note.loader}: {say(note.finding)}"


@say.register
def say_unmeasured(finding: Unmeasured) -> str:
    return UNMEASURED[finding.what]


@say.register
def say_engines_at_a_time(finding: EnginesAtATime) -> str:
    each = ", ".join(f"{name} {most}" for name, most in finding.parallel.items())
    return (
        f"engines answer up to 'parallel' requests at a time ({each}), each in a time that was measured, however many"
        " tokens it has. Requests that come meanwhile wait for all of these, and so do those for other models."
    )


@say.register
def say_loads_from_disk(finding: LoadsFromDisk) -> str:
    return "each load came from disk (page_cache: cold)."


@say.register
def say_models_almost_free(finding: ModelsAlmostFree) -> str:
    per_weight = f"{decimals(finding.per_weight, 2)} MiB for each MiB of its weights"
    return f"keeping a model adds little or no charged memory: {per_weight}{_slopes(finding)}."


@say.register
def say_memory_uncertain(finding: MemoryUncertain) -> str:
    return (
        f"a MiB of weights takes {decimals(finding.per_weight, 2)} MiB of memory{_slopes(finding)}: the cost of holding"
        " a model is equally uncertain; more rounds would narrow it."
    )


@say.register
def say_load_price_unknown(finding: LoadPriceUnknown) -> str:
    wanted, effect = FROM[finding.page_cache], "higher" if finding.page_cache == "cold" else "lower"
    cost = f"the cost of a load from {wanted} is unknown ({say(finding.reason)})"
    return f"{cost}; it would be {effect} than is assumed here."


@say.register
def say_loads_priced_from(finding: LoadsPricedFrom) -> str:
    why = f", because {REUSED}" if finding.page_cache == "cold" else ""
    where = f"{FROM[finding.page_cache]}{why}"
    ms, core_ms = finding.further_ms, finding.further_processor_s * 1e3
    waiting = f"{decimals(abs(ms), 1)} ms {'longer' if ms >= 0 else 'shorter'}"
    computing = f"{decimals(abs(core_ms), 1)} ms {'more' if core_ms >= 0 else 'less'} CPU time"
    return (
        f"loads are priced as loads from {where}: {waiting} and {computing} each than the loads that requests waited"
        " for. Latencies are reported as measured."
    )


@say.register
def say_loads_by_size(finding: LoadsBySize) -> str:
    least, most = (f"{number(mib)}" for mib in finding.measured_mib)
    smallest, largest = finding.planned_mib
    beyond = smallest < finding.measured_mib[0] or largest > finding.measured_mib[1]
    return (
        f"a load takes {decimals(finding.start_ms, 1)} ms plus {decimals(finding.ms_per_mib, 3)} ms for each MiB of"
        f" weights; its CPU time is {decimals(finding.start_processor_ms, 1)} ms plus"
        f" {decimals(finding.processor_ms_per_mib, 3)} ms for each MiB. These lines are fitted to"
        f" {count(finding.models, 'model')} of {least} to {most} MiB; single loads take {percent(finding.spread)} more"
        f" or less (standard deviation). The plan's models have {number(smallest)} to {number(largest)} MiB"
        f"{'; beyond the measured sizes, the lines are extended' if beyond else ''}."
    )


@say.register
def say_other_rate(finding: OtherRate) -> str:
    return (
        f"the CPU time of a request was measured at {number(finding.measured)} requests a second, and is used here for"
        f" {number(finding.here)}: it depends on the rate. A run with this workload measures it."
    )


@say.register
def say_setting_left_out(finding: SettingLeftOut) -> str:
    return f"{finding.label} is left out: {finding.reason}."


def _left_out(found: Mapping[str, SettingLeftOut]) -> Iterator[str]:
    """A sentence for the settings that differ in one option: the reasons are alike, so it gives that of the first."""
    for family, (first, *others) in families(found).items():
        if others:
            yield f"{family} are left out, {first} for example: {found[first].reason}."
        else:
            yield say(found[first])


def _slopes(finding: ModelsAlmostFree | MemoryUncertain) -> str:
    """The interval, and the rounds that it is of."""
    if finding.ci95 is None:
        return ""
    low, high = finding.ci95
    return f" (95 % interval {decimals(low, 2)} to {decimals(high, 2)}, {finding.rounds} rounds)"
