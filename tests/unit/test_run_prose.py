"""What is said of a run, and of what changed between two, for each kind of finding, once."""

from __future__ import annotations

from typing import Any

import pytest

from core.report.prose import changes as changes_prose
from core.report.prose import run as run_prose
from core.report.prose import targets, verdicts, warnings
from core.report.prose.sentences import say
from core.results import changes as changed
from core.results import run_findings as found
from core.results import shortfalls as short
from core.results import warnings as warned
from core.results.comparisons import Statistic, StatisticName, Verdict
from core.results.figures import MemoryReturn, Target, TargetVerdict, TooFew
from core.results.recorded import Recorded
from core.results.records import NarrowIntervals
from core.results.summary import Failed, MachineRounds
from tests.helpers.kinds import kinds_in, kinds_said_in


def compared(
    name: StatisticName, ours: float, theirs: float, verdict: Verdict | None = None, **figures: Any
) -> found.Compared:
    """Of b and a, over 5 rounds; over 3 without a verdict."""
    known = {"ci95": (1.4, 1.6), "rounds": 5} if verdict else {"rounds": 3}
    return found.Compared(
        trial="b",
        against="a",
        name=name,
        ours=found.ComparedFigure(value=ours, cold_share=None),
        theirs=found.ComparedFigure(value=theirs, cold_share=None),
        statistic=Statistic(verdict=verdict, **(known | figures)),
    )


def unlike(**figures: Any) -> found.Compared:
    return compared("p50", 10.1, 10.0, "not separable", **({"ratio": 1.01, "ci95": (0.98, 1.05)} | figures))


def machine_of(name: str, *rounds: int) -> MachineRounds:
    return MachineRounds(name=name, processor="x", cores=2, memory_mib=4096, commit=None, rounds=list(rounds))


def target_of(verdict: TargetVerdict | None, share: float, **figures: Any) -> found.TargetResult:
    known: dict[str, Any] = {"share_ci95": None, "further_rounds": None, "processes_met": 5, "processes_least": None}
    target = Target(
        percentile="p99",
        target_ms=200.0,
        goodput_rps=250.0,
        share_within=share,
        rounds=5,
        verdict=verdict,
        **(known | figures),
    )
    return found.TargetResult(trial="a", target=target)


TARGET = short.TrialTarget(trial="a", percentile="p99", target_ms=200.0)
RETURNED = MemoryReturn(
    cycles=100,
    weights_mib=87.0,
    returned_share=0.995,
    slope_mib_per_cycle=0.004,
    slope_ci95=(0.001, 0.007),
    leaks=False,
)
WARM_AND_COLD = found.Compared(
    trial="b",
    against="a",
    name="mean",
    ours=found.ComparedFigure(value=25.0, cold_share=0.5),
    theirs=found.ComparedFigure(value=10.0, cold_share=None),
    statistic=Statistic(ratio=2.5, rounds=1),
)

