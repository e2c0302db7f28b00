"""How often each kind of sentence is wrong, on machines whose truth is known.

`pytest -m slow tests/proofs/test_claims.py -s` prints the tables of docs/measuring.md (an hour; CLAIM_RUNS=200 for a
try). A sentence with a confidence of 95 % may be wrong in 6 of 100 runs; fewer runs leave that more open, by three
standard errors.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from core.costs.break_even import break_even
from core.costs.economics import Costs, RoundCost, TrialCost
from core.costs.prices import Prices
from core.results.answers import FastestOfSame
from core.results.changes import Changed
from core.results.economics import BreakEven
from core.results.figures import Target
from core.results.header import CostSpec, RunHeader
from core.results.records import Sample, TrialEnd
from core.results.warnings import WARNINGS
from core.stats.changes import Changes, changes
from core.stats.comparison import compare
from core.stats.intervals import CONFIDENCE, interval
from core.stats.rounds import Round, Run
from core.stats.slo import goodput
from core.stats.warnings import warnings
from tests.helpers.machines import MACHINES, many, quiet, truth
from tests.helpers.priced import UNITS, costing
from tests.helpers.synthetic import arranged, ended, run_of, run_with, sample_of, summarised, trial_of, typed

WRONG = 0.06
ROUNDS = (5, 10, 20)
FEW, MANY = 50, int(os.environ.get("CLAIM_RUNS", "2000"))
KINDS = [warning.model_fields["kind"].default for warning in WARNINGS]
NOT_DRAWN = ("dtype fallback", "loader fallback", "labels", "too few for target")  # nothing of it depends on a machine
COUNTED = ("generator-bound", "too few samples", *NOT_DRAWN)  # figures against a limit: nothing is drawn
Claim = Callable[[str, int, np.random.Generator], bool]
"""Whether the sentence is wrong of one run, on that machine, over so many rounds."""


def run_of_processes(ms: np.ndarray, pss: np.ndarray, cold: np.ndarray | None = None) -> Run:
    """Of shape (rounds, trials): the latency, memory and share of cold requests of each process, of 40 requests."""
    labels = [f"trial {each}" for each in range(ms.shape[1])]
    rounds: dict[str, dict[int, Round]] = {label: {} for label in labels}
    for number in range(ms.shape[0]):
        for index, label in enumerate(labels):
            first_warm = round(40 * cold[number, index]) if cold is not None else 0
            kinds = [answered(label, float(ms[number, index]), number, cold=is_cold) for is_cold in (True, False)]
            samples = [kinds[0]] * first_warm + [kinds[1]] * (40 - first_warm)
            end = typed(TrialEnd, ended(label, number, float(pss[number, index])))
            rounds[label][number] = Round(number, end, samples)
    header = typed(RunHeader, run_of(*map(trial_of, labels), rounds=ms.shape[0]))
    return Run(header, rounds, [], None)


def answered(label: str, ms: float, number: int, *, cold: bool = False) -> Sample:
    return typed(Sample, sample_of(label, ms, number, cold=cold))


def memory(machine: str, rng: np.random.Generator, rounds: int, trials: int) -> np.ndarray:
    """MiB around 400, whose processes differ as the machine's latencies do, without what is of the hour."""
    effects = MACHINES[machine](rng, rounds, trials)
    return np.asarray(400 + 100 * (effects - effects.mean(axis=1, keepdims=True)))


