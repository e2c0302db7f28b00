"""Comparisons, targets and precision, on records whose figures are known; what is said, and what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from core.advice.findings import compared, ending, targets
from core.report.prose.sentences import say
from core.report.table import table
from core.results.comparisons import Statistic, StatisticName, StatisticUnknown
from core.results.figures import Target, TooFew
from core.results.records import NarrowIntervals
from core.stats.intervals import chance, further_rounds, interval, sign
from core.stats.slo import quantile, share_interval
from core.stats.stopping import precise_enough as is_enough
from tests.helpers.synthetic import Record, arranged, run_with, sample_of, summarised, trial_with


def around(ms: float, ratios: Sequence[float], requests: int = 20) -> list[list[float]]:
    """In each round that many requests, all of them this long times the round's ratio."""
    return [[ms * ratio] * requests for ratio in ratios]


DRIFT = [1.0, 1.4, 0.9, 1.2, 1.1, 0.8, 1.3, 1.0, 0.7, 1.5]  # of the machine, which pairing takes out
SMALL = [1.01, 0.99, 1.02, 0.98, 1.01, 0.99, 1.02, 0.98, 1.01, 1.0]


def precise_enough(records: Sequence[Record], precision: float) -> NarrowIntervals | None:
    return is_enough(arranged(records), precision)


def sentences_of(records: Sequence[Record]) -> list[str]:
    """What is said of the comparisons."""
    return [say(each) for each in compared(summarised(records))]


def against(ratio: float, rounds: int, **changes: Any) -> list[Record]:
    slower = [drift * ratio * small for drift, small in zip(DRIFT, SMALL, strict=True)]
    return run_with({"a": around(10, DRIFT[:rounds]), "b": around(10, slower[:rounds])}, **changes)


def statistics_of(records: Sequence[Record]) -> dict[StatisticName, Statistic]:
    [pair] = summarised(records).comparisons
    assert (pair.trial, pair.against) == ("b", "a")
    return pair.statistics


def test_a_comparison_is_the_median_of_paired_ratios() -> None:
    p50 = statistics_of(against(1.5, 5))["p50"]
    ratios = 1.5 * np.array(SMALL[:5])
    students = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    assert p50.ratio == pytest.approx(np.median(ratios))
    low, high = min(students.low, math.log(min(ratios))), max(students.high, math.log(max(ratios)))
    assert p50.ci95 == pytest.approx((math.exp(low), math.exp(high)))
    assert (p50.method, p50.rounds, p50.verdict, p50.further_rounds) == ("range", 5, "higher", None)


def test_from_six_rounds_on_it_is_between_order_statistics() -> None:
    p50 = statistics_of(against(1 / 1.5, 10))["p50"]
    assert (p50.method, p50.verdict) == ("order statistics", "lower")
    low, high = p50.ci95 or (math.nan, math.nan)
    ordered = sorted(np.array(SMALL) / 1.5)
    assert ordered[1] <= low <= ordered[2] < ordered[7] <= high <= ordered[8]
    assert statistics_of(against(1 / 1.5, 10))["p50"] == p50  # the same report from the same samples


def test_below_five_rounds_there_are_figures_and_no_verdict() -> None:
    records = against(1.5, 4)
    p50 = statistics_of(records)["p50"]
    assert p50.ratio == pytest.approx(1.5, rel=0.01)
    assert (p50.ci95, p50.verdict, p50.further_rounds) == (None, None, 1)
    latency, memory, lacking = sentences_of(records)
    assert latency == "b against a: p50 16.4 ms against 11.0 ms, a ratio of 1.50 in 4 rounds."
    assert memory == "b against a: PSS between requests 500 against 500 MiB, a ratio of 1.000 in 4 rounds."
    assert lacking == (
        "These are measurements, not verdicts: a verdict needs 5 rounds finished by both trials; 1 is missing (set"
        " repeats: 5)."
    )


def test_each_verdict_in_words() -> None:
    slower, *_, together = sentences_of(against(1.5, 5))
    assert together.startswith("In 95 of 100 runs all 2 verdicts are true at once. They describe a typical server")
    assert slower.startswith("b takes 1.51 times as long as a: p50 16.7 ms against 11.0 ms (95 % interval 1.")
    assert slower.endswith(", 5 rounds).")
    faster, *_ = sentences_of(against(0.5, 5))
    assert faster.startswith("b takes 0.51 times as long as a: ")
    same, *_ = sentences_of(against(1.002, 5))
    assert same.startswith("b and a are not separable: p50 ")
    assert same.endswith(" more rounds would decide it, if the true difference is as large as measured.")
    records = run_with({"a": around(10, [1] * 6), "b": around(10, [1.1, 1 / 1.1] * 3)})
    equal, *_ = sentences_of(records)
    assert equal.endswith(
        "The number of further rounds needed is unknown: the difference is too small relative to its noise (it is"
        " between -9.1% and +10.0%)."
    )


