"""Flips, sides and savings are told no sharper than the rounds allow, and never against themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest

from core.advice.findings import compared, targets
from core.costs.break_even import crossing
from core.report.prose.sentences import say
from core.results.summary import Summary
from core.stats.intervals import typical
from tests.helpers.priced import card_of, costing, economics_of
from tests.helpers.synthetic import Record, run_of, summarised, trial_of, trial_with
from tests.unit.test_card import BY_SIZE, KEPT, LOADED, OPEN, SLOW, TWO, WOBBLE

CLOSED = {"closed": {"clients": 16, "duration": 2.0}}


def noisy(mib: float, cpu: float, of_cpu: float) -> list[tuple[float, float]]:
    """Rounds that differ in CPU time by up to that share."""
    return [(mib, cpu * (1 + of_cpu * each / max(WOBBLE))) for each in WOBBLE]


def test_no_flip_where_the_rounds_do_not_tell_who_holds_more() -> None:
    wobble = [(400.0 + change, 0.06) for change in (180.0, -90.0, 70.0, 20.0, 150.0)]
    found = card_of(costing({"persistent": KEPT, "on-demand": wobble}))
    assert not [flip for flip in found.flips if flip.what == "rate"]
    told = " ".join(found.sentences)
    assert "is cheaper, by at most" not in told
    assert "At twice the price" not in told
    assert "it is not settled whether" in told.lower()


def test_between_the_bounds_of_a_flip_nothing_is_recommended() -> None:
    """What is recommended without a rate is what is recommended at that rate."""
    trials = {"persistent": noisy(500.0, 0.01, 0.4), "on-demand": noisy(400.0, 0.06, -0.4)}
    free = {"trifle": 0.0}
    found = card_of(costing(trials, SLOW, cost=free))
    [flip] = [flip for flip in found.flips if flip.what == "rate"]
    below, above = (each.where.replace(",", "") for each in found.settings)
    end, start = (float(re.findall(r"[\d.]+", where)[0]) for where in (below, above))
    assert end < flip.at < start
    for rate, label in ((0.98 * end, "on-demand"), (1.02 * start, "persistent"), (flip.at, None)):
        assert card_of(costing(trials, SLOW, cost=free, rate=rate / 3600)).recommended == label


def test_below_five_rounds_there_are_figures_and_no_verdict() -> None:
    few = {label: rounds[:2] for label, rounds in TWO.items()}
    for changes in ({}, {"rate": 1.0}, {"workload": OPEN}):
        told = " ".join(card_of(costing(few, SLOW, **changes)).sentences)
        assert "by these measurements" in told.lower()
        assert "that is not a verdict" in told
        assert not re.search(r"is the cheapest|is cheaper|would be cheaper", told)


def test_a_saving_is_told_up_to_the_rate_that_both_answered() -> None:
    records = costing(TWO, SLOW)
    slower = [
        record | {"steady_s": 4.0, "processor_s": 2 * record["processor_s"] / 2}
        if record["kind"] == "trial" and record["trial"] == "on-demand"
        else record
        for record in records
    ]
    told = card_of(slower).sentences
    assert any("a month at 18,000 requests an hour" in sentence for sentence in told)
    assert not any("a month at 36,000 requests an hour" in sentence for sentence in told)


def test_nothing_is_said_to_save_less_than_nothing() -> None:
    """`b` ties with the cheapest one and is the fastest; `c` certainly costs more than `a`, and less than `b`."""
    costs = {
        "a": [(500.0, 0.01)] * 5,
        "b": [(500.0, 0.01 + each) for each in (0.0004, -0.0004, 0.0003, -0.0003, 0.0001)],
        "c": [(502.0, 0.01)] * 5,
    }
    found = card_of(costing(costs, {"b": 5.0}, workload=OPEN))
    assert not re.search(r"saves -", " ".join(found.sentences))


def memory_run(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    records: list[Record] = [run_of(trial_of("a"), trial_of("b"), rounds=len(ours))]
    for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        records += [*trial_with("a", [10.0] * 20, number, pss=one), *trial_with("b", [10.0] * 20, number, pss=other)]
    return summarised(records)


def test_one_odd_process_does_not_turn_a_verdict_round() -> None:
    summary = memory_run([398.0] * 9 + [500.0], [400.0] * 10)
    [told] = [sentence for sentence in map(say, compared(summary)) if "PSS" in sentence]
    assert told.startswith("b holds 2 MiB less than a: PSS between requests 398 against 400 MiB")
    assert summary.trials[1].memory_mib.idle_pss == 398


def test_a_mean_lies_within_its_interval() -> None:
    records: list[Record] = [run_of(trial_of("a"), rounds=10)]
    for number in range(10):
        records += trial_with("a", [100.0 if number == 9 else 10.0] * 20, number)
    latency = summarised(records).trials[0].latency_ms
    low, high = latency.mean_ci95 or (math.nan, math.nan)
    assert latency.mean is not None
    assert low <= latency.mean <= high
    assert latency.p50 == 10


def test_it_is_not_said_that_a_target_is_met_by_all_processes() -> None:
    records = costing(TWO, slo={"p50": 0.02})
    for sentences in ([*map(str, targets_of(records))], card_of(records).sentences):
        [told] = [each for each in sentences if "All 5 server processes" in each][:1]
        assert "at least 55% of all such processes do" in told
        assert not any(re.search(r"\bmeets\b", each) for each in sentences)


def targets_of(records: Sequence[Record]) -> Sequence[str]:
    return [say(each) for each in targets(summarised(records))]


def test_waiting_is_that_of_the_clients_that_asked() -> None:
    priced = {"latency_hour": 1.0}
    for rate in (None, 200 / 3600):
        told = " ".join(card_of(costing(TWO, SLOW, workload=CLOSED, rate=rate, cost=priced)).sentences)
        assert "costs your callers" not in told
        assert "Waiting is priced as measured for 16 clients sending requests back to back" in told
    told = " ".join(card_of(costing(TWO, SLOW, workload=CLOSED)).sentences)
    assert "for 16 clients sending requests back to back, a request takes 38 ms longer on average" in told


def test_a_wait_that_the_rounds_do_not_tell_is_not_told() -> None:
    records = costing(TWO, {"on-demand": 10.4})
    wobbling = [
        record | {"ms": record["ms"] + (record["round"] % 2) * 2 - 1}
        if record["kind"] == "sample" and record["trial"] == "on-demand"
        else record
        for record in records
    ]
    assert "longer on average" not in " ".join(card_of(wobbling).sentences)


def test_the_price_of_memory_at_which_it_flips_has_an_interval() -> None:
    trials = {"persistent": noisy(500.0, 0.01, 0.1), "on-demand": noisy(400.0, 0.06, -0.1)}
    [flip] = [each for each in card_of(costing(trials, SLOW, workload=OPEN)).flips if each.what == "memory price"]
    [bounds] = re.findall(r"interval ([\d,.]+) to ([\d,.]+)", say(flip))
    low, high = (float(each.replace(",", "")) for each in bounds)
    assert low < flip.at < high
    wobble = [(400.0 + change, 0.06) for change in (180.0, -90.0, 70.0, 20.0, 150.0)]
    unsure = card_of(costing({"persistent": KEPT, "on-demand": wobble}, SLOW, workload=OPEN))
    assert not [flip for flip in unsure.flips if flip.what == "memory price"]


def test_a_rate_lies_within_its_interval() -> None:
    more, less = [1.0] * 9 + [3.0] * 9 + [2.0] * 2, [0.1] * 9 + [0.3] * 9 + [1.0] * 2
    at, low, high = crossing(more, less)
    assert low <= at <= high
    rng = np.random.default_rng(5)
    for _ in range(200):
        more, less = (rng.lognormal(0, 0.5, 9).tolist() for _ in range(2))
        at, low, high = crossing(more, less)
        assert low <= at <= high
        assert at == pytest.approx(typical([m / s for m, s in zip(more, less, strict=True)]))


def test_a_size_answers_no_more_than_its_cores_have_time_for() -> None:
    """0.06 core seconds for each request, of a quarter of a core: 15 000 an hour, of the 36 000 that were measured."""
    found = card_of(costing({"persistent": [(600.0, 0.01)] * 5, "on-demand": LOADED}, cost=BY_SIZE))
    told = " ".join(found.sentences)
    assert "Up to 15,000 requests an hour (4.17 a second) on-demand is cheaper" in told
    assert "the 0.25 cores of its size can compute at most 15,000 requests an hour" in told
    assert found.settings[0].where == "up to 15,000 requests an hour (4.17 a second)"
    busy = costing({"persistent": KEPT, "on-demand": [(400.0, 0.04)] * 5}, workload=OPEN, cost=BY_SIZE)
    needs = {trial.label: trial.holding_per_hour for trial in economics_of(busy).trials}
    assert needs == {"persistent": 3.0, "on-demand": 7.0}  # 0.4 cores at ten requests a second
    too_busy = economics_of(costing({"persistent": KEPT, "on-demand": LOADED}, workload=OPEN, cost=BY_SIZE))
    assert {label: say(why) for label, why in too_busy.unpriced.items()} == {
        "on-demand": "it took 0.6 cores on average, and the largest of 'sizes' has 0.5"
    }


def test_what_costs_the_same_to_the_cent_is_told_without_a_trifle() -> None:
    told = card_of(costing({"a": KEPT, "b": KEPT}, cost={"trifle": 0.0})).sentences
    assert not any("(the threshold, 'trifle', is 0)" in sentence for sentence in told)
