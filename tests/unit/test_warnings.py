"""Each warning fires where it should and is silent where it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.report.prose.run import answer_in_words
from core.report.prose.sentences import say
from core.stats.warnings import warnings
from tests.helpers.synthetic import (
    Latencies,
    Record,
    arranged,
    ended,
    run_of,
    run_with,
    sample_of,
    summarised,
    trial_of,
    trial_with,
)


def kinds(records: list[Record]) -> set[str]:
    return {warning.kind for warning in warnings(arranged(records))}


def rounds_of(*means: float) -> Latencies:
    return [[mean] * 20 for mean in means]


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((10, 10.2, 9.9, 10.1, 10), set()),
        ((10, 12, 8), {"noisy machine"}),
        ((10, 12), set()),  # two rounds are no spread
        ((10, 10.2, 9.9, 11.8, 8.3, 10.1), {"noisy machine"}),
        ((15, 10.2, 9.9, 10.1, 10, 10), {"slow first round"}),
        ((6, 10.2, 9.9, 10.1, 10, 10), {"outliers"}),  # the first, but not slow
        ((10, 10.2, 15, 9.9, 10.1, 10), {"outliers"}),
        ((10, 10.01, 10.3, 10.02, 10, 9.99), set()),  # far out, but by 3 %
        ((10, 10, 10, 15), {"noisy machine"}),  # four rounds say what is odd of none
        ((15, 10.2, 15, 10.1, 10, 9.9, 10), {"slow first round", "outliers"}),
    ],
)
def test_spread_of_rounds(means: tuple[float, ...], expected: set[str]) -> None:
    assert kinds(run_with({"a": rounds_of(*means)})) == expected


def test_a_slow_round_that_is_not_the_first_of_the_run_is_an_outlier() -> None:
    records = run_with({"a": rounds_of(10, 15, 10.2, 9.9, 10.1, 10, 10)})
    records = [r for r in records if r.get("round") != 0]  # the first one failed
    assert kinds(records) == {"outliers"}


@pytest.mark.parametrize(
    ("mib", "expected"),
    [
        ((369, 290, 291, 290, 289), {"memory outliers"}),
        ((291, 290, 291, 290, 289), set()),
        ((315, 290, 291, 290, 289), set()),  # far out, but by 9 %
        ((369, 290, 290, 290), set()),  # four rounds say what is odd of none
    ],
)
def test_a_round_with_another_memory_is_told(mib: tuple[float, ...], expected: set[str]) -> None:
    def held(**idle: float | None) -> dict[str, float | None]:
        return dict.fromkeys(("idle_pss", "idle_private", "idle_rss", "peak_rss"), 300.0) | idle

    for name, words in (("idle_private", "private memory"), ("idle_pss", "PSS")):
        records = [run_of(trial_of("a"), rounds=len(mib))]
        for number, each in enumerate(mib):
            records += trial_with("a", [10.0] * 20, number, memory_mib=held(**{name: each}))
        assert kinds(records) == expected
        for warning in warnings(arranged(records)):
            assert f"a: round 1 is far from the others in memory between requests (369 MiB of {words}" in say(warning)
    unknown = trial_with("a", [10.0] * 20, memory_mib=held(idle_private=None, idle_pss=None))
    assert kinds([run_of(trial_of("a"), rounds=1), *unknown]) == set()


@pytest.mark.parametrize(
    ("busy", "late", "fires"), [(0.2, 0.0, False), (0.6, 0.0, True), (0.2, 0.006, True), (0.2, 0.004, False)]
)
def test_a_generator_at_its_limit(busy: float, late: float, fires: bool) -> None:
    generator = {"processor_s": busy * 10, "seconds": 10.0, "sends": 100, "late_share": late, "lag_p99_ms": 1.0}
    records = [run_of(trial_of("a"), rounds=1), *trial_with("a", [10.0] * 20, generator=generator)]
    assert kinds(records) == ({"generator-bound"} if fires else set())


def test_too_few_samples() -> None:
    assert kinds(run_with({"a": [[10.0] * 20, [10.0] * 19]})) == {"too few samples"}
    assert kinds(run_with({"a": [[10.0] * 500] * 2}, slo={"p99": 1.0})) == set()
    [warning] = warnings(arranged(run_with({"a": [[10.0] * 499] * 2}, slo={"p99": 1.0})))
    assert say(warning).startswith("a: p99 needs 1000 requests and has 998. Raise 'repetitions'")


def drifting(change: float, rounds: int, requests: int = 40, **sample: Any) -> list[Record]:
    """Latency that changes by so much in the middle of each trial, with noise that differs between rounds."""
    rng = np.random.default_rng(1)
    records = [run_of(trial_of("a"), rounds=rounds)]
    for number in range(rounds):
        ms = 10 * rng.lognormal(0, 0.02, requests) * np.repeat([1, 1 + change], requests // 2)
        *begun, end = trial_with("a", [], number)
        records += [*begun, *(sample_of("a", float(each), number, **sample) for each in ms), end]
    return records


def test_a_trend_within_the_trials() -> None:
    assert kinds(drifting(0.3, 5)) == {"trend"}
    assert kinds(drifting(-0.3, 5, cold=True)) == {"trend"}
    assert kinds(drifting(0.0, 5)) == set()
    assert kinds(drifting(0.03, 5)) == set()  # it is certain, and too small
    assert kinds(drifting(0.3, 4)) == set()  # no verdict below five rounds
    assert kinds(drifting(0.3, 5, requests=18)) == {"too few samples"}
    header, *replayed = drifting(0.3, 5)
    assert kinds([header | {"workload": {"trace": {"file": "t.csv"}}}, *replayed]) == set()  # its rate may rise
    [rising], [falling] = (warnings(arranged(drifting(change, 5))) for change in (0.3, -0.3))
    assert "lower the rate" in say(rising)
    assert "make the trials longer" in say(falling)


def test_a_cache_that_fills_is_no_trend() -> None:
    """Cold requests at the beginning, warm ones after them: each of both is steady."""
    records = [run_of(trial_of("a"), rounds=5)]
    for number in range(5):
        *begun, end = trial_with("a", [], number)
        cold = [sample_of("a", 50.0, number, cold=True) for _ in range(15)]
        records += [*begun, *cold, *(sample_of("a", 10.0, number) for _ in range(25)), end]
    assert kinds(records) == set()


def test_warnings_are_in_the_summary_and_in_words() -> None:
    summary = summarised(run_with({"a": rounds_of(10, 12, 8)}))
    assert [warning.kind for warning in summary.warnings] == ["noisy machine"]
    assert answer_in_words(summary)[-1].startswith("Warning: a: the machine is noisy: the mean latency varies by 20%")


def answering(*scores: float) -> list[Record]:
    samples = [sample_of("a", 10.0, text=i % len(scores), score=scores[i % len(scores)]) for i in range(20)]
    for sample in samples:
        sample["top"] = [["P", sample["score"]], ["N", 1 - sample["score"]]]
    return [run_of(trial_of("a"), rounds=1), *samples, ended("a")]


@pytest.mark.parametrize(
    ("scores", "fires"), [((0.5, 0.5, 0.5), True), ((0.5, 0.5, 0.5001), False), ((0.9, 0.1), False), ((0.7,), False)]
)
def test_a_model_that_answers_the_same_to_every_text(scores: tuple[float, ...], fires: bool) -> None:
    assert kinds(answering(*scores)) == ({"constant answers"} if fires else set())