def test_memory_in_words() -> None:
    records = run_with({"a": around(10, [1] * 5)})
    records[0]["trials"].append(records[0]["trials"][0] | {"label": "b"})
    for number in range(5):
        records += trial_with(
            "b",
            [10.0] * 20,
            number,
            memory_mib=dict.fromkeys(
                ("idle_pss", "idle_private", "idle_rss", "peak_rss", "start_peak_rss"), 400 + number
            ),
        )
    same = sentences_of(against(1.5, 5))[1]
    assert same.startswith("b holds the same memory as a, to within 1 MiB: PSS between requests 500 against 500 MiB (")
    [_, memory, _] = sentences_of(records)
    assert memory.startswith("b holds 98 MiB less than a: PSS between requests 402 against 500 MiB (ratio 0.80, 95 %")
    unknown = [r | {"memory_mib": dict.fromkeys(r["memory_mib"])} if r["kind"] == "trial" else r for r in records]
    assert sentences_of(unknown)[1].endswith("is unknown: this system has no /proc.")


def cached(misses: Sequence[int], requests: int = 100) -> list[Record]:
    """In each round so many requests wait 40 ms for a load of their own, and the others 10 ms for nothing."""
    records = []
    for number, missed in enumerate(misses):
        cold: Record = {"cold": True, "timing": {"queue": 0.1, "load": 30.0, "inference": 9.0}}
        samples = [sample_of("b", 40.0 + number, number, **cold) for _ in range(missed)]
        samples += [sample_of("b", 10.0 + number / 10, number) for _ in range(requests - missed)]
        begin, first, *_, end = trial_with("b", [], number, steady_loads=missed)
        records += [begin, first, *samples, end]
    return records


def with_cache(misses: Sequence[int], **changes: Any) -> list[Record]:
    """Beside a trial that misses one request in a hundred."""
    first = [record | {"trial": "a"} for record in cached([1] * len(misses)) if record["kind"] != "run"]
    header = run_with({"a": [[]], "b": [[]]}, **changes)[0] | {"rounds": len(misses)}
    return [header, *first, *cached(misses)]


def test_caches_are_compared_by_what_they_miss() -> None:
    said = sentences_of(with_cache([30, 31, 29, 32, 30, 28]))
    misses = next(sentence for sentence in said if "cold requests" in sentence)
    assert misses.startswith(
        "b has more cold requests than a: 30.0% against 1.0% of the requests (difference +29.0 points"
    )
    loads = next(sentence for sentence in said if "loads more often" in sentence)
    assert loads.startswith(
        "b loads more often than a: 0.300 against 0.010 loads for each request (difference +0.290, 95 %"
    )
    assert not any("cold requests" in sentence for sentence in sentences_of(against(2, 5)))


def test_where_half_of_the_requests_are_cold_the_mean_is_told() -> None:
    for misses, told in (([50, 48, 52, 49, 51], "mean"), ([3, 2, 4, 3, 2], "p50")):
        [pair] = summarised(with_cache(misses)).comparisons
        assert pair.told[0] == told
    said = sentences_of(with_cache([50, 48, 52, 49, 51]))[0]
    assert said.startswith("b takes ")
    assert " times as long on average as a: mean 2" in said


def test_a_verdict_is_one_of_several() -> None:
    """What is told apart by itself need not be among as many comparisons as there are."""
    alike = [1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99]
    trials = {f"t{n}": around(10, np.roll(alike, n).tolist()) for n in range(12)}
    trials["slower"] = around(10, [1.02, 1.10, 1.03, 1.12, 1.02, 1.16, 1.0])
    summary = summarised(run_with(trials))
    [pair] = [each for each in summary.comparisons if (each.trial, each.against) == ("slower", "t0")]
    p50 = pair.statistics["p50"]
    assert p50.ci95 is not None
    assert p50.ci95[0] > 1
    assert p50.verdict == "not separable"
    assert any(
        "Taken alone, the two would be separable; but among several" in each for each in map(say, compared(summary))
    )


def test_the_rounds_that_only_one_finished_are_left_out() -> None:
    records = [r for r in against(2, 7) if not (r.get("trial") == "b" and r.get("round") == 3)]
    assert statistics_of(records)["p50"].rounds == 6


def test_only_the_latest_attempt_counts() -> None:
    records = against(2, 5)
    killed = [{"kind": "begin", "round": 2, "trial": "b"}, *[sample_of("b", 9999.0, 2)] * 30]
    failed = [
        {"kind": "begin", "round": 1, "trial": "a"},
        {"kind": "failure", "round": 1, "trial": "a", "reason": "R."},
    ]
    assert summarised([records[0], *killed, *failed, *records[1:]]) == summarised(records)
    again = summarised([*records, *failed])
    assert [trial.rounds for trial in again.trials] == [4, 5]
    assert [failure.round for failure in again.failures] == [1]


