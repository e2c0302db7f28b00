"""What the card says of each kind of finding, once."""

from __future__ import annotations

import pytest

from core.report.prose import answers, economics, flips, notes
from core.report.prose.economics import floor_in_words
from core.report.prose.sentences import say
from core.results import answers as answered
from core.results import economics as priced
from core.results import flips as flipped
from core.results import notes as noted
from core.results.figures import OverLimit
from core.results.recorded import Recorded
from tests.helpers.kinds import kinds_in, kinds_said_in

SETTLES = answered.FurtherRounds(rounds=40, repeats=45)
LACKING = priced.LoadsLacking(recorded="another process maps the file.")
RATE = flipped.Rates(start=2000.0, end=2000.0)
CAPACITY = flipped.Capacity(per_hour=36_000.0, cores=None, clients=4)
LONGER = flipped.Longer(ms=38.0, clients=1)
SAVINGS = answered.SavingsByRate(
    label="a",
    against="b",
    keeps_models=False,
    savings=[answered.RateSaving(per_hour=0.0, saves=73_000.0), answered.RateSaving(per_hour=2000.0, saves=150.4)],
)
A, B = answered.MillionCost(label="a", million=23_900.0), answered.MillionCost(label="b", million=71_100.0)

SAID: list[tuple[Recorded, str]] = [
    (priced.NoCommonRound(), "No round was finished by both."),
    (
        priced.OtherRatesUnknown(label="a"),
        "The cost of a at other rates is unknown: its models expire in the gaps between requests.",
    ),
    (
        priced.CheaperAtAnyRate(label="a", against="b", same_memory=False),
        "a holds less memory than b and costs less per request.",
    ),
    (
        priced.CheaperAtAnyRate(label="a", against="b", same_memory=True),
        "a holds the same memory as b (to within 1 MiB) and costs less per request.",
    ),
    (
        priced.BeyondCapacity(label="a", per_hour=36_000.0),
        "a answered at most 36,000 requests an hour, less than this break-even rate.",
    ),
    (priced.TooFewRounds(), "A measurement, not a verdict: a verdict needs 5 rounds."),
    (
        priced.MemoryNotSeparable(label="a", against="b", rounds=5, cheaper_per_request=True, further_rounds=None),
        (
            "In 5 rounds, no difference in memory between a and b could be shown; a costs less per request. The"
            " number of further rounds needed is unknown: the difference is too small relative to its noise."
        ),
    ),
    (
        priced.MemoryNotSeparable(label="a", against="b", rounds=5, cheaper_per_request=False, further_rounds=7),
        (
            "In 5 rounds, no difference in memory between a and b could be shown, nor in cost per request. About 7"
            " more rounds would decide it, if the true difference is as large as measured."
        ),
    ),
    (
        priced.SameCosts(label="a", against="b", same_memory=True, share=0.05),
        "a and b hold the same memory (to within 1 MiB) and cost the same per request (to within 5%).",
    ),
    (
        priced.SameCosts(label="a", against="b", same_memory=False, share=0.05),
        "a holds less memory than b, and both cost the same per request (to within 5%).",
    ),
    (
        priced.CostNotSeparable(label="a", against="b", same_memory=False, rounds=1, further_rounds=7),
        (
            "a holds less memory than b; in 1 round, no difference in cost per request could be shown. About 7 more"
            " rounds would decide it, if the true difference is as large as measured."
        ),
    ),
    (
        priced.CostNotSeparable(label="a", against="b", same_memory=True, rounds=5, further_rounds=None),
        (
            "a holds the same memory as b (to within 1 MiB); in 5 rounds, no difference in cost per request could be"
            " shown. The number of further rounds needed is unknown: the difference is too small relative to its"
            " noise."
        ),
    ),
    (priced.NotMeasured(kind="no finished round"), "no round of it was finished"),
    (priced.NotMeasured(kind="no answered request"), "in some round no request was answered"),
    (priced.NotMeasured(kind="memory unknown"), "memory is not known, because this system has no /proc"),
    (priced.NotMeasured(kind="memory over time unknown"), "models expire, and memory over time is not known"),
    (priced.NotMeasured(kind="CPU time unknown"), "CPU time could not be read"),
    (
        priced.MemoryOverSizes(held_mib=2000.0, largest_mib=1024.0),
        "it held up to 2000 MiB, start-up included, and the largest of 'sizes' has 1024 MiB",
    ),
    (
        priced.CoresOverSizes(took=0.6, largest=0.5),
        "it took 0.6 cores on average, and the largest of 'sizes' has 0.5",
    ),
    (LACKING, "another process maps the file"),
    (
        priced.LoadsLacking(recorded=None),
        "loads from disk and from the page cache were not measured separately",
    ),
    (OverLimit(held_mib=500.0, limit_mib=450.0), "held up to 500 MiB, start-up included, over the limit of 450 MiB"),
    (
        priced.PricesUsed(
            memory_gib_hour=0.004445,
            cpu_hour=0.04048,
            latency_hour=2.5,
            charge="private",
            billing="peak",
            sizes=(),
        ),
        (
            "Prices (in US dollars, AWS Fargate's unit prices): a GiB-hour of memory (private memory, the most that"
            " was held, all the time) 0.00445; a core-hour 0.0405; an hour of a caller's waiting 2.5. Fargate itself"
            " bills the size of a task, not what it uses; to price it that way, set 'billing: size'. Set your own"
            " under 'cost' in the experiment."
        ),
    ),
    (
        priced.PricesUsed(
            memory_gib_hour=0.0,
            cpu_hour=0.0,
            latency_hour=0.0,
            charge="pss",
            billing="size",
            sizes=(priced.SizePrice(memory_mib=512.0, cpu=0.25, hour=3.0),),
        ),
        (
            "Hourly price of each size: 3 for 512 MiB and 0.25 cores; waiting is free. Set your own under 'cost' in"
            " the experiment."
        ),
    ),
    (
        priced.Floor(trial="a", rss_mib=400.0, pss_mib=384.0),
        (
            "A server without a model takes 400 MiB of resident memory (384 MiB PSS, measured under a). No setting"
            " takes less."
        ),
    ),
    (RATE, "at 2,000 requests an hour"),
    (
        flipped.Rates(start=36_000.0, end=36_000.0, as_measured=True),
        "at 36,000 requests an hour (10 a second), as in this run",
    ),
    (flipped.Rates(start=0.0, end=2000.0), "up to 2,000 requests an hour"),
    (flipped.Rates(start=100.0, end=2000.0), "from 100 to 2,000 requests an hour"),
    (
        CAPACITY,
        "it answered at most 36,000 requests an hour (10 a second) for 4 clients sending requests back to back",
    ),
    (
        flipped.Capacity(per_hour=2000.0, cores=0.25, clients=1),
        "the 0.25 cores of its size can compute at most 2,000 requests an hour",
    ),
    (LONGER, "a request that does not have to queue takes 38 ms longer on average"),
    (
        flipped.Longer(ms=38.0, clients=16),
        "for 16 clients sending requests back to back, a request takes 38 ms longer on average",
    ),
    (flipped.Longer(ms=38.0, clients=0), "it costs your callers 38 ms each on average"),
    (
        flipped.BreakEvenFlip(
            at=2000.0,
            to="a",
            instead="b",
            ci95=(1900.0, 2100.0),
            start=0.0,
            saves=73_000.0,
            above=3000.0,
            saves_above=125.0,
            longer=LONGER,
        ),
        (
            "Below 2,000 requests an hour (95 % interval 1,900 to 2,100) a is cheaper, by at most 73,000 a month; a"
            " request that does not have to queue takes 38 ms longer on average. Above that rate b is cheaper, and"
            " the saving grows with the rate: 125 a month at 3,000 requests an hour."
        ),
    ),
    (
        flipped.BreakEvenFlip(
            at=2000.0,
            to="a",
            instead="b",
            ci95=None,
            start=100.0,
            saves=1.0,
            above=3000.0,
            saves_above=2.0,
            longer=None,
        ),
        (
            "From 100 to 2,000 requests an hour a is cheaper, by at most 1 a month. Above that rate b is cheaper, and"
            " the saving grows with the rate: 2 a month at 3,000 requests an hour."
        ),
    ),
    (
        flipped.MeasuredFlip(at=2000.0, to="a", instead="b"),
        (
            "By these measurements a and b cost the same at 2,000 requests an hour, and a costs less below that rate;"
            " that is not a verdict."
        ),
    ),
    (
        flipped.CapacityFlip(at=36_000.0, to="a", instead="b", is_verdict=True, longer=None, capacity=CAPACITY),
        (
            "Up to 36,000 requests an hour (10 a second) a is cheaper. Above that rate it may not keep up, so use b:"
            " it answered at most 36,000 requests an hour (10 a second) for 4 clients sending requests back to back."
        ),
    ),
    (
        flipped.CapacityFlip(at=36_000.0, to="a", instead="b", is_verdict=False, longer=LONGER, capacity=CAPACITY),
        (
            "Up to 36,000 requests an hour (10 a second) a costs less by these measurements; a request that does not"
            " have to queue takes 38 ms longer on average. Above that rate it may not keep up, so use b: it answered"
            " at most 36,000 requests an hour (10 a second) for 4 clients sending requests back to back."
        ),
    ),
    (
        flipped.OtherRateFlip(at=2000.0, to="b", instead="a", side="below", ci95=(1900.0, 2100.0)),
        "Below 2,000 requests an hour (95 % interval 1,900 to 2,100) b would be cheaper than a.",
    ),
    (
        flipped.CapacityReachedFlip(at=36_000.0, to="b", instead="a", capacity=CAPACITY),
        (
            "Above 36,000 requests an hour (10 a second), use b instead of a: it answered at most 36,000 requests an"
            " hour (10 a second) for 4 clients sending requests back to back."
        ),
    ),
    (
        flipped.MemoryPriceFlip(at=2.0, to="b", side="below", ci95=(1.5, 2.5), price=4.0),
        "If a GiB-hour of memory cost less than 2 (95 % interval 1.5 to 2.5) (it costs 4), b would be cheaper.",
    ),
    (
        flipped.MemoryPriceFlip(at=8.0, to="b", side="above", ci95=None, price=4.0),
        "If a GiB-hour of memory cost more than 8 (it costs 4), b would be cheaper.",
    ),
    (
        flipped.LatencyFlip(at=30.0, percentile="p50", to="b", to_ms=6.0, instead="a", clients=0),
        "If p50 must be below 30 ms, a is too slow, whatever its cost; use b (p50 6.0 ms).",
    ),
    (
        flipped.LatencyFlip(at=48.0, percentile="p50", to="b", to_ms=10.0, instead="a", clients=1),
        "If p50 must be below 48 ms, a is too slow, whatever its cost; use b (p50 10.0 ms).",
    ),
    (
        flipped.LatencyFlip(at=48.0, percentile="p99", to="b", to_ms=10.0, instead="a", clients=16),
        (
            "If p99 of 16 clients sending requests back to back must be below 48 ms, a is too slow, whatever its"
            " cost; use b (p99 10.0 ms)."
        ),
    ),
    (
        answered.RoundsLacking(lacking=3, repeats=5),
        "A recommendation needs 5 rounds finished by every trial; 3 are missing (set repeats: 5).",
    ),
    (
        SETTLES,
        "About 40 more rounds would decide it, if the true difference is as large as measured (repeats: 45).",
    ),
    (
        answered.TrialLacking(has_second=False),
        "A recommendation needs a second strategy; name one under 'strategies'.",
    ),
    (answered.TrialLacking(has_second=True), "A recommendation needs a second strategy that can be priced."),
    (
        answered.NothingPriced(reasons=[]),
        "There is no recommendation, because nothing can be priced: this run states no prices.",
    ),
    (
        answered.NothingPriced(
            reasons=[priced.NotMeasured(kind="no finished round"), priced.NotMeasured(kind="CPU time unknown")]
        ),
        (
            "There is no recommendation, because nothing can be priced: CPU time could not be read; no round of it"
            " was finished."
        ),
    ),
    (answered.NothingEligible(), "There is nothing to recommend."),
    (answered.NoAlternative(label="a"), "There is no other eligible trial to compare a with."),
    (
        answered.MeasuredCosts(rates=RATE, first=A, second=B),
        (
            "At 2,000 requests an hour, a million requests cost 23,900 under a and 71,100 under b, by these"
            " measurements; that is not a verdict."
        ),
    ),
    (
        answered.CheapestAtRate(rates=RATE, first=A, second=B, ci95=(47_200.0, 47_300.0), longer=LONGER),
        (
            "At 2,000 requests an hour, a is the cheapest, ahead of b: 23,900 against 71,100 for a million requests"
            " (95 % interval of the difference 47,200 to 47,300); a request that does not have to queue takes 38 ms"
            " longer on average."
        ),
    ),
    (
        answered.CheapestNotSettled(
            rates=RATE,
            first=A,
            others=[answered.PerhapsCheaper(label=each, million=24_000.0, ci95=(-5.0, 200.0)) for each in ("b", "c")],
        ),
        (
            "At 2,000 requests an hour, it is not settled whether a costs less than b and c: 23,900 for a million"
            " requests against 24,000 under b (95 % interval of the difference -5 to 200) and 24,000 under c (95 %"
            " interval of the difference -5 to 200)."
        ),
    ),
    (
        answered.FastestOfSame(
            rates=RATE,
            label="a",
            mean_ms=10.0,
            slower=[answered.MeanLatency(label="b", ms=48.0)],
            alike=[answered.MeanLatency(label="c", ms=10.5)],
            has_fewest_options=True,
            saves=0.73,
            trifle=1.0,
        ),
        (
            "At 2,000 requests an hour, no alternative saves more than 0.73 a month (the threshold, 'trifle', is 1),"
            " so the fastest is recommended: a takes 10.0 ms on average, against 48 ms under b. The rounds do not"
            " show it to be faster than c (10.5 ms); it has fewer options."
        ),
    ),
    (
        answered.FastestOfSame(
            rates=None,
            label="a",
            mean_ms=10.0,
            slower=[],
            alike=[],
            has_fewest_options=False,
            saves=None,
            trifle=1.0,
        ),
        "No alternative saves more than 5% of the cost, so the fastest is recommended: a takes 10.0 ms on average.",
    ),
    (
        answered.SavingsAtRate(
            label="a",
            savings=[
                answered.MonthlySaving(against="b", saves=62_800.0, keeps_models=False),
                answered.MonthlySaving(against="c", saves=204_000.0, keeps_models=True),
            ],
        ),
        "a saves 62,800 a month compared with b and 204,000 a month compared with c, which keeps its models.",
    ),
    (
        SAVINGS,
        "Compared with b, a saves 73,000 a month with no requests and 150 a month at 2,000 requests an hour.",
    ),
    (
        SAVINGS.model_copy(update={"keeps_models": True}),
        (
            "Compared with b, which keeps its models, a saves 73,000 a month with no requests and 150 a month at"
            " 2,000 requests an hour."
        ),
    ),
    (
        answered.CheapestAtEveryRate(savings=SAVINGS),
        (
            "a is the cheapest at every rate. Compared with b, a saves 73,000 a month with no requests and 150 a"
            " month at 2,000 requests an hour."
        ),
    ),
    (
        answered.MeasuredCheapest(label="a"),
        "By these measurements a costs the least at every rate; that is not a verdict.",
    ),
    (answered.NoneKnownCheaper(label="a"), "No other is known to cost less than a at any rate."),
    (
        answered.RateNotSettled(label="a", against="b", side="above", at=2000.0, settles=SETTLES),
        (
            "Above 2,000 requests an hour it is not settled whether a costs less than b. About 40 more rounds would"
            " decide it, if the true difference is as large as measured (repeats: 45)."
        ),
    ),
    (
        answered.RateNotSettled(
            label="a", against="b", side=None, at=2000.0, settles=answered.FurtherRounds(rounds=None, repeats=None)
        ),
        (
            "It is not settled whether a costs less than b. The number of further rounds needed is unknown: the"
            " difference is too small relative to its noise."
        ),
    ),
    (
        answered.TargetMet(label="a", percentile="p99", target_ms=200.0, rounds=5, least=0.549),
        "All 5 server processes of a met p99 ≤ 200 ms, so at least 55% of all such processes do.",
    ),
    (
        answered.TargetNotSettled(label="a", percentile="p95", target_ms=20.0),
        "Whether a meets p95 ≤ 20 ms is not settled.",
    ),
    (noted.LeftOutForErrors(label="a", errors=2), "a is left out: it answered 2 requests with an error."),
    (noted.LeftOutForAnswers(label="a"), "a is left out: its answers differ from those of the others."),
    (
        noted.LeftOutForMemory(label="a", over=OverLimit(held_mib=500.0, limit_mib=450.0)),
        "a is left out: it held up to 500 MiB, start-up included, over the limit of 450 MiB.",
    ),
    (
        noted.LeftOutForTarget(label="a", percentile="p50", target_ms=20.0),
        "a is left out: it misses p50 ≤ 20 ms.",
    ),
    (
        noted.LeftOutForCapacity(label="a", capacity=CAPACITY),
        (
            "a is left out: it answered at most 36,000 requests an hour (10 a second) for 4 clients sending requests"
            " back to back."
        ),
    ),
    (
        noted.NotCompared(label="a"),
        (
            "a is not compared: its models expire, so its cost depends on the gaps between requests. Give the"
            " experiment a 'workload'."
        ),
    ),
    (
        noted.ValidGaps(label="a", shorter_than_s=300.0),
        "The cost of a is valid only if every gap between requests is shorter than 5 min.",
    ),
    (
        noted.NotPriced(label="a", reason=priced.NotMeasured(kind="no finished round")),
        "a cannot be priced: no round of it was finished.",
    ),
    (
        noted.BackToBackProcessor(),
        "CPU time was measured with back-to-back requests; with pauses in between, a request usually takes more.",
    ),
    (
        noted.BackToBackWaiting(clients=16),
        "Waiting is priced as measured for 16 clients sending requests back to back; fewer clients wait less.",
    ),
    (
        noted.UnknownAbove(label="a", capacity=CAPACITY),
        (
            "Nothing is known of a above that rate: it answered at most 36,000 requests an hour (10 a second) for 4"
            " clients sending requests back to back."
        ),
    ),
    (
        noted.CheapestElsewhereUnknown(label="a"),
        (
            "It is unknown at which other rates a stops being the cheapest: its models expire in the gaps between"
            " requests, and other rates have other gaps."
        ),
    ),
    (
        noted.OtherCheapestAtTwice(label="a", start=0.0),
        "At twice the price of memory, a is the cheapest at every rate.",
    ),
    (
        noted.OtherCheapestAtTwice(label="a", start=2000.0),
        "At twice the price of memory, a is the cheapest from 2,000 requests an hour on.",
    ),
    (
        noted.RatesAtTwice(rates=[100.0, 2000.0]),
        "At twice the price of memory, the answer changes at 100 requests an hour and 2,000 requests an hour.",
    ),
    (
        noted.SizeFits(
            size=priced.SizePrice(memory_mib=512.0, cpu=0.25, hour=3.0),
            trials=[noted.Fitting(label="a", per_hour=90_000.0), noted.Fitting(label="b", per_hour=15_000.0)],
            waiting_costs=True,
        ),
        (
            "a and b fit the same size, 512 MiB and 0.25 cores at 3 an hour, and so cost the same, apart from the"
            " cost of waiting. By the CPU time measured here, its cores can answer up to 90,000 (a) and 15,000 (b)"
            " requests an hour; latencies are those of this machine."
        ),
    ),
    (
        noted.SizeFits(
            size=priced.SizePrice(memory_mib=512.0, cpu=0.25, hour=3.0),
            trials=[noted.Fitting(label="a", per_hour=90_000.0)],
            waiting_costs=False,
        ),
        (
            "a needs the size of 512 MiB and 0.25 cores at 3 an hour. By the CPU time measured here, its cores can"
            " answer up to 90,000 (a) requests an hour; latencies are those of this machine."
        ),
    ),
    (
        noted.LoadsPriced(page_cache="warm", billing="average", measured="warm", differences=[]),
        (
            "Loads are priced as loads from the page cache, because mapped pages are not charged and stay in the page"
            " cache."
        ),
    ),
    (
        noted.LoadsPriced(page_cache="warm", billing="peak", measured="warm", differences=[]),
        (
            "Loads are priced as loads from the page cache, because the memory is paid for all the time and the pages"
            " stay in it."
        ),
    ),
    (
        noted.LoadsPriced(
            page_cache="cold",
            billing="average",
            measured="warm",
            differences=[
                noted.LoadDifference(label="a", rounds=5, further_ms=30.0, further_processor_s=0.05),
                noted.LoadDifference(label="b", rounds=5, further_ms=-30.0, further_processor_s=-0.05),
                noted.LoadDifference(label="c", rounds=5, further_ms=None, further_processor_s=None),
            ],
        ),
        (
            "Loads are priced as loads from disk, because freed memory is assumed to be reused by others (a: 30 ms"
            " longer and 50 ms more CPU time than from the page cache; b: 30 ms shorter and 50 ms less CPU time than"
            " from the page cache; c: no difference from the page cache could be shown in 5 rounds)."
        ),
    ),
    (
        noted.LatenciesMeasured(page_cache="warm"),
        "Reported latencies are as measured, with loads from the page cache.",
    ),
    (
        noted.LoadCostUnknown(page_cache="cold", labels=["a"], reason=LACKING),
        (
            "The cost of a load from disk is unknown for a (another process maps the file), so its loads are priced"
            " as measured, from the page cache. Loads from disk cost more, so keeping the model pays from a lower"
            " rate than reported."
        ),
    ),
    (
        noted.LoadCostUnknown(page_cache="warm", labels=["a", "b"], reason=LACKING),
        (
            "The cost of a load from the page cache is unknown for a and b (another process maps the file), so their"
            " loads are priced as measured, from disk. Loads from the page cache cost less, so keeping the model pays"
            " from a higher rate than reported."
        ),
    ),
    (
        noted.MemoryLimit(limit_mib=450.0, floor=priced.Floor(trial="a", rss_mib=400.0, pss_mib=384.0)),
        (
            "The limit is 450 MiB of resident memory. A server without a model takes 400 MiB of resident memory (384"
            " MiB PSS, measured under a). No setting takes less."
        ),
    ),
    (
        noted.OtherCharge(charge="private", loads_from="warm", answer=[answered.NoAlternative(label="a")]),
        (
            "With 'charge: private' (private memory is charged; loads are then priced as loads from the page cache),"
            " the answer is: There is no other eligible trial to compare a with."
        ),
    ),
    (
        noted.OtherCharge(charge="pss", loads_from=None, answer=[answered.NothingEligible()]),
        "With 'charge: pss' (PSS is charged), the answer is: There is nothing to recommend.",
    ),
]


@pytest.mark.parametrize(("finding", "sentence"), SAID, ids=lambda each: type(each).__name__)
def test_it_is_said(finding: Recorded, sentence: str) -> None:
    assert say(finding) == sentence


def test_every_kind_is_said_here() -> None:
    """Those that a card or its costs may have, and those for which there are words."""
    kinds = kinds_in(noted.Finding) | kinds_in(answered.Settles) | kinds_in(priced.Unpriced)
    assert len(kinds) > 40
    assert kinds | kinds_said_in(answers, economics, flips, notes) == {type(finding) for finding, _ in SAID}


def test_what_has_no_words_is_an_error() -> None:
    with pytest.raises(TypeError, match="nothing says Recorded"):
        say(Recorded())


def test_a_floor_that_was_not_measured_is_said_with_what_would_measure_it() -> None:
    assert floor_in_words(None) == (
        "The memory of a server without a model is unknown, because every server held one when it was measured. To"
        " measure it, add a strategy that frees its models after each request."
    )
