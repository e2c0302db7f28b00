"""What casts doubt on a run, each with a remedy. Every threshold is named, and says where it comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..results.header import TrialSpec
from ..results.records import OK
from .agreement import Answer, apart
from .estimates import percentile, samples_for
from .intervals import VERDICT_ROUNDS, interval, typical
from .rounds import (
    AsUsed,
    Round,
    Run,
    generator,
)
from .slo import quantile

MATTERS = 0.05  # a deviation or a trend below 5 % is left alone, however certain it is
NOISY = 0.10  # pyperf calls a benchmark unstable when its standard deviation reaches 10 % of the mean
ALIKE = 1e-6  # scores that are no further apart are the same
FEWEST = 3  # rounds of which a standard deviation is worth a sentence
# hyperfine's: ten standard deviations by Iglewicz and Hoaglin's modified z-score ("How to Detect and Handle
# Outliers", 1993); 1.4826 makes the median absolute deviation an estimate of a standard deviation.
OUTLIER = 10 * 1.4826
FEWEST_IN_HALF = 10  # requests of a median
GENERATOR_CORES = 0.5  # beyond half a core the generator takes from the server what it measures
GENERATOR_LATE = 0.005  # half of the share of late sends that makes a trial invalid


def warnings(run: Run) -> list[dict[str, str]]:
    """`{"kind", "trial", "sentence"}` of each doubt."""
    found = []
    # The rate of a trace changes by itself, and latency with it.
    checks = {kind: check for kind, check in CHECKS.items() if kind != "trend" or not _replays(run)}
    for label in run.labels:
        rounds = run.finished(label)
        for kind, check in checks.items():
            found += [{"kind": kind, "trial": label, "sentence": f"{label}: {text}"} for text in check(rounds)]
        others = fallback(run.spec(label), run.used[label])
        found += [{"kind": "fallback", "trial": label, "sentence": f"{label}: {text}"} for text in others]
        slo = run.header.slo or {}
        found += [
            {"kind": "too few samples", "trial": label, "sentence": f"{label}: {text}"}
            for text in _too_few_for_target(rounds, slo)
        ]
    return found


def slow_first_round(rounds: Sequence[Round]) -> Iterator[str]:
    """The first round's mean latency is an outlier among the rounds' on the slow side, and by over 5 %."""
    means = _means(rounds)
    if means and rounds[0].number == 0 and 0 in _outliers(means) and means[0] > np.median(means):
        yield (
            f"the first round took {means[0] / float(np.median(means)) - 1:.0%} longer than the median round."
            " Do a warm-up run first, so that caches are as warm for it as for the others."
        )


def outliers(rounds: Sequence[Round]) -> Iterator[str]:
    """Another round's mean latency is an outlier: modified z-score over 14.826, and over 5 % from the median."""
    means = _means(rounds)
    slow_first = any(slow_first_round(rounds))
    odd = [index for index in _outliers(means) if not (index == 0 and slow_first)]
    if odd:
        numbers = ", ".join(str(rounds[index].number + 1) for index in odd)
        yield (
            f"round {numbers} is far from the others ({means[odd[0]]:.1f} ms on average; the median round has"
            f" {float(np.median(means)):.1f} ms). Look for what else ran then, and run again on a quiet machine."
        )


def memory_outliers(rounds: Sequence[Round]) -> Iterator[str]:
    """A round's idle memory, private or PSS, is an outlier among the rounds', in either direction, by over 10 %."""
    for kind, words in (("private", "private memory"), ("pss", "PSS")):
        known = [(each, mib) for each in rounds if (mib := each.ended.memory_mib.idle(kind)) is not None]
        values = [mib for _, mib in known]
        if odd := _outliers(values, NOISY):
            numbers = ", ".join(str(known[index][0].number + 1) for index in odd)
            yield (
                f"round {numbers} is far from the others in memory between requests ({values[odd[0]]:.0f} MiB of"
                f" {words}; the median round has {float(np.median(values)):.0f} MiB). Look for what the"
                " server did then, or what shared its files, and run again."
            )
            return


def noisy_machine(rounds: Sequence[Round]) -> Iterator[str]:
    """From 3 rounds on: their mean latencies have a standard deviation of at least 10 % of their mean.

    Not reported if single rounds explain it.
    """
    means = _means(rounds)
    if len(means) < FEWEST or _outliers(means):
        return
    deviation = float(np.std(means, ddof=1) / np.mean(means))
    if deviation >= NOISY:
        yield (
            f"the machine is noisy: the mean latency varies by {deviation:.0%} (standard deviation) from round to"
            " round. End what else runs, fix the processor's frequency, or run more rounds."
        )