@pytest.mark.process
def test_p99_and_throughput_only_where_they_mean_something() -> None:
    few = statistics_of(against(2, 5))
    lacking = StatisticUnknown(kind="too few requests", needed=1000)
    assert few["p99"] == Statistic(null_because=lacking)
    assert few["throughput"].ratio == pytest.approx(1)  # the records say two seconds for each round
    many = statistics_of(run_with({"a": around(10, DRIFT[:5], 1000), "b": around(20, DRIFT[:5], 1000)}))
    assert many["p99"].ratio == pytest.approx(2)
    offered = statistics_of(against(2, 5, workload={"open": {"rate": 5.0}}))
    assert (offered["throughput"].ratio, offered["p50"].verdict) == (None, "higher")
    closed = against(2, 5, workload={"closed": {"clients": 4}})
    assert statistics_of(closed)["throughput"].ratio == pytest.approx(1)
    assert "requests/s" in sentences_of(closed)[2]
    short = statistics_of(run_with({"a": around(10, DRIFT[:5], 19), "b": around(20, DRIFT[:5], 19)}))
    assert (short["p50"].ratio, short["mean"].verdict) == (None, "higher")


def test_the_further_rounds_find_such_an_effect_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(20260101)
    values = np.array([-0.06, 0.0, 0.06, 0.14, 0.16])
    more = further_rounds(values.tolist())
    assert more is not None
    assert more == int(f"{more:.0e}".split("e")[0]) * 10 ** (len(str(more)) - 1)  # one significant digit
    drawn = rng.normal(np.median(values), np.std(values, ddof=1), (1000, more + 5))
    found = np.mean([sign(each.tolist()) == 1 for each in drawn])
    assert 0.75 <= found <= 0.95  # it is rounded up
    assert further_rounds([0.1, -0.1, 0.001, 0.09, -0.09]) is None  # less than its own standard error
    assert further_rounds([0.0] * 5) is None


def test_equal_rounds_are_a_bound_not_an_error() -> None:
    for rounds in (5, 10):
        assert interval([0.0] * rounds)[:2] == (0, 0)
        assert chance([0.0] * rounds) == pytest.approx(1)


def test_cold_and_warm_are_kept_apart() -> None:
    records = [sample_of("a", 50.0 + i, cold=True) for i in range(25)] + [sample_of("a", 5.0 + i) for i in range(75)]
    records = [*run_with({"a": [[]]})[:2], *records, trial_with("a", [])[-1]]
    summary = summarised(records)
    [trial] = summary.trials
    assert (trial.cold.count, trial.cold.share, trial.warm.count) == (25, 0.25, 75)
    assert (trial.cold.latency_ms.p50, trial.warm.latency_ms.p50) == (62, 42)
    assert trial.cold.latency_ms.null_because["p95"] == TooFew(unit="requests", needed=200, found=25)
    header, _, row = (line.split("|") for line in table(summary, "pipe", wide=True).splitlines())
    cells = dict(zip(map(str.strip, header), map(str.strip, row), strict=True))
    assert (cells["cold"], cells["warm p50 (ms)"], cells["cold p50 (ms)"], cells["p99 (ms)"]) == (
        "25.0%",
        "42.0",
        "62.0",
        "n/a",
    )
    assert "p99" not in table(summary, "simple", wide=True)


def target_of(within: Sequence[int], sent: int, **changes: Any) -> Target:
    rounds = [[10.0] * count + [300.0] * (sent - count) for count in within]
    return summarised(run_with({"a": rounds}, slo={"p99": 0.2}, **changes)).trials[0].slo[0]


@pytest.mark.process
def test_goodput_and_whether_a_target_is_met() -> None:
    met = target_of([500] * 5, 500)
    assert (met.verdict, met.share_within, met.goodput_rps) == ("met", 1, 250)
    assert met.processes_least == pytest.approx(0.05 ** (1 / 5))
    few = target_of([50] * 5, 50)
    assert (few.verdict, few.processes_met, few.further_rounds) == ("not settled", 5, 3)  # of 250, too few
    assert target_of([50] * 8, 50).verdict == "met"
    assert target_of([90, 92, 91, 93, 90], 100).verdict == "missed"
    one = target_of([500, 500, 500, 500, 400], 500)
    assert (one.verdict, one.processes_met, one.further_rounds) == ("not settled", 4, None)
    few = target_of([500] * 4, 500)
    assert (few.verdict, few.further_rounds) == (None, 1)


