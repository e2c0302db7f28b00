"""What is said beside a card's answer."""

from __future__ import annotations

from ...config.quantities import duration
from ...results.notes import (
    BackToBackProcessor,
    BackToBackWaiting,
    CheapestElsewhereUnknown,
    LatenciesMeasured,
    LeftOutForAnswers,
    LeftOutForCapacity,
    LeftOutForErrors,
    LeftOutForMemory,
    LeftOutForTarget,
    LoadCostUnknown,
    LoadDifference,
    LoadsPriced,
    MemoryLimit,
    NotCompared,
    NotPriced,
    OtherCharge,
    OtherCheapestAtTwice,
    RatesAtTwice,
    SizeFits,
    UnknownAbove,
    ValidGaps,
)
from ...results.recorded import PageCache
from ..format import count, listed, milliseconds, number, rate, target, whole_mib
from .economics import APART_FROM_WAITING, FROM, MEMORY, REUSED, floor_in_words, size_at_its_price
from .flips import senders
from .sentences import say


@say.register
def say_left_out_for_errors(finding: LeftOutForErrors) -> str:
    return f"{finding.label} is left out: it answered {finding.errors} requests with an error."


@say.register
def say_left_out_for_answers(finding: LeftOutForAnswers) -> str:
    return f"{finding.label} is left out: its answers differ from those of the others."


@say.register
def say_left_out_for_memory(finding: LeftOutForMemory) -> str:
    return f"{finding.label} is left out: it {say(finding.over)}."


@say.register
def say_left_out_for_target(finding: LeftOutForTarget) -> str:
    return f"{finding.label} is left out: it misses {target(finding.percentile, finding.target_ms)}."


@say.register
def say_left_out_for_capacity(finding: LeftOutForCapacity) -> str:
    return f"{finding.label} is left out: {say(finding.capacity)}."


@say.register
def say_not_compared(finding: NotCompared) -> str:
    return (
        f"{finding.label} is not compared: its models expire, so its cost depends on the gaps between requests. Give"
        " the experiment a 'workload'."
    )


@say.register
def say_valid_gaps(finding: ValidGaps) -> str:
    least = duration(finding.shorter_than_s)
    return f"The cost of {finding.label} is valid only if every gap between requests is shorter than {least}."


@say.register
def say_not_priced(finding: NotPriced) -> str:
    return f"{finding.label} cannot be priced: {say(finding.reason)}."


@say.register
def say_back_to_back_processor(finding: BackToBackProcessor) -> str:
    return "CPU time was measured with back-to-back requests; with pauses in between, a request usually takes more."


@say.register
def say_back_to_back_waiting(finding: BackToBackWaiting) -> str:
    return f"Waiting is priced as measured for {senders(finding.clients)}; fewer clients wait less."


@say.register
def say_unknown_above(finding: UnknownAbove) -> str:
    return f"Nothing is known of {finding.label} above that rate: {say(finding.capacity)}."


@say.register
def say_cheapest_elsewhere_unknown(finding: CheapestElsewhereUnknown) -> str:
    why = "its models expire in the gaps between requests, and other rates have other gaps"
    return f"It is unknown at which other rates {finding.label} stops being the cheapest: {why}."


@say.register
def say_other_cheapest_at_twice(finding: OtherCheapestAtTwice) -> str:
    where = f"from {rate(finding.start)} on" if finding.start else "at every rate"
    return f"At twice the price of memory, {finding.label} is the cheapest {where}."


@say.register
def say_rates_at_twice(finding: RatesAtTwice) -> str:
    return f"At twice the price of memory, the answer changes at {listed(list(map(rate, finding.rates)))}."


@say.register
def say_size_fits(finding: SizeFits) -> str:
    size = size_at_its_price(finding.size)
    labels = [each.label for each in finding.trials]
    most = [f"{number(each.per_hour)} ({each.label})" for each in finding.trials]
    fit = f"{labels[0]} needs the size of {size}"
    if len(labels) > 1:
        but = APART_FROM_WAITING if finding.waiting_costs else ""
        fit = f"{listed(labels)} fit the same size, {size}, and so cost the same{but}"
    return (
        f"{fit}. By the CPU time measured here, its cores can answer up to {listed(most)} requests an hour; latencies"
        " are those of this machine."
    )


@say.register
def say_loads_priced(finding: LoadsPriced) -> str:
    why = REUSED
    if finding.page_cache == "warm" and finding.billing == "average":
        why = "mapped pages are not charged and stay in the page cache"
    elif finding.page_cache == "warm":
        why = "the memory is paid for all the time and the pages stay in it"
    each = "; ".join(f"{load.label}: {_against(load, finding.measured)}" for load in finding.differences)
    return f"Loads are priced as loads from {FROM[finding.page_cache]}, because {why}{f' ({each})' if each else ''}."


def _against(load: LoadDifference, measured: PageCache) -> str:
    """How much more it takes than loads from where they were measured, as far as the rounds can show it."""
    if load.further_ms is None or load.further_processor_s is None:
        return f"no difference from {FROM[measured]} could be shown in {count(load.rounds, 'round')}"
    waiting, computing = load.further_ms, load.further_processor_s * 1e3
    longer = f"{milliseconds(abs(waiting))} {'longer' if waiting > 0 else 'shorter'}"
    more = f"{milliseconds(abs(computing))} {'more' if computing > 0 else 'less'} CPU time"
    return f"{longer} and {more} than from {FROM[measured]}"


@say.register
def say_latencies_measured(finding: LatenciesMeasured) -> str:
    return f"Reported latencies are as measured, with loads from {FROM[finding.page_cache]}."


@say.register
def say_load_cost_unknown(finding: LoadCostUnknown) -> str:
    wanted, measured = FROM[finding.page_cache], FROM["warm" if finding.page_cache == "cold" else "cold"]
    costs, lower = ("more", "lower") if finding.page_cache == "cold" else ("less", "higher")
    their = "its" if len(finding.labels) == 1 else "their"
    return (
        f"The cost of a load from {wanted} is unknown for {listed(finding.labels)} ({say(finding.reason)}), so {their}"
        f" loads are priced as measured, from {measured}. Loads from {wanted} cost {costs}, so keeping the model pays"
        f" from a {lower} rate than reported."
    )


@say.register
def say_memory_limit(finding: MemoryLimit) -> str:
    return f"The limit is {whole_mib(finding.limit_mib)} of resident memory. {floor_in_words(finding.floor)}"


@say.register
def say_other_charge(finding: OtherCharge) -> str:
    loads = f"; loads are then priced as loads from {FROM[finding.loads_from]}" if finding.loads_from else ""
    what = f"With 'charge: {finding.charge}' ({MEMORY[finding.charge]} is charged{loads})"
    return f"{what}, the answer is: {' '.join(map(say, finding.answer))}"
