"""What casts doubt on a run. Every threshold is named, and says where it comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from ..results.header import TrialSpec
from ..results.records import OK
from ..results.warnings import (
    ConstantAnswers,
    DtypeFallback,
    GeneratorBound,
    LoaderFallback,
    NoisyMachine,
    OutlyingMemory,
    OutlyingRounds,
    RunWarning,
    SlowFirstRound,
    TooFewForTarget,
    TooFewSamples,
    Trend,
)
from .agreement import Answer, apart
from .estimates import percentile, samples_for
from .intervals import VERDICT_ROUNDS, interval, typical
from .rounds import AsUsed, Round, Run, generator
from .slo import quantile

MATTERS = 0.05  # a deviation or a trend below 5 % is left alone, however certain it is
NOISY = 0.10  # pyperf calls a benchmark unstable when its standard deviation reaches 10 % of the mean
ALIKE = 1e-6  # scores that are no further apart are the same
FEWEST = 3  # rounds of which a standard deviation says something
# hyperfine's: ten standard deviations by Iglewicz and Hoaglin's modified z-score ("How to Detect and Handle
# Outliers", 1993); 1.4826 makes the median absolute deviation an estimate of a standard deviation.
OUTLIER = 10 * 1.4826
FEWEST_IN_HALF = 10  # requests of a median
GENERATOR_CORES = 0.5  # beyond half a core the generator takes from the server what it measures
GENERATOR_LATE = 0.005  # half of the share of late sends that makes a trial invalid


def warnings(run: Run) -> list[RunWarning]:
    """What casts doubt on each trial."""
    found: list[RunWarning] = []
    # The rate of a trace changes by itself, and latency with it.
    checks = [check for check in CHECKS if check is not trend or not _replays(run)]
    for label in run.labels:
        rounds = run.finished(label)
        for check in checks:
            found += check(label, rounds)
        found += fallback(run.spec(label), run.used[label])
        found += too_few_for_target(label, rounds, run.header.slo or {})
    return found


def slow_first_round(label: str, rounds: Sequence[Round]) -> Iterator[SlowFirstRound]:
    """The first round's mean latency is an outlier among the rounds' on the slow side, and by over 5 %."""
    means = _means(rounds)
    if means and rounds[0].number == 0 and 0 in _outliers(means) and means[0] > np.median(means):
        yield SlowFirstRound(trial=label, longer=means[0] / float(np.median(means)) - 1)


def outliers(label: str, rounds: Sequence[Round]) -> Iterator[OutlyingRounds]:
    """Another round's mean latency is an outlier: modified z-score over 14.826, and over 5 % from the median."""
    means = _means(rounds)
    slow_first = any(slow_first_round(label, rounds))
    odd = [index for index in _outliers(means) if not (index == 0 and slow_first)]
    if odd:
        numbers = [rounds[index].number for index in odd]
        yield OutlyingRounds(trial=label, rounds=numbers, mean_ms=means[odd[0]], median_ms=float(np.median(means)))


def memory_outliers(label: str, rounds: Sequence[Round]) -> Iterator[OutlyingMemory]:
    """A round's idle memory, private or PSS, is an outlier among the rounds', in either direction, by over 10 %."""
    kinds: tuple[Literal["private", "pss"], ...] = ("private", "pss")
    for kind in kinds:
        known = [(each, mib) for each in rounds if (mib := each.ended.memory_mib.idle(kind)) is not None]
        values = [mib for _, mib in known]
        if odd := _outliers(values, NOISY):
            yield OutlyingMemory(
                trial=label,
                rounds=[known[index][0].number for index in odd],
                memory=kind,
                mib=values[odd[0]],
                median_mib=float(np.median(values)),
            )
            return


def noisy_machine(label: str, rounds: Sequence[Round]) -> Iterator[NoisyMachine]:
    """From 3 rounds on: their mean latencies have a standard deviation of at least 10 % of their mean.

    Not reported if single rounds explain it.
    """
    means = _means(rounds)
    if len(means) < FEWEST or _outliers(means):
        return
    deviation = float(np.std(means, ddof=1) / np.mean(means))
    if deviation >= NOISY:
        yield NoisyMachine(trial=label, deviation=deviation)


def generator_bound(label: str, rounds: Sequence[Round]) -> Iterator[GeneratorBound]:
    """In some round the generator took over half a core, or over 0.5 % of its sends were late."""
    worst = generator(rounds)
    if worst and (worst.cores > GENERATOR_CORES or worst.late_share > GENERATOR_LATE):
        yield GeneratorBound(trial=label, cores=worst.cores, late_share=worst.late_share)