def test_a_failed_request_is_not_within_the_target() -> None:
    records = run_with({"a": [[10.0] * 99] * 5}, slo={"p90": 0.2})
    records[3:3] = [sample_of("a", 1.0, 0, status=503)]
    [target] = summarised(records).trials[0].slo
    assert target.share_within == pytest.approx(495 / 496)


@pytest.mark.process
def test_targets_in_words_and_in_the_table() -> None:
    rounds = {"a": [[10.0] * 500] * 5, "b": [[300.0] * 500] * 5, "c": [[10.0] * 50] * 5}
    summary = summarised(run_with(rounds, slo={"p99": 0.2}))
    met, missed, open_ = map(say, targets(summary))
    assert met.startswith("a, p99 ≤ 200 ms: 100.00% of the requests are within it (95 % interval 99.85% to ")
    assert met.endswith(
        ", 250.0 such answers a second. All 5 server processes met it, so at least 55% of all such processes do."
    )
    assert missed.startswith(
        "b misses p99 ≤ 200 ms: 0.00% of the requests are within it (95 % interval 0.00% to 0.15%)"
    )
    assert open_.startswith("c, p99 ≤ 200 ms: 100.00% of the requests are within it (95 % interval 98.49% to 100.00%)")
    assert open_.endswith(
        ", 25.0 such answers a second. All 5 server processes met it, which is not yet proof; about 3 more rounds"
        " without a miss would be."
    )
    assert "within 200 ms (p99, 1/s)" in table(summary, "pipe", wide=True)
    assert "within" not in table(summarised(run_with(rounds)), "pipe", wide=True)
    few = summarised(run_with({"a": [[10.0] * 500]}, slo={"p99": 0.2}))
    assert [say(each) for each in targets(few)][1] == "Judging a target needs 5 rounds; 4 are missing."


def test_a_share_is_at_least_as_open_as_so_many_requests_leave_it() -> None:
    wilson = stats.binomtest(500, 500).proportion_ci(0.95, "wilson")
    assert share_interval([100] * 5, [100] * 5) == pytest.approx((wilson.low, 1))
    low, high = share_interval([100, 100, 100, 100, 50], [100] * 5)
    assert (low, high) == pytest.approx((0.5, 1))
    assert [quantile(name) for name in ("p50", "p99", "p99.9")] == [0.5, 0.99, 0.999]


def test_a_run_stops_when_its_intervals_are_narrow_whatever_they_say() -> None:
    assert precise_enough(against(2, 4), 0.5) is None  # never before round 5
    assert precise_enough(against(2, 9), 0.5) is None  # nor before the sixth narrow one in a row
    for ratio in (2, 1):
        reason = precise_enough(against(ratio, 10), 0.05)
        assert reason is not None
        assert (reason.rounds, reason.precision, reason.relative_to, list(reason.widths)) == (10, 0.05, "a", ["b"])
        assert say(reason).startswith("After 10 rounds, the interval of p50 relative to a is no wider than 5.0%: b 2.")
        assert precise_enough(against(ratio, 10), 0.04) is None  # after round 5 it was 4.2 %
    unfinished = [r for r in against(2, 10) if not (r["kind"] == "trial" and r["trial"] == "a" and r["round"] == 9)]
    assert precise_enough(unfinished, 0.5) is None  # the tenth round is not complete


def test_a_single_trial_stops_by_the_width_of_its_own_mean() -> None:
    records = run_with({"a": around(10, SMALL)})
    logs = np.log(SMALL[:5])  # the widest of the six
    low, high, _ = interval(logs.tolist())
    width = (math.exp(high) - math.exp(low)) / math.exp(float(np.median(logs)))
    assert precise_enough(records, width * 1.01) is not None
    assert precise_enough(records, width * 0.99) is None
    assert precise_enough(run_with({"a": [[]] * 8}), 0.5) is None
    short = {"a": around(10, SMALL, 19), "b": around(10, SMALL, 19)}
    assert precise_enough(run_with(short), 0.5) is None  # no round has a p50


def test_why_a_run_ended_is_told() -> None:
    records = against(2, 5, precision=0.05)
    records[0]["rounds"] = 20
    stopped = summarised([*records, {"kind": "stop", "round": 4, "reason": "It knows enough."}])
    assert [say(each) for each in ending(stopped)] == ["The run ended before its 20 rounds: It knows enough."]
    assert (stopped.rounds_due, arranged(records).rounds_due) == (5, 20)
    assert [say(each) for each in ending(summarised(against(2, 5, precision=0.01)))] == [
        "The precision of 1.0% was not reached. The widest intervals: b 4.2%. Raise 'repeats'."
    ]
    assert [say(each) for each in ending(summarised(against(2, 4, precision=0.01)))] == [
        "The precision of 1.0% was not reached. Raise 'repeats'."
    ]