SAID: list[tuple[Recorded, str]] = [
    (TooFew(unit="rounds", needed=2, found=1), "needs 2 rounds and has 1"),
    (Failed(trial="a", round=0, reason="It broke."), "a failed in round 1: It broke."),
    (
        found.RequestsFailed(trial="a", errors=3, error="503 busy.", log="RuntimeError: no memory"),
        (
            "a answered 3 requests with an error: 503 busy. The server's log says: RuntimeError: no memory. See"
            " server.log."
        ),
    ),
    (
        found.RequestsFailed(trial="a", errors=3, error=None, log=None),
        "a answered 3 requests with an error. See server.log.",
    ),
    (found.RoundsUnfinished(trial="a", rounds=1, due=5), "1 of 5 rounds of a did not run to the end."),
    (
        found.LoadingAdds(
            loader="mapped", dtype="float32", kept_ms=12.0, loaded_ms=17.0, private_mib=10.0, weights_mib=200.0
        ),
        (
            "mapped (float32): p50 is 12.0 ms with the model kept in memory and 17.0 ms if it is loaded for"
            " every request (5.0 ms more). Keeping the model takes 10 MiB of private memory, 5% of the weights."
        ),
    ),
    (
        found.MeasuredOnly(compared=compared("p50", 16.4, 11.0, ratio=1.5)),
        "b against a: p50 16.4 ms against 11.0 ms, a ratio of 1.50 in 3 rounds.",
    ),
    (
        found.MeasuredOnly(compared=WARM_AND_COLD),
        "b against a: mean 25 ms (50% cold) against 10.0 ms, a ratio of 2.50 in 1 round.",
    ),
    (
        found.SameMemory(compared=compared("idle_pss", 500.2, 500.0, "higher", ratio=1.0004, ci95=(1.0001, 1.0007))),
        (
            "b holds the same memory as a, to within 1 MiB: PSS between requests 500 against 500 MiB (95 %"
            " interval 1.000 to 1.001, 5 rounds)."
        ),
    ),
    (
        found.Separable(compared=compared("p99", 150.0, 100.0, "higher", ratio=1.5)),
        "b takes 1.50 times as long as a: p99 150 ms against 100 ms (95 % interval 1.40 to 1.60, 5 rounds).",
    ),
    (
        found.Separable(compared=compared("mean", 15.0, 10.0, "higher", ratio=1.5)),
        (
            "b takes 1.50 times as long on average as a: mean 15.0 ms against 10.0 ms (95 % interval 1.40 to 1.60, 5"
            " rounds)."
        ),
    ),
    (
        found.Separable(compared=compared("throughput", 15.0, 10.0, "higher", ratio=1.5)),
        (
            "b answers 1.50 times as many requests per second as a: 15.0 against 10.0 requests/s (95 % interval 1.40 to"
            " 1.60, 5 rounds)."
        ),
    ),
    (
        found.Separable(compared=compared("idle_pss", 400.0, 500.0, "lower", ratio=0.8, ci95=(0.79, 0.81))),
        (
            "b holds 100 MiB less than a: PSS between requests 400 against 500 MiB (ratio 0.80, 95 % interval 0.79 to"
            " 0.81, 5 rounds)."
        ),
    ),
    (
        found.Separable(compared=compared("cold_share", 0.3, 0.01, "higher", difference=0.29, ci95=(0.27, 0.31))),
        (
            "b has more cold requests than a: 30.0% against 1.0% of the requests (difference +29.0 points, 95 %"
            " interval +27.0 points to +31.0 points, 5 rounds)."
        ),
    ),
    (
        found.Separable(
            compared=compared("loads_per_request", 0.01, 0.3, "lower", difference=-0.29, ci95=(-0.31, -0.27))
        ),
        (
            "b loads less often than a: 0.010 against 0.300 loads for each request (difference -0.290, 95 % interval"
            " -0.310 to -0.270, 5 rounds)."
        ),
    ),
    (
        found.NotSeparable(compared=unlike(further_rounds=40), is_separable_alone=False),
        (
            "b and a are not separable: p50 10.1 ms against 10.0 ms (ratio 1.010, 95 % interval 0.980 to 1.050,"
            " 5 rounds). About 40 more rounds would decide it, if the true difference is as large as measured."
        ),
    ),
    (
        found.NotSeparable(compared=unlike(), is_separable_alone=False),
        (
            "b and a are not separable: p50 10.1 ms against 10.0 ms (ratio 1.010, 95 % interval 0.980 to 1.050,"
            " 5 rounds). The number of further rounds needed is unknown: the difference is too small relative to"
            " its noise (it is between -2.0% and +5.0%)."
        ),
    ),
    (
        found.NotSeparable(compared=unlike(ci95=(1.001, 1.05)), is_separable_alone=True),
        (
            "b and a are not separable: p50 10.1 ms against 10.0 ms (ratio 1.010, 95 % interval 1.001 to 1.050,"
            " 5 rounds). Taken alone, the two would be separable; but among several verdicts one can look so by chance."
        ),
    ),
    (found.MemoryUnknown(trial="b"), "The memory of b is unknown: this system has no /proc."),
    (
        found.VerdictRoundsMissing(rounds=1),
        (
            "These are measurements, not verdicts: a verdict needs 5 rounds finished by both trials; 1 is missing (set"
            " repeats: 5)."
        ),
    ),
    (
        found.JointVerdicts(verdicts=4),
        (
            "In 95 of 100 runs all 4 verdicts are true at once. They describe a typical server process of each strategy"
            " (the median over rounds)."
        ),
    ),
    (
        target_of("met", 1.0, share_ci95=(0.9985, 1.0), processes_least=0.549),
        (
            "a, p99 ≤ 200 ms: 100.00% of the requests are within it (95 % interval 99.85% to 100.00%), 250.0"
            " such answers a second. All 5 server processes met it, so at least 55% of all such processes do."
        ),
    ),
    (
        target_of("missed", 0.5, share_ci95=(0.45, 0.55)),
        (
            "a misses p99 ≤ 200 ms: 50.00% of the requests are within it (95 % interval 45.00% to 55.00%), 250.0 such"
            " answers a second."
        ),
    ),
    (
        target_of("not settled", 1.0, further_rounds=3),
        (
            "a, p99 ≤ 200 ms: 100.00% of the requests are within it, 250.0 such answers a second. All 5 server"
            " processes met it, which is not yet proof; about 3 more rounds without a miss would be."
        ),
    ),
    (
        target_of("not settled", 0.98, processes_met=4),
        (
            "a, p99 ≤ 200 ms: 98.00% of the requests are within it, 250.0 such answers a second. 4 of 5 server"
            " processes met it, so this is not settled; find out why the others did not."
        ),
    ),
    (found.TargetRoundsMissing(rounds=4), "Judging a target needs 5 rounds; 4 are missing."),
    (short.NoRequests(target=TARGET), "a has no requests in a finished round, so p99 ≤ 200 ms cannot be judged."),
    (
        short.TargetMissed(target=TARGET, share_within=0.5),
        "a misses p99 ≤ 200 ms: 50.00% of the requests are within it.",
    ),
    (
        short.ProcessWithoutAnswer(target=TARGET),
        "a cannot be judged against p99 ≤ 200 ms: one of its server processes answered no request.",
    ),
    (
        short.RoundsTooFew(target=TARGET, rounds=4),
        "a has too few rounds to judge p99 ≤ 200 ms: 5 are needed, it has 4.",
    ),
    (
        short.SomeProcessesMiss(target=TARGET, missed=1, rounds=5, share_within=0.9951),
        ("a may miss p99 ≤ 200 ms: 1 of 5 server processes missed it, although 99.51% of the requests are within it."),
    ),
    (
        short.RequestsTooFew(target=TARGET, share_within=0.99, share_ci95=(0.98, 0.995)),
        (
            "a may miss p99 ≤ 200 ms: 99.00% of the requests are within it (95 % interval 98.00% to 99.50%);"
            " more rounds would decide it."
        ),
    ),
    (
        found.ColdRequestTime(
            trial=None, answer_ms=50.5, load_ms=40.0, phases_ms={"weights": 30.0, "tokenizer": 5.0}, forward_ms=9.0
        ),
        (
            "Of the median 50 ms of a request with a load, the load takes 40 ms (weights 30 ms, tokenizer 5.0"
            " ms) and the forward pass 9.0 ms."
        ),
    ),
    (
        found.ColdRequestTime(trial="b", answer_ms=50.5, load_ms=40.0, phases_ms={}, forward_ms=9.0),
        "Of the median 50 ms of a request with a load (b), the load takes 40 ms and the forward pass 9.0 ms.",
    ),
    (
        found.PartlyCold(trial="b", share=0.25, cold_ms=62.0, warm_ms=None),
        "Under b, 25% of the requests waited for a load: p50 is 62 ms for these and n/a for the others.",
    ),
    (
        found.SharedByNodes(trial="b", nodes=2, busiest="n1", share=0.55, most_of_budget=0.98),
        (
            "The busiest of the 2 nodes of b, n1, answered 55% of the requests. At its fullest, a node's memory_budget"
            " was 98% used."
        ),
    ),
    (
        found.SharedByNodes(trial="b", nodes=1, busiest="n1", share=1.0, most_of_budget=None),
        "The busiest of the one node of b, n1, answered 100% of the requests.",
    ),
    (
        found.MemoryReturned(trial="b", measured=RETURNED),
        (
            "After 100 loads, b has returned 99.5% of the 87 MiB of weights; its memory grows by 0.004 MiB with"
            " each load (95 % interval 0.001 to 0.007)."
        ),
    ),
    (found.MemoryLeaks(trial="b"), "b does not give its memory back; find out what keeps it."),
    (
        found.LoadedFromDisk(),
        "Whenever a request waited for a load, the checkpoint came from disk, not from the page cache.",
    ),
    (
        found.RanOnMachines(machines=[machine_of("east", 0, 2)], are_alike=True),
        "Each round ran on east.",
    ),
    (
        found.RanOnMachines(machines=[machine_of("east", 0, 2), machine_of("west", 1)], are_alike=True),
        ("The rounds ran on east (rounds 1 and 3) and west (round 2); trials are compared within a round."),
    ),
    (
        found.RanOnMachines(machines=[machine_of("east", 0), machine_of("west", 1)], are_alike=False),
        (
            "The rounds ran on east (round 1) and west (round 2); trials are compared within a round. They are not"
            " alike, so figures in milliseconds differ from round to round."
        ),
    ),
    (
        found.StoppedEarly(
            rounds_planned=20,
            reason=NarrowIntervals(rounds=10, precision=0.05, relative_to=None, widths={"a": 0.031}),
        ),
        (
            "The run ended before its 20 rounds: After 10 rounds, the interval of the mean latency is no wider"
            " than 5.0%: a 3.1%."
        ),
    ),
    (
        found.StoppedEarly(rounds_planned=20, reason="It knows enough."),
        "The run ended before its 20 rounds: It knows enough.",
    ),
    (
        NarrowIntervals(rounds=10, precision=0.05, relative_to="a", widths={"b": 0.031, "c": 0.042}),
        "After 10 rounds, the interval of p50 relative to a is no wider than 5.0%: b 3.1%, c 4.2%.",
    ),
    (
        found.PrecisionMissed(precision=0.01, widths={"b": 0.042}),
        "The precision of 1.0% was not reached. The widest intervals: b 4.2%. Raise 'repeats'.",
    ),
    (found.PrecisionMissed(precision=0.01, widths={}), "The precision of 1.0% was not reached. Raise 'repeats'."),
    (
        warned.Disagreement(trial="b", text=0, label="P", score=0.79, other="a", other_label="N", other_score=0.8),
        "the answers differ: b answers text 1 with P 0.790000, but a answers N 0.800000.",
    ),
    (
        warned.SlowFirstRound(trial="a", longer=0.5),
        (
            "a: the first round took 50% longer than the median round. Do a warm-up run first, so that caches"
            " are as warm for it as for the others."
        ),
    ),
    (
        warned.OutlyingRounds(trial="a", rounds=[1, 4], mean_ms=15.0, median_ms=10.0),
        (
            "a: rounds 2, 5 are far from the others (15.0 ms on average; the median round has 10.0 ms). Look for"
            " what else ran then, and run again on a quiet machine."
        ),
    ),
    (
        warned.OutlyingMemory(trial="a", rounds=[0], memory="pss", mib=369.0, median_mib=290.0),
        (
            "a: round 1 is far from the others in memory between requests (369 MiB of PSS; the median round has"
            " 290 MiB). Look for what the server did then, or what shared its files, and run again."
        ),
    ),
    (
        warned.NoisyMachine(trial="a", deviation=0.2),
        (
            "a: the machine is noisy: the mean latency varies by 20% (standard deviation) from round to round. End what"
            " else runs, fix the processor's frequency, or run more rounds."
        ),
    ),
    (
        warned.GeneratorBound(trial="a", cores=0.6, late_share=0.0012),
        (
            "a: the load generator is near its limit (0.60 cores, 0.12% of the sends late), so the figures"
            " include its own delays. Lower the rate, use fewer clients, or give the machine more cores."
        ),
    ),
    (
        warned.TooFewSamples(trial="a", needed=20, found=19),
        (
            "a: p50 cannot be compared: it needs 20 answered requests in each round, and one has 19. Raise"
            " 'repetitions', or the workload's duration."
        ),
    ),
    (
        warned.TooFewForTarget(trial="a", percentile="p99", needed=1000, found=998),
        ("a: p99 needs 1000 requests and has 998. Raise 'repetitions', the workload's duration, or 'repeats'."),
    ),
    (
        warned.Trend(trial="a", change=0.3),
        (
            "a: latency changes by +30% from the first half of a trial to the second. If a queue is growing, lower the"
            " rate; otherwise look for what accumulates in the server."
        ),
    ),
    (
        warned.Trend(trial="a", change=-0.3),
        (
            "a: latency changes by -30% from the first half of a trial to the second. It is still warming up: make the"
            " trials longer."
        ),
    ),
    (
        warned.ConstantAnswers(trial="a", model="m", texts=3, label="P", score=0.5),
        (
            "a: 'm' gives the same answer to all 3 texts (P 0.5), so agreement between trials proves nothing."
            " Check that its weights come from a trained model."
        ),
    ),
    (
        warned.ApartAnswer(trial="b", model="chat", text=2, apart=1000.0),
        (
            "the answers differ: to text or request 3 for 'chat', b gives another answer than the run's first one,"
            " which is in answers.jsonl (their distance is 1000.0; above 1 they differ)."
        ),
    ),
    (
        warned.DtypeFallback(trial="a", asked="bfloat16", used="float32"),
        "a: it computed in float32, not in bfloat16; the server's log says why.",
    ),
    (
        warned.LoaderFallback(trial="a", used=["transformers"]),
        "a: its models were loaded as 'transformers' loads them; the server's log says why.",
    ),
    (
        warned.OtherLabels(
            trial="b",
            same=96,
            answers=100,
            least_share=0.97,
            computed_in="int8 by onnxruntime",
            other="a",
            other_computed_in="float32",
        ),
        (
            "b: 96 of 100 answers (96.0%) have the label that a gives, less than 97%. In int8 by onnxruntime it"
            " is in effect a different model from the one in float32: measure on texts of your own how often each is"
            " right."
        ),
    ),
]