def a_difference_that_is_none(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of four strategies that are one, in a typical process: "takes 1.1 times as long as", "holds 5 MiB more than"."""
    effects = MACHINES[machine](rng, rounds, 4)
    effects[:, -1] -= truth_of(machine)
    run = run_of_processes(10 * np.exp(effects), np.full(effects.shape, 400.0) + rng.normal(0, 3, effects.shape))
    told = [pair.statistics[name] for pair in compare(run) if pair.against == "trial 0" for name in pair.told]
    return any(each.verdict in ("higher", "lower") for each in told)


def an_interval_without_the_ratio(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """The interval of "takes 1.15 times as long as", which is what the second trial's typical process takes."""
    effects = MACHINES[machine](rng, rounds, 2)
    effects[:, -1] += math.log(1.15)
    [pair] = compare(run_of_processes(10 * np.exp(effects), np.full(effects.shape, 400.0)))
    low, high = pair.statistics["p50"].ci95 or (math.nan, math.nan)
    return not low <= 1.15 * math.exp(truth_of(machine)) <= high


def a_share_of_cold_requests(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of two caches that miss one request in five, each process by its own luck: "has more cold requests than"."""
    effects = MACHINES[machine](rng, rounds, 2)
    effects[:, -1] -= truth_of(machine)
    cold = np.clip(0.2 + effects - effects.mean(axis=1, keepdims=True), 0, 1)
    [pair] = compare(run_of_processes(np.full(cold.shape, 10.0), np.full(cold.shape, 400.0), cold))
    return "cold_share" in pair.told and pair.statistics["cold_share"].verdict != "not separable"


def costs(machine: str, rounds: int, rng: np.random.Generator, more_mib: float) -> tuple[BreakEven, float]:
    """(the pair, the true rate) of one that holds `more_mib` more and takes 50 ms of a core less for each request."""
    held, effects = memory(machine, rng, rounds, 2), MACHINES[machine](rng, rounds, 2)
    held[:, 1] += more_mib
    held -= 400
    spent = np.exp(effects) * [0.06, 0.01]
    trials = [
        TrialCost(
            f"trial {index}",
            {
                n: RoundCost(h, h, h, b, 1.0)
                for n, (h, b) in enumerate(zip(held[:, index], spent[:, index], strict=True))
            },
            capacity=None,
            is_line=True,
        )
        for index in (0, 1)
    ]
    return break_even(Costs(Prices.of(CostSpec.model_validate(UNITS)), trials, {}))[0], true_rate(machine, more_mib)


def a_break_even_rate(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """The interval of "Below 316 requests an hour on-demand is cheaper"."""
    found, rate = costs(machine, rounds, rng, 100.0)
    return found.ci95 is not None and not found.ci95[0] <= rate <= found.ci95[1]


def cheaper_at_every_rate(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of one that holds 10 MiB more, so that there is a rate below which the other is cheaper: "holds the same memory
    as", or "holds less memory than".
    """
    found, _ = costs(machine, rounds, rng, 10.0)
    return found.settled and found.cheaper_below != "trial 0"


def a_cheapest_that_is_none(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of two that cost the same at the rate of the workload: "Recommended: a", but for a tie."""
    effects = MACHINES[machine](rng, rounds, 2)
    effects[:, -1] -= truth_of(machine)
    spent = 0.01 * np.exp(effects)
    trials = {label: [(0.0, float(each)) for each in spent[:, i]] for i, label in enumerate(("a", "b"))}
    found = summarised(costing(trials, workload={"open": {"rate": 10.0, "requests": 20}})).card
    return found.recommended is not None and not any(isinstance(each, FastestOfSame) for each in found.answer)


def a_target_that_most_processes_miss(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Where 50 of 100 processes meet the target: "at least 55% of all such processes do"."""
    share = shares(machine, rng, rounds)
    return bool(target(share).verdict == "met")


def a_target_that_a_typical_process_meets(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Where a typical process just meets it: "misses p90 ≤ 200 ms"."""
    share = shares(machine, rng, rounds)
    return bool(target(share).verdict == "missed")


def shares(machine: str, rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Of requests within a target of 90 %, by process; the median process is at 90 %."""
    effects = MACHINES[machine](rng, rounds, 2)
    return np.clip(0.9 - 0.3 * (effects[:, 1] - effects[:, 0] - truth_of(machine)), 0, 1)


def target(share: np.ndarray) -> Target:
    rounds = []
    for number, each in enumerate(share):
        within = round(float(each) * 400)
        samples = [answered("a", 10.0, number)] * within + [answered("a", 300.0, number)] * (400 - within)
        rounds.append(Round(number, typed(TrialEnd, ended("a", number)), samples))
    return goodput(rounds, {"p90": 0.2})[0]


def a_regression(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of a run against itself in another hour, up to 30 % slower: "a regression beyond 5.0%"."""
    return compared_to_itself(machine, rounds, rng).regressed


def a_change(machine: str, rounds: int, rng: np.random.Generator) -> bool:
    """Of one figure of a run against itself in another hour: "better" or "worse"."""
    found = [each for each in compared_to_itself(machine, rounds, rng).findings if isinstance(each, Changed)]
    [p50] = [each for each in found if (each.trial, each.statistic) == ("trial", "p50")]
    return p50.outcome != "not separable"


def compared_to_itself(machine: str, rounds: int, rng: np.random.Generator) -> Changes:
    def run() -> Run:
        ms = 10 * np.exp(MACHINES[machine](rng, rounds, 2) + rng.uniform(0, 0.3))
        labels = enumerate(("reference", "trial"))
        return arranged(run_with({label: [[each] * 20 for each in ms[:, i]] for i, label in labels}))

    return changes(run(), run(), 0.05)


@cache
def truth_of(machine: str) -> float:
    return truth(MACHINES[machine])


@cache
def true_rate(machine: str, more_mib: float) -> float:
    """The rate at which the costs of two typical processes are the same: where the median of their difference is 0."""
    held, effects = (many(MACHINES[machine]) for _ in range(2))
    more = 100 * np.random.default_rng(2).permutation(held[:, 1] - held[:, 0]) + more_mib
    less = np.exp(effects) @ [0.06, -0.01]
    low, high = 0.0, 1e5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.median(more - middle * less) > 0 else (low, middle)
    return low


CLAIMS: Sequence[Claim] = (
    a_difference_that_is_none,
    an_interval_without_the_ratio,
    a_share_of_cold_requests,
    a_break_even_rate,
    cheaper_at_every_rate,
    a_cheapest_that_is_none,
    a_target_that_most_processes_miss,
    a_target_that_a_typical_process_meets,
    a_change,
    a_regression,
)


def share_wrong(claim: Claim, machine: str, rounds: int, runs: int) -> float:
    rng = np.random.default_rng(20260101)
    return float(np.mean([claim(machine, rounds, rng) for _ in range(runs)]))


def allowed(runs: int) -> float:
    return WRONG + 3 * math.sqrt(WRONG * (1 - WRONG) / runs)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_sentence_is_rarely_wrong(claim: Claim, machine: str) -> None:
    assert share_wrong(claim, machine, 5, FEW) <= allowed(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_how_often_each_sentence_is_wrong(claim: Claim) -> None:
    found = {machine: [share_wrong(claim, machine, rounds, MANY) for rounds in ROUNDS] for machine in MACHINES}
    row = " | ".join(" / ".join(f"{share:.1%}" for share in found[machine]) for machine in MACHINES)
    print(f"\n| {claim.__name__.replace('_', ' ')} | {row} |", flush=True)
    assert max(share for shares in found.values() for share in shares) <= allowed(MANY)


def warned(rounds: int, rng: np.random.Generator) -> set[str]:
    """The kinds of warnings of a quiet machine, whose requests differ by 10 %, and whose processes differ in memory as
    they do in latency.
    """
    level, memory = quiet(rng, rounds, 1), 400 * np.exp(quiet(rng, rounds, 1)[:, 0])
    latencies = 10 * np.exp(level + rng.normal(0, 0.1, (rounds, 40)))
    records = run_with({"a": latencies.tolist()})
    for record in records:
        if record["kind"] == "sample":
            record["score"] = 0.9 + 0.01 * (record["ms"] % 1)  # a model that does not answer the same to all
            record["text"] = int(record["ms"] * 1e6) % 1000
        elif record["kind"] == "trial":
            record["memory_mib"] = dict.fromkeys(record["memory_mib"], float(memory[record["round"]]))
    return {each.kind for each in warnings(arranged(records))}


def false_alarms(rounds: int, runs: int) -> Counter[str]:
    rng = np.random.default_rng(20260101)
    return Counter(kind for _ in range(runs) for kind in warned(rounds, rng))


def test_a_quiet_machine_is_rarely_warned_of() -> None:
    found = false_alarms(5, 4 * FEW)
    assert max(found.values(), default=0) / (4 * FEW) <= allowed(4 * FEW), found


@pytest.mark.slow
def test_how_often_each_warning_is_false() -> None:
    found = {rounds: false_alarms(rounds, MANY) for rounds in ROUNDS}
    for kind in (kind for kind in KINDS if kind not in COUNTED):
        print(f"\n| {kind} | {' / '.join(f'{found[rounds][kind] / MANY:.1%}' for rounds in ROUNDS)} |", flush=True)
        assert max(found[rounds][kind] for rounds in ROUNDS) / MANY <= allowed(MANY)


@pytest.mark.slow
def test_how_often_the_interval_itself_leaves_the_median_out() -> None:
    """Of 20,000 samples each, so that the share is known to 0.5 %: more in a row of ratios is chance."""
    rng = np.random.default_rng(1)
    for name, skewness in (("normal", 0.0), ("lognormal", 0.5)):
        shares = []
        for rounds in ROUNDS:
            drawn = rng.normal(size=(20_000, rounds))
            values = np.expm1(skewness * drawn) if skewness else drawn
            bounds = [interval(each)[:2] for each in values.tolist()]
            shares.append(float(np.mean([not low <= 0 <= high for low, high in bounds])))
        print(f"\n| {name} | {' / '.join(f'{share:.1%}' for share in shares)} |", flush=True)
        assert max(shares) <= 1.1 * (1 - CONFIDENCE)
