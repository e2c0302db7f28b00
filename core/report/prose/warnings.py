"""What is said of what casts doubt on a run, each with a remedy."""

from __future__ import annotations

from ...results.warnings import (
    ApartAnswer,
    ConstantAnswers,
    Disagreement,
    DtypeFallback,
    GeneratorBound,
    LoaderFallback,
    NoisyMachine,
    OtherLabels,
    OutlyingMemory,
    OutlyingRounds,
    SlowFirstRound,
    TooFewForTarget,
    TooFewSamples,
    Trend,
)
from ..format import percent
from .economics import MEMORY
from .sentences import say


@say.register
def say_slow_first_round(warning: SlowFirstRound) -> str:
    return (
        f"{warning.trial}: the first round took {percent(warning.longer)} longer than the median round."
        " Do a warm-up run first, so that caches are as warm for it as for the others."
    )


@say.register
def say_outlying_rounds(warning: OutlyingRounds) -> str:
    return (
        f"{warning.trial}: {_numbers(warning.rounds)} far from the others ({warning.mean_ms:.1f} ms on"
        f" average; the median round has {warning.median_ms:.1f} ms). Look for what else ran then, and run again on a"
        " quiet machine."
    )


@say.register
def say_outlying_memory(warning: OutlyingMemory) -> str:
    return (
        f"{warning.trial}: {_numbers(warning.rounds)} far from the others in memory between requests"
        f" ({warning.mib:.0f} MiB of {MEMORY[warning.memory]}; the median round has {warning.median_mib:.0f} MiB)."
        " Look for what the server did then, or what shared its files, and run again."
    )


@say.register
def say_noisy_machine(warning: NoisyMachine) -> str:
    return (
        f"{warning.trial}: the machine is noisy: the mean latency varies by {percent(warning.deviation)} (standard"
        " deviation) from round to round. End what else runs, fix the processor's frequency, or run more rounds."
    )


@say.register
def say_generator_bound(warning: GeneratorBound) -> str:
    return (
        f"{warning.trial}: the load generator is near its limit ({warning.cores:.2f} cores,"
        f" {percent(warning.late_share, 2)} of the sends late), so the figures include its own delays. Lower the rate,"
        " use fewer clients, or give the machine more cores."
    )


@say.register
def say_too_few_samples(warning: TooFewSamples) -> str:
    return (
        f"{warning.trial}: p50 cannot be compared: it needs {warning.needed} answered requests in each round, and one"
        f" has {warning.found}. Raise 'repetitions', or the workload's duration."
    )


@say.register
def say_too_few_for_target(warning: TooFewForTarget) -> str:
    return (
        f"{warning.trial}: {warning.percentile} needs {warning.needed} requests and has {warning.found}."
        " Raise 'repetitions', the workload's duration, or 'repeats'."
    )


@say.register
def say_trend(warning: Trend) -> str:
    remedy = (
        "If a queue is growing, lower the rate; otherwise look for what accumulates in the server."
        if warning.change > 0
        else "It is still warming up: make the trials longer."
    )
    return (
        f"{warning.trial}: latency changes by {warning.change:+.0%} from the first half of a trial to the second."
        f" {remedy}"
    )


@say.register
def say_constant_answers(warning: ConstantAnswers) -> str:
    return (
        f"{warning.trial}: '{warning.model}' gives the same answer to all {warning.texts} texts ({warning.label}"
        f" {warning.score:.4g}), so agreement between trials proves nothing. Check that its weights come from a trained"
        " model."
    )


@say.register
def say_dtype_fallback(warning: DtypeFallback) -> str:
    return f"{warning.trial}: it computed in {warning.used}, not in {warning.asked}; the server's log says why."


@say.register
def say_loader_fallback(warning: LoaderFallback) -> str:
    used = ", ".join(warning.used)
    return f"{warning.trial}: its models were loaded as '{used}' loads them; the server's log says why."


@say.register
def say_other_labels(warning: OtherLabels) -> str:
    return (
        f"{warning.trial}: {warning.same} of {warning.answers} answers ({percent(warning.same / warning.answers, 1)})"
        f" have the label that {warning.other} gives, less than {percent(warning.least_share)}. In"
        f" {warning.computed_in} it is in effect a different model from the one in {warning.other_computed_in}:"
        " measure on texts of your own how often each is right."
    )


@say.register
def say_disagreement(found: Disagreement) -> str:
    return (
        f"the answers differ: {found.trial} answers text {found.text + 1} with {found.label} {found.score:.6f}, but"
        f" {found.other} answers {found.other_label} {found.other_score:.6f}."
    )


@say.register
def say_apart_answer(found: ApartAnswer) -> str:
    return (
        f"the answers differ: to text or request {found.text + 1} for '{found.model}', {found.trial} gives another"
        " answer than the run's first one, which is in answers.jsonl (their distance is"
        f" {found.apart:.1f}; above 1 they differ)."
    )


def _numbers(rounds: list[int]) -> str:
    """`round 2 is`, `rounds 2, 5 are`, counted from 1."""
    numbers = ", ".join(str(number + 1) for number in rounds)
    return f"round {numbers} is" if len(rounds) == 1 else f"rounds {numbers} are"