OUTCOMES: dict[changed.Outcome, str] = {
    "regression": "a regression beyond 5.0%",
    "worse": "worse, but not certainly by more than 5.0%",
    "better": "better",
    "not separable": "not separable",
}
CHANGES: list[tuple[Recorded, str]] = [
    (changed.InOneRunOnly(trial="a", run="old"), "a is in the old run only."),
    (
        changed.DtypeDiffers(trial="a", old="float32", new="bfloat16"),
        "a cannot be compared: the old run computed in float32, the new one in bfloat16.",
    ),
    (
        changed.SetupDiffers(trial="a", what="page_cache"),
        "a cannot be compared: 'page_cache' is not the same.",
    ),
    (
        changed.LoaderDiffers(
            trial="a",
            old=changed.LoadedBy(loaders=["onnxruntime"], options={"pack": True}),
            new=changed.LoadedBy(loaders=["mapped", "transformers"], options={}),
        ),
        "a was loaded by onnxruntime (pack True) in the old run, and by mapped and transformers in the new one.",
    ),
    (
        changed.NoRoundFinished(trial="a", run="new"),
        "a cannot be compared: no round of it was finished in the new run.",
    ),
    *(
        (
            changed.Changed(
                trial="a",
                statistic="p50",
                old=10.0,
                new=12.0,
                relative_to="b",
                change_ci95=(0.17, 0.23),
                tolerance=0.05,
                outcome=outcome,
            ),
            f"a, p50: 10.0 → 12.0 ms, +20.0% (relative to b, 95 % interval +17.0% to +23.0%): {verdict}.",
        )
        for outcome, verdict in OUTCOMES.items()
    ),
    (
        changed.Changed(
            trial="a",
            statistic="idle_private",
            old=500.0,
            new=400.0,
            relative_to=None,
            change_ci95=(-0.2, -0.2),
            tolerance=0.05,
            outcome="better",
        ),
        "a, private memory: 500 → 400 MiB, -20.0% (95 % interval -20.0% to -20.0%): better.",
    ),
    (
        changed.BaselineChanged(trial="a", statistic="throughput", old=10.0, new=12.5),
        (
            "a, throughput: 10.0 → 12.5 requests/s, +25.0%. No verdict: this trial is the baseline for the"
            " others, and the speed of the machine may have changed between the two runs. If only this trial"
            " became slower, the others appear faster."
        ),
    ),
    (
        changed.ChangeNotJudged(trial="a", statistic="p99", old=10.0, new=30.0, run="new", rounds=4),
        ("a, p99: 10.0 → 30.0 ms, +200.0%. No verdict: that needs 5 rounds in both runs, and the new one has 4."),
    ),
    (
        changed.SeparateVerdicts(verdicts=4),
        ("Each of these 4 verdicts stands by itself: where nothing changed, one in twenty says that something did."),
    ),
]


@pytest.mark.parametrize(("finding", "sentence"), SAID, ids=lambda each: type(each).__name__)
def test_it_is_said_of_a_run(finding: Recorded, sentence: str) -> None:
    assert say(finding) == sentence


@pytest.mark.parametrize(("finding", "sentence"), CHANGES, ids=lambda each: type(each).__name__)
def test_it_is_said_of_a_change(finding: Recorded, sentence: str) -> None:
    assert say(finding) == sentence


def test_every_kind_is_said_here() -> None:
    """Those that a run may have, and those for which there are words."""
    kinds = kinds_in(found.RunFinding) | kinds_in(short.Shortfall)
    assert kinds | kinds_said_in(run_prose, verdicts, targets, warnings) == {type(finding) for finding, _ in SAID}
    assert kinds_in(changed.Finding) | kinds_said_in(changes_prose) == {type(finding) for finding, _ in CHANGES}