def generator_bound(rounds: Sequence[Round]) -> Iterator[str]:
    """In some round the generator took over half a core, or over 0.5 % of its sends were late."""
    worst = generator(rounds)
    if worst and (worst["cores"] > GENERATOR_CORES or worst["late_share"] > GENERATOR_LATE):
        yield (
            f"the load generator is near its limit ({worst['cores']:.2f} cores, {worst['late_share']:.2%} of the sends"
            " late), so the figures include its own delays. Lower the rate, use fewer clients, or give the machine more"
            " cores."
        )


def too_few_samples(rounds: Sequence[Round]) -> Iterator[str]:
    """A finished round has fewer than 20 answered requests: it has no p50, so nothing compares p50."""
    short = [len(each.answered) for each in rounds if len(each.answered) < samples_for(0.5)]
    if short:
        yield (
            f"p50 cannot be compared: it needs {samples_for(0.5)} answered requests in each round, and one has"
            f" {min(short)}. Raise 'repetitions', or the workload's duration."
        )


def trend(rounds: Sequence[Round]) -> Iterator[str]:
    """Within the trials, latency rises or falls: p50 of the second half against the first, over rounds.

    Only the warm or only the cold requests count, whichever are more. The interval of the ratio
    over at least 5 rounds excludes 1, and the ratio is over 5 % from 1.
    """
    logs = [log for each in rounds if (log := _halves(each)) is not None]
    if len(logs) < VERDICT_ROUNDS:
        return
    low, high, _ = interval(logs)
    change = float(np.exp(typical(logs))) - 1
    if low <= 0 <= high or abs(change) <= MATTERS:
        return
    remedy = (
        "If a queue is growing, lower the rate; otherwise look for what accumulates in the server."
        if change > 0
        else "It is still warming up: make the trials longer."
    )
    yield f"latency changes by {change:+.0%} from the first half of a trial to the second. {remedy}"


def constant_answers(rounds: Sequence[Round]) -> Iterator[str]:
    """A model gave the same scores to all of several texts: no comparison of answers can find a fault in it."""
    answers: defaultdict[str, dict[int, Answer]] = defaultdict(dict)
    for each in rounds:
        for sample in each.samples:
            if sample.status == OK:
                answers[sample.model].setdefault(sample.text, sample.answer)
    for model, by_text in answers.items():
        first, *others = by_text.values()
        if others and all(apart(first, other, len(first)) <= ALIKE for other in others):
            yield (
                f"'{model}' gives the same answer to all {len(by_text)} texts ({first[0][0]} {first[0][1]:.4g}), so"
                " agreement between trials proves nothing. Check that its weights come from a trained model."
            )


def fallback(spec: TrialSpec, used: AsUsed) -> Iterator[str]:
    """A trial's servers computed in another dtype than the experiment asks for, or loaded in another loader's way."""
    if used.dtype != spec.dtype:
        yield f"it computed in {used.dtype}, not in {spec.dtype}; the server's log says why."
    others = [name for name in used.loaders if name != spec.loader]
    if others:
        yield f"its models were loaded as '{', '.join(others)}' does; the server's log says why."


def _halves(each: Round) -> float | None:
    groups = [[sample.ms for sample in each.answered if bool(sample.cold) is cold] for cold in (False, True)]
    like = max(groups, key=len)
    if len(like) < 2 * FEWEST_IN_HALF:
        return None
    middle = len(like) // 2
    return float(np.log(np.median(like[middle:]) / np.median(like[:middle])))


def _too_few_for_target(rounds: Sequence[Round], slo: Mapping[str, float]) -> Iterator[str]:
    """A percentile that `slo` names has fewer than 10/(1 − q) answered requests in all rounds."""
    values = [sample.ms for each in rounds for sample in each.answered]
    for name in slo:
        if rounds and percentile(values, quantile(name)) is None:
            yield (
                f"{name} needs {samples_for(quantile(name))} requests and has {len(values)}. Raise 'repetitions', the"
                " workload's duration, or 'repeats'."
            )


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


Check = Callable[[Sequence[Round]], Iterator[str]]
CHECKS: dict[str, Check] = {
    "slow first round": slow_first_round,
    "outliers": outliers,
    "memory outliers": memory_outliers,
    "noisy machine": noisy_machine,
    "generator-bound": generator_bound,
    "too few samples": too_few_samples,
    "trend": trend,
    "constant answers": constant_answers,
}
