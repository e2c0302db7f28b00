"""The card: what it recommends, where that flips, what it refuses to say, and its settings in a real server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.choices import Cost
from core.decide.amounts import listed, number, rate
from core.decide.summary import summarise
from core.report.card import card
from core.report.table import footnotes
from tests.priced import costing, ended_with, loading
from tests.support import uvicorn
from tests.synthetic import Record, sample_of

KEPT, LOADED = [(500.0, 0.01)] * 5, [(400.0, 0.06)] * 5
TWO = {"persistent": KEPT, "on-demand": LOADED}
SLOW = {"on-demand": 48.0}
OPEN = {"open": {"rate": 10.0, "arrivals": "poisson", "popularity": "uniform", "requests": 20}}
WOBBLE = (0.004, -0.004, 0.003, -0.003, 0.001)


def card_of(records: Sequence[Record]) -> Any:
    return summarise(records)["card"]


def test_without_traffic_it_says_below_and_above_which_rate() -> None:
    found = card_of(costing(TWO, SLOW))
    assert (found["recommended"], found["runner_up"], found["settles"]) == ("persistent", "on-demand", None)
    first, second, target, *_ = found["sentences"]
    assert first == "Recommended: persistent, from 2,000 requests an hour on; the runner-up is on-demand."
    assert second == (
        "Below 2,000 requests an hour (95 % interval 2,000 to 2,000) on-demand is cheaper; it costs your callers 38 ms"
        " each. Above, persistent is."
    )
    assert target == (
        "Where p50 must be below 48 ms, on-demand will not do, whatever it costs: take persistent (p50 10.0 ms)."
    )
    assert [(flip["what"], flip["at"], flip["to"]) for flip in found["flips"]] == [
        ("rate", pytest.approx(2000), "on-demand"),
        ("latency target", 48, "persistent"),
    ]


def test_what_costs_the_same_is_told_once_and_not_recommended_in_place_of_the_first() -> None:
    found = card_of(costing(TWO | {"lru-cached": KEPT}))
    assert found["recommended"] == "persistent"
    assert "lru-cached and persistent cost the same, as far as 5 rounds can tell." in found["sentences"]
    assert [flip["to"] for flip in found["flips"]] == ["on-demand"]
    same = card_of(costing({"a": KEPT, "b": KEPT}))
    assert (same["recommended"], same["flips"]) == ("a", [])
    assert (
        same["sentences"][1]
        == "No other is cheaper than a at any rate; as far as the rounds can tell, b costs the same."
    )


def test_what_the_rounds_cannot_tell_at_high_rates_is_not_claimed() -> None:
    found = card_of(costing({"a": KEPT, "b": [(400.0, 0.01 + 20 * wobble) for wobble in WOBBLE]}))
    assert found["recommended"] == "b"
    assert found["sentences"][1] == ("b is the cheapest at low rates; at high ones the rounds cannot tell it from a.")
    assert found["sentences"][2].startswith("b holds less than a; what a request costs is not separable in 5 rounds.")


@pytest.mark.parametrize("trials", [TWO, TWO | {"idle": [(300.0, 0.5)] * 5}])
def test_at_twice_the_price_of_memory_it_is_as_it_says(trials: dict[str, list[tuple[float, float]]]) -> None:
    """Held against a run with that price, in which each request also pays for some memory above the idle level."""
    once, twice = (
        card_of(ended_with(costing(trials, cost={"memory_gib_hour": 1024.0 * times}), "on-demand", mean_rss=420.0))
        for times in (1, 2)
    )
    rates = [rate(flip["at"]) for flip in twice["flips"] if flip["what"] == "rate"]
    assert f"At twice the price of memory it flips at {listed(rates)}." in once["sentences"]


def test_memory_that_still_grows_makes_no_request_cheaper() -> None:
    for records in (costing(TWO), ended_with(costing(TWO), "persistent", mean_rss=450.0)):
        kept = next(t for t in summarise(records)["economics"]["trials"] if t["label"] == "persistent")
        assert kept["per_request"] == pytest.approx(0.01)


def test_where_rounds_failed_more_than_were_due_are_named() -> None:
    records = costing(TWO)
    lost = [r for r in records if not (r["kind"] == "trial" and r["round"] == 4 and r["trial"] == "persistent")]
    assert "1 more than there are (repeats: 6)." in card_of(lost)["settles"]


def test_a_cheaper_one_at_every_rate() -> None:
    found = card_of(costing({"a": KEPT, "b": [(400.0, 0.005)] * 5}))
    assert (found["recommended"], found["runner_up"]) == ("b", "a")
    assert found["sentences"][:3] == [
        "Recommended: b; the runner-up is a.",
        "b is the cheapest at every rate.",
        "b holds less than a, and costs less for each request.",
    ]


def test_beyond_what_was_answered_it_says_so() -> None:
    found = card_of(costing({"kept": [(5000.0, 0.01)] * 5, "loaded": LOADED}))
    assert found["recommended"] == "loaded"  # nothing was asked more often than that
    closed = {"closed": {"clients": 4, "duration": 2.0}}
    records = costing({"kept": [(5000.0, 0.01)] * 5, "loaded": LOADED}, workload=closed)
    slower = ended_with(records, "loaded", steady_s=4.0)
    sentences = card_of(slower)["sentences"]
    assert any(s.startswith("Up to 18,000 requests an hour (5 a second) loaded is cheaper") for s in sentences)
    assert any("4 clients that ask without pause" in s for s in sentences)


def test_with_traffic_it_recommends_for_that_rate() -> None:
    found = card_of(costing(TWO, SLOW, workload=OPEN))  # 36 000 an hour
    assert (found["recommended"], found["runner_up"], found["settles"]) == ("persistent", "on-demand", None)
    # 500 + 0.01 · 36 000 = 860 an hour against 400 + 0.06 · 36 000 = 2560, and a millionth of the hour's requests.
    assert found["sentences"][1] == (
        "At 36,000 requests an hour (10 a second), as in this run, persistent is the cheapest, before on-demand: 23,900"
        " against 71,100 for a million requests (95 % interval of the difference 47,200 to 47,200)."
    )
    flips = {flip["what"]: flip for flip in found["flips"]}
    assert (flips["rate"]["at"], flips["rate"]["to"]) == (pytest.approx(2000), "on-demand")
    assert flips["rate"]["sentence"].startswith("Below 2,000 requests an hour")
    # 500 · p + 360 = 400 · p + 2160, where p is 1 for a MiB, and 1024 for a GiB.
    assert (flips["memory price"]["at"], flips["memory price"]["to"]) == (pytest.approx(18 * 1024), "on-demand")
    assert "latency target" not in flips  # nothing is quicker
    dear = card_of(costing(TWO, SLOW, cost={"memory_gib_hour": 1024.0 * 36}, workload=OPEN))
    assert dear["recommended"] == "on-demand"
    assert {flip["what"]: flip["to"] for flip in dear["flips"]} == dict.fromkeys(
        ("rate", "memory price", "latency target"), "persistent"
    )
    assert "it costs your callers 38 ms each" in dear["sentences"][1]


def test_costs_that_are_not_separable_are_no_choice() -> None:
    noisy = [(500.0, 0.01 + wobble) for wobble in WOBBLE]
    found = card_of(costing({"a": KEPT, "b": noisy}, workload=OPEN))
    assert (found["recommended"], found["yaml"]) == (None, None)
    assert "are not separable" in found["sentences"][0]
    assert found["settles"].startswith(("About ", "Over 1000 more rounds"))
    close = [(500.0, 0.01 + wobble / 20) for wobble in WOBBLE]
    found = card_of(costing({"a": KEPT, "b": close}, workload=OPEN))
    assert found["recommended"] in ("a", "b")
    assert "cost the same within 5%" in found["sentences"][1]


def test_too_few_rounds_or_trials_are_no_choice() -> None:
    for workload in (None, OPEN):
        found = card_of(costing({label: rounds[:2] for label, rounds in TWO.items()}, workload=workload))
        assert (found["recommended"], found["yaml"]) == (None, None)
        assert found["settles"] == (
            "These are figures; a recommendation takes 5 rounds that every trial finished, 3 more than there are"
            " (repeats: 5)."
        )
        alone = card_of(costing({"persistent": KEPT}, workload=workload))
        assert (alone["recommended"], alone["yaml"]) == (None, None)
        assert alone["settles"] == "A choice takes a second strategy; name one under 'strategies'."
        [header, *rest] = costing(TWO, workload=workload)
        failed = card_of([header, *(record for record in rest if record["trial"] == "on-demand")])
        assert (failed["recommended"], failed["settles"]) == (
            None,
            "A choice takes a second strategy that can be priced.",
        )
        assert "persistent cannot be priced: no round of it was finished." in failed["sentences"]


def test_errors_and_missed_targets_are_left_out() -> None:
    broken = [*costing(TWO), sample_of("on-demand", 1.0, status=503)]
    broken[-2:] = reversed(broken[-2:])
    for workload in (None, OPEN):
        records = [record | ({"workload": workload} if record["kind"] == "run" else {}) for record in broken]
        found = card_of(records)
        assert "on-demand is left out: it answered 1 requests with an error." in found["sentences"]
        assert (found["recommended"], found["flips"]) == ("persistent", [])
        missed = card_of(costing(TWO, SLOW, slo={"p50": 0.02}, workload=workload))
        assert "on-demand is left out: it misses p50 ≤ 20 ms." in missed["sentences"]
        assert missed["recommended"] == "persistent"
        none = card_of(costing(TWO, SLOW, slo={"p50": 0.001}, workload=workload))
        assert (none["recommended"], none["sentences"][0]) == (None, "There is nothing to recommend.")


def test_without_proc_or_prices_it_says_why() -> None:
    records = costing(TWO)
    for label in TWO:
        records = ended_with(records, label, memory_mib={"idle_pss": None})
    found = card_of(records)
    assert (found["recommended"], found["yaml"]) == (None, None)
    [sentence] = found["sentences"]
    assert sentence.startswith(
        "There is no recommendation, because nothing can be priced: memory is not known, because"
    )
    assert card(summarise(records), "simple").startswith("What to use\n\nThere is no recommendation")
    unpriced = [record | {"cost": None} if record["kind"] == "run" else record for record in costing(TWO)]
    assert "this run states no prices" in card_of(unpriced)["sentences"][0]


def test_both_charges_are_shown_where_they_differ() -> None:
    records = ended_with(costing(TWO), "on-demand", memory_mib={"idle_private": 500.0})
    assert (
        "If private memory were paid for (charge: private): persistent is the cheapest at every rate."
        in (card_of(records)["sentences"])
    )
    assert not any("charge: private" in sentence for sentence in card_of(costing(TWO))["sentences"])


LOADS = [{"cold": (50.0, 0.11), "warm": (20.0, 0.06)}]  # a load's milliseconds and core seconds
FROM_THE_DISK = (
    "A load is priced from the disk, since what is freed serves someone else (on-demand: 30 ms longer than from the"
    " page cache, 50 ms more of a core)."
)


def test_it_says_from_where_a_load_is_priced_and_where_the_other_one_flips() -> None:
    records = loading(costing(TWO, SLOW), "on-demand", LOADS)
    found = card_of(records)
    assert [flip["at"] for flip in found["flips"] if flip["what"] == "rate"] == pytest.approx([1000])
    assert FROM_THE_DISK in found["sentences"]
    assert (
        "The milliseconds that callers wait are those measured, with loads from the page cache." in found["sentences"]
    )
    assert (
        "If private memory were paid for (charge: private), and a load came from the page cache: Below 2,000 requests"
        " an hour (95 % interval 2,000 to 2,000) on-demand is cheaper; it costs your callers 38 ms each. Above,"
        " persistent is." in found["sentences"]
    )
    unsure = [{"cold": (20.0 + 1e3 * wobble, 0.06), "warm": (20.0, 0.06)} for wobble in WOBBLE]
    assert (
        "A load is priced from the disk, since what is freed serves someone else (on-demand: in 5 rounds not separable"
        " from one from the page cache)." in card_of(loading(costing(TWO), "on-demand", unsure))["sentences"]
    )
    free = card_of(loading(costing(TWO, SLOW), "on-demand", LOADS, memory_mib={"idle_private": 500.0}))
    assert (
        "If private memory were paid for (charge: private), and a load came from the page cache: persistent is the"
        " cheapest at every rate." in free["sentences"]
    )
    private = card_of(loading(costing(TWO, SLOW, cost={"charge": "private"}), "on-demand", LOADS))
    told = "A load is priced from the page cache, since mapped pages are nobody's bill, and stay there."
    assert told in private["sentences"]
    assert any(
        sentence.startswith("If PSS were paid for (charge: pss), and a load came from the disk: Below 1,000 requests")
        for sentence in private["sentences"]
    )
    peak = card_of(loading(costing(TWO, SLOW, cost={"billing": "peak"}), "on-demand", LOADS))
    assert (
        "A load is priced from the page cache, since the memory is paid for all the time, and the pages stay in it."
        in peak["sentences"]
    )
    assert not any("A load is priced" in sentence for sentence in card_of(costing(TWO))["sentences"])


def test_a_load_whose_price_is_not_known_is_told_with_the_way_in_which_that_errs() -> None:
    """At twice what a load takes, the true rate is lower than the one that is told."""
    records = loading(costing(TWO), "on-demand", loads_lacking="another process maps the file.")
    found = card_of(records)
    assert [flip["at"] for flip in found["flips"] if flip["what"] == "rate"] == pytest.approx([2000])
    assert (
        "What a load from the disk takes under on-demand is not known (another process maps the file): it is priced"
        " from the page cache, as measured. In truth loading is dearer, so that keeping pays from a lower rate on."
        in found["sentences"]
    )
    assert not any("A load is priced" in sentence for sentence in found["sentences"])
    cold = card_of(loading(costing(TWO, cost={"charge": "private"}, page_cache="cold"), "on-demand"))
    assert any(
        sentence.endswith("as measured. In truth loading is cheaper, so that keeping pays from a higher rate on.")
        for sentence in cold["sentences"]
    )


SIZES = [{"memory": mib << 20, "cpu": cpu, "hour": hour} for mib, cpu, hour in ((512, 0.25, 3.0), (1024, 0.5, 7.0))]
BY_SIZE = {"memory_gib_hour": 0.0, "cpu_hour": 0.0, "billing": "size", "sizes": SIZES}


def test_what_fits_the_same_size_costs_the_same() -> None:
    trials = TWO | {"large": [(600.0, 0.01)] * 5, "none": [(2000.0, 0.01)] * 5}
    sentences = card_of(loading(costing(trials, cost=BY_SIZE), "on-demand", LOADS))["sentences"]
    for told in (
        "persistent and on-demand fit the same size, 512 MiB and 0.25 cores at 3 an hour, and so cost the same.",
        "its cores answer up to 90,000 (persistent) and 15,000 (on-demand) requests an hour.",
        "large needs the size of 1024 MiB and 0.5 cores at 7 an hour. By the processor time taken here, its",
        "none cannot be priced: it held up to 2000 MiB, start-up included, and the largest of 'sizes' has 1024 MiB.",
        "Prices of an hour, whatever is used of a size: 3 for 512 MiB and 0.25 cores and 7 for 1024 MiB and 0.5 cores;",
    ):
        assert any(told in sentence for sentence in sentences)
    assert not any("charge" in sentence or "A load" in sentence for sentence in sentences)
    waiting = costing(TWO, SLOW, cost=BY_SIZE | {"latency_hour": 1.0})
    assert any(
        "and so cost the same, but for their callers' waiting." in each for each in card_of(waiting)["sentences"]
    )


def test_what_goes_over_the_limit_is_left_out_with_the_floor_beside_it() -> None:
    limit = {"memory_mib": 450.0}
    records = ended_with(costing(TWO, limit=limit), "on-demand", resident=[])
    summary = summarise(records)
    floor = (
        "A server that holds no model takes 400 MiB of resident memory (400 MiB as PSS; on-demand): a floor under all"
        " settings."
    )
    assert summary["floor"] == {"trial": "on-demand", "rss_mib": 400, "pss_mib": 400}
    assert summary["card"]["recommended"] == "on-demand"
    told = summary["card"]["sentences"]
    assert "persistent is left out: it held up to 500 MiB, start-up included, over the limit of 450 MiB." in told
    assert f"The limit is 450 MiB of resident memory. {floor}" in told
    assert floor in footnotes(summary)
    start = summarise(ended_with(records, "on-demand", memory_mib={"start_peak_rss": 451.0}))["card"]
    assert (start["recommended"], start["sentences"][0]) == (None, "There is nothing to recommend.")
    unknown = summarise(costing(TWO, limit=limit))
    assert any("What a server takes that holds no model is not known" in each for each in footnotes(unknown))
    assert not any("holds no model" in each for each in footnotes(summarise(costing(TWO))))
    assert summarise(ended_with(costing(TWO), "on-demand", resident=[]))["card"]["recommended"] == "persistent"


def test_models_that_expire_are_compared_only_under_a_workload() -> None:
    trials = {**TWO, "briefly": [(400.0, 0.01)] * 5}
    found = card_of(ended_with(costing(trials), "briefly", mean_rss=450.0, least_keep=0.2))
    assert found["recommended"] == "persistent"
    assert any(sentence.startswith("briefly is not compared: its models expire") for sentence in found["sentences"])
    under = ended_with(costing(trials, workload=OPEN), "briefly", least_keep=0.2)
    assert "briefly cannot be priced: models expire, and memory over time is not known." in card_of(under)["sentences"]
    found = card_of(ended_with(under, "briefly", mean_rss=450.0))
    assert found["recommended"] == "briefly"
    assert "From which rate on briefly would not be the cheapest is not known" in " ".join(found["sentences"])
    long = card_of(ended_with(costing(trials), "briefly", least_keep=300.0))
    assert "What briefly costs holds while no gap between requests is as long as 5 min." in long["sentences"]


def test_prices_and_their_source_are_printed() -> None:
    [prices] = [s for s in card_of(costing(TWO, cost=Cost().model_dump()))["sentences"] if s.startswith("Prices")]
    assert prices == (
        "Prices: 0.00445 for a GiB of memory for an hour (PSS, for as long as it is held), 0.0405 for an hour of one"
        " core (unit prices as AWS Fargate's, in US dollars, as if only what is used were billed; Fargate itself bills"
        " the size that a task is given: billing: size); waiting is free. Yours go under 'cost' in the experiment."
    )
    [prices] = [s for s in card_of(costing(TWO, cost={"latency_hour": 2.5}))["sentences"] if s.startswith("Prices")]
    assert "(as 'cost' states them); 2.5 for an hour of a caller's waiting." in prices


def test_it_is_printed_with_what_each_costs() -> None:
    summary = summarise(costing(TWO, SLOW, workload=OPEN))
    plain, markdown = card(summary, "simple"), card(summary, "pipe")
    assert plain.startswith("What to use\n\nRecommended: persistent; the runner-up is on-demand.\nAt 36,000")
    start = "RESIDENCY_CONFIG=app.yaml uvicorn core.app:app; requests go to POST /predict-persistent"
    assert f"\n  # app.yaml: persistent\n  # {start}\n" in plain
    assert markdown.startswith("## What to use\n\n- Recommended: persistent")
    assert "```yaml\n# app.yaml" in markdown
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in markdown.splitlines() if row[:1] == "|"]
    assert rows[0] == ["strategy", "memory (MiB)", "holding (an hour)", "a million requests", "p50 (ms)", "p99 (ms)"]
    assert rows[2] == ["persistent", "500", "500", "23,900", "10.0", "n/a"]


def test_numbers_are_short_and_have_no_exponent() -> None:
    given = (0.00176432, 5e-7, 0.5, 12.345, 201.4, 1234.5, 1234567.0, 0.0)
    assert [number(value) for value in given] == [
        "0.00176", "0.0000005", "0.5", "12.3", "201", "1,230", "1,230,000", "0",
    ]  # fmt: skip
    assert rate(201.4) == "201 requests an hour"
    assert rate(36_000) == "36,000 requests an hour (10 a second)"


def test_its_settings_start_the_app_with_what_it_recommends(tmp_path: Path) -> None:
    specs = {
        "b": {
            "strategy": "lru-cached",
            "options": {"capacity": 1, "memory_budget": "512MiB"},
            "loader": "mapped",
            "loader_options": {"linear": "stock"},
        }
    }
    models = {name: {"reference": "embedded", "sha256": "0"} for name in ("first", "second")}
    cheap = [(400.0, 0.005)] * 5
    found = card_of(costing({"persistent": KEPT, "b": cheap}, specs=specs, models=models, batching="off"))
    assert found["recommended"] == "b"
    assert yaml.safe_load(found["yaml"])["models"] == dict.fromkeys(models, "embedded")
    (tmp_path / "app.yaml").write_text(found["yaml"])
    variables = {"RESIDENCY_CONFIG": str(tmp_path / "app.yaml")}
    with uvicorn(tmp_path / "log", variables=variables) as client:
        [strategy] = client.get("/strategies").json()["strategies"]
        assert (strategy["name"], strategy["loader"]) == ("lru-cached", "mapped")
        assert strategy["options"]["capacity"] == 1
        answer = client.post("/predict-lru-cached", json={"text": "I love it.", "model": "second"}).json()
        assert (answer["strategy"], answer["model"]) == ("lru-cached", "second")
        assert answer["predictions"][0]["label"] == "POSITIVE"