def too_few_samples(label: str, rounds: Sequence[Round]) -> Iterator[TooFewSamples]:
    """A finished round has fewer than 20 answered requests: it has no p50, so nothing compares p50."""
    short = [len(each.answered) for each in rounds if len(each.answered) < samples_for(0.5)]
    if short:
        yield TooFewSamples(trial=label, needed=samples_for(0.5), found=min(short))


def trend(label: str, rounds: Sequence[Round]) -> Iterator[Trend]:
    """Within the trials, latency rises or falls: p50 of the second half against the first, over rounds.

    Only the warm or only the cold requests count, whichever are more. The interval of the ratio
    over at least 5 rounds excludes 1, and the ratio is over 5 % from 1.
    """
    logs = [log for each in rounds if (log := _halves(each)) is not None]
    if len(logs) < VERDICT_ROUNDS:
        return
    low, high, _ = interval(logs)
    change = float(np.exp(typical(logs))) - 1
    if not low <= 0 <= high and abs(change) > MATTERS:
        yield Trend(trial=label, change=change)


def constant_answers(label: str, rounds: Sequence[Round]) -> Iterator[ConstantAnswers]:
    """A model gave the same scores to all of several texts: no comparison of answers can find a fault in it."""
    answers: defaultdict[str, dict[int, Answer]] = defaultdict(dict)
    for each in rounds:
        for sample in each.samples:
            if sample.status == OK and sample.answer:
                answers[sample.model].setdefault(sample.text, sample.answer)
    for model, by_text in answers.items():
        first, *others = by_text.values()
        if others and all(apart(first, other, len(first)) <= ALIKE for other in others):
            best, score = first[0]
            yield ConstantAnswers(trial=label, model=model, texts=len(by_text), label=best, score=score)


def fallback(spec: TrialSpec, used: AsUsed) -> Iterator[DtypeFallback | LoaderFallback]:
    """A trial's servers computed in another dtype than the experiment asks for, or loaded in another loader's way."""
    if used.dtype != spec.dtype:
        yield DtypeFallback(trial=spec.label, asked=spec.dtype, used=used.dtype)
    others = [name for name in used.loaders if name != spec.loader]
    if others:
        yield LoaderFallback(trial=spec.label, used=others)


def too_few_for_target(label: str, rounds: Sequence[Round], slo: Mapping[str, float]) -> Iterator[TooFewForTarget]:
    """A percentile that `slo` names has fewer than 10/(1 − q) answered requests in all rounds."""
    values = [sample.ms for each in rounds for sample in each.answered]
    for name in slo:
        if rounds and percentile(values, quantile(name)) is None:
            needed = samples_for(quantile(name))
            yield TooFewForTarget(trial=label, percentile=name, needed=needed, found=len(values))


def _halves(each: Round) -> float | None:
    groups = [[sample.ms for sample in each.answered if bool(sample.cold) is cold] for cold in (False, True)]
    like = max(groups, key=len)
    if len(like) < 2 * FEWEST_IN_HALF:
        return None
    middle = len(like) // 2
    return float(np.log(np.median(like[middle:]) / np.median(like[:middle])))


def _replays(run: Run) -> bool:
    return run.header.workload is not None and run.header.workload.trace is not None


def _means(rounds: Sequence[Round]) -> list[float]:
    """Mean latency of each round; empty if a round has no answer."""
    means = [each.statistics["mean"] for each in rounds]
    return [] if None in means else [float(mean) for mean in means if mean is not None]


def _outliers(values: Sequence[float], least: float = MATTERS) -> list[int]:
    """Indices of the outliers among at least 5 values; a deviation of no more than `least` is none."""
    if len(values) < VERDICT_ROUNDS:
        return []
    away = np.abs(np.asarray(values) - np.median(values))
    limit = max(OUTLIER * float(np.median(away)), least * float(np.median(values)))
    return [int(index) for index in np.flatnonzero(away > limit)]


CHECKS: tuple[Callable[[str, Sequence[Round]], Iterator[RunWarning]], ...] = (
    slow_first_round,
    outliers,
    memory_outliers,
    noisy_machine,
    generator_bound,
    too_few_samples,
    trend,
    constant_answers,
)
"""Each takes the label of a trial and the rounds that it finished."""
