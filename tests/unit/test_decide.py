"""Statistics, agreement, summary and words, on records whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from core.report.card import card
from core.report.prose.footnotes import footnotes
from core.report.prose.run import answer_in_words
from core.report.prose.sentences import say
from core.report.table import table
from core.report.waterfall import waterfall
from core.results.figures import GeneratorFigures, TooFew
from core.results.records import Sample
from core.results.summary import Summary
from core.results.warnings import AnyDisagreement, Disagreement, DtypeFallback, LoaderFallback, OtherLabels
from core.stats.agreement import Agreement
from core.stats.estimates import mean_interval, percentile, samples_for
from core.stats.memory_return import memory_return
from tests.helpers.priced import costing, loading
from tests.helpers.synthetic import Record, ended, run_of, run_with, sample_of, summarised, trial_of, typed


def test_a_percentile_wants_ten_values_beyond_it() -> None:
    assert [samples_for(q) for q in (0.5, 0.95, 0.99)] == [20, 200, 1000]
    assert percentile(list(range(19)), 0.5) is None
    assert percentile(list(range(21)), 0.5) == 10
    assert percentile(list(range(199)), 0.95) is None
    assert percentile(list(range(201)), 0.95) == 190


def test_the_interval_is_students_over_rounds() -> None:
    rounds = [10.0, 12.0, 11.0, 15.0]
    expected = stats.t.interval(0.95, 3, np.mean(rounds), stats.sem(rounds))
    assert mean_interval(rounds) == pytest.approx(expected)
    assert mean_interval([10.0]) is None


def two_strategies() -> list[Record]:
    records = [run_of(trial_of("persistent"), trial_of("on-demand"))]
    for number in range(2):
        cold: Record = {"cold": True, "timing": {"queue": 0.1, "load": 40.0, "load-weights": 30.0, "inference": 9.0}}
        for trial, ms, pss, more in (("persistent", 10.0, 500.0, {}), ("on-demand", 50.0, 400.0, cold)):
            records.append(sample_of(trial, 1000.0, number, first=True, **more))
            records += [sample_of(trial, ms + number, number, **more) for _ in range(20)]
            records.append(ended(trial, number, pss))
    return records


def test_a_summary_keeps_the_first_request_apart() -> None:
    kept, loaded = summarised(two_strategies()).trials
    assert (kept.requests, kept.rounds, kept.loads, kept.errors) == (40, 2, 2, 0)
    assert kept.first_request_ms == 1000
    assert kept.latency_ms.mean == pytest.approx(10.5)
    assert kept.latency_ms.p50 == pytest.approx(10.5)
    assert kept.latency_ms.mean_ci95 == pytest.approx(mean_interval([10.0, 11.0]))
    assert kept.latency_ms.null_because == {
        "p95": TooFew(unit="requests", needed=200, found=40),
        "p99": TooFew(unit="requests", needed=1000, found=40),
    }
    assert kept.throughput_rps == pytest.approx(10)
    assert (kept.cold.share, loaded.cold.share) == (0, 1)
    assert loaded.memory_mib.idle_pss == 400


def test_the_answer_in_words() -> None:
    latency, memory, lacking, phases = answer_in_words(summarised(two_strategies()))
    assert latency == "on-demand against persistent: p50 50 ms against 10.5 ms, a ratio of 4.81 in 2 rounds."
    assert memory == (
        "on-demand against persistent: PSS between requests 400 against 500 MiB, a ratio of 0.80 in 2 rounds."
    )
    assert lacking.startswith("These are measurements, not verdicts: a verdict needs 5 rounds")
    assert phases == (
        "Of the median 50 ms of a request with a load, the load takes 40 ms (weights 30 ms) and the forward pass"
        " 9.0 ms."
    )


def test_what_loading_adds_is_told_of_each_loader() -> None:
    labels = {"ps": ("transformers", "persistent", 20.0), "os": ("transformers", "on-demand", 70.0)}
    labels |= {"pm": ("mapped", "persistent", 12.0), "om": ("mapped", "on-demand", 17.0)}
    specs = [
        trial_of(x) | {"loader": loader, "strategy": name, "weights_mib": 200.0}
        for x, (loader, name, _) in labels.items()
    ]
    records = [run_of(*specs, rounds=1)]
    for label, (_, strategy, ms) in labels.items():
        records += [sample_of(label, ms, cold=strategy == "on-demand") for _ in range(20)]
        records.append(ended(label, pss=310.0 if strategy == "persistent" else 300.0))
    loaded = "if it is loaded for every request"
    private = " Keeping the model takes 10 MiB of private memory, 5% of the weights."
    assert answer_in_words(summarised(records))[:2] == [
        f"transformers (float32): p50 is 20 ms with the model kept in memory and 70 ms {loaded} (50 ms more).{private}",
        f"mapped (float32): p50 is 12.0 ms with the model kept in memory and 17.0 ms {loaded} (5.0 ms more).{private}",
    ]


def test_a_round_that_did_not_end_is_told_and_not_averaged() -> None:
    records = two_strategies()[:-1]
    summary = summarised(records)
    assert [trial.rounds for trial in summary.trials] == [2, 1]
    why = summary.trials[1].latency_ms.null_because["mean_ci95"]
    assert why == TooFew(unit="rounds", needed=2, found=1)
    assert answer_in_words(summary)[0] == "Warning: 1 of 2 rounds of on-demand did not run to the end."


def test_failures_and_errors_are_told_before_anything_else() -> None:
    records = [
        run_of(trial_of("persistent"), rounds=1),
        {"kind": "failure", "trial": "persistent", "round": 0, "reason": "R."},
    ]
    assert answer_in_words(summarised(records)) == ["Warning: persistent failed in round 1: R."]
    records = [run_of(trial_of("persistent"), rounds=1), sample_of("persistent", 1, status=503), ended("persistent")]
    summary = summarised(records)
    assert summary.trials[0].errors == 1
    assert "answered 1 requests with an error" in answer_in_words(summary)[0]
    records = [*two_strategies(), sample_of("on-demand", 1, 1, status=503, cold=True)]
    failed, latency, *_ = answer_in_words(summarised(records))
    assert failed.startswith("Warning: on-demand answered 1 requests with an error")
    assert latency.startswith("on-demand against persistent: p50")


def test_without_proc_memory_is_not_known() -> None:
    records = [
        {**r, "memory_mib": dict.fromkeys(r["memory_mib"])} if r["kind"] == "trial" else r for r in two_strategies()
    ]
    summary = summarised(records)
    assert summary.trials[0].memory_mib.idle_pss is None
    assert any("no /proc" in sentence for sentence in answer_in_words(summary))
    assert "n/a" in table(summary, "pipe")


def agree(*answers: tuple[str, str, float]) -> dict[str, AnyDisagreement]:
    """`(trial, label, score)` to one text; the trial named `half` computes in bfloat16."""
    agreement = Agreement({"a": "float32", "b": "float32", "half": "bfloat16", "half2": "bfloat16"})
    agreement.check(typed(Sample, sample_of(trial, 1.0, label=label, score=score)) for trial, label, score in answers)
    return agreement.disagreements


def test_scores_agree_within_a_dtype() -> None:
    assert not agree(("a", "P", 0.9), ("b", "P", 0.90009))
    assert "b" in agree(("a", "P", 0.9), ("b", "P", 0.9002))
    assert "b" in agree(("a", "P", 0.9), ("b", "N", 0.9))
    assert "b" in agree(("a", "P", 0.5001), ("b", "N", 0.5001))  # within a dtype no label flips
    assert "b" in agree(("a", "P", 0.9), ("a", "P", 0.9), ("b", "P", 0.8))
    assert not agree(("a", "P", 0.9), ("half", "N", 0.7))  # it is another model
    assert "half2" in agree(("a", "P", 0.9), ("half", "P", 0.904), ("half2", "P", 0.9035))


def in_dtypes(dtypes: dict[str, tuple[str, str]], answers: dict[str, list[list[tuple[str, float]]]]) -> Summary:
    """The summary of a run whose trials, of that loader and dtype, answered one text after the other so."""
    specs = [trial_of(label, dtype) | {"loader": loader} for label, (loader, dtype) in dtypes.items()]
    records = [run_of(*specs, rounds=1, most_labels=20)]
    for label, tops in answers.items():
        for text, top in enumerate(tops):
            records.append(sample_of(label, 1.0, text=text, label=top[0][0], score=top[0][1], top=top))
        records.append(ended(label))
    return summarised(records)


def told(summary: Summary) -> list[str]:
    return [say(warning) for warning in summary.warnings if isinstance(warning, OtherLabels)]


P, N = [("P", 0.8), ("N", 0.2)], [("N", 0.7), ("P", 0.3)]
ENGINES = {"plain": ("onnxruntime", "float32"), "small": ("onnxruntime", "int8")}


def test_across_dtypes_97_percent_of_the_labels_must_be_the_same() -> None:
    few = in_dtypes(ENGINES, {"plain": [P] * 100, "small": [[("P", 0.6), ("N", 0.4)]] * 97 + [N] * 3})
    assert (told(few), few.disagreements) == ([], [])
    many = in_dtypes(ENGINES, {"plain": [P] * 100, "small": [P] * 96 + [N] * 4})
    [sentence] = told(many)
    assert sentence == (
        "small: 96 of 100 answers (96.0%) have the label that plain gives, less than 97%. In int8 by onnxruntime it is"
        " in effect a different model from the one in float32: measure on texts of your own how often each is right."
    )
    assert (many.disagreements, [trial.labels_agree for trial in many.trials]) == ([], [True, True])
    assert f"Warning: {sentence}" in answer_in_words(many)


def test_labels_that_are_as_good_stand_for_each_other_in_another_dtype() -> None:
    tie = [("P", 0.502), ("N", 0.498)]
    assert told(in_dtypes(ENGINES, {"plain": [tie], "small": [N]})) == []
    assert told(in_dtypes(ENGINES, {"plain": [[("P", 0.51), ("N", 0.49)]], "small": [N]}))
    assert told(in_dtypes(ENGINES, {"plain": [tie], "small": [[("M", 1.0)]]}))


def test_each_loader_rounds_in_its_own_way() -> None:
    """Two of one loader must agree on scores in int8, too; two loaders' are different models."""
    dtypes = {"one": ("onnxruntime", "int8"), "same": ("onnxruntime", "int8"), "other": ("openvino", "int8")}
    near = [("P", 0.79), ("N", 0.21)]
    summary = in_dtypes(dtypes, {"one": [P], "same": [near], "other": [near]})
    [found] = summary.disagreements
    assert found == Disagreement(
        trial="same", text=0, label="P", score=0.79, other="one", other_label="P", other_score=0.8
    )
    assert say(found) == "the answers differ: same answers text 1 with P 0.790000, but one answers P 0.800000."
    assert told(summary) == []
    assert "from the one in int8 by onnxruntime" in told(in_dtypes(dtypes, {"one": [P], "same": [P], "other": [N]}))[0]


def test_rows_name_the_dtype_that_their_label_does_not() -> None:
    dtypes = ENGINES | {"kept, int8": ("onnxruntime", "int8"), "on-demand, onnxruntime int8": ("onnxruntime", "int8")}
    summary = in_dtypes(dtypes, {label: [P] for label in dtypes})
    rows = [line.split("|")[1].strip() for line in table(summary, "pipe").splitlines()[2:]]
    assert rows == ["plain", "small (int8)", "kept, int8", "on-demand, onnxruntime int8"]


def test_memory_return_is_a_slope_over_rounds() -> None:
    def round_of(*pss: float) -> list[Sample]:
        records = (sample_of("t", 1.0, memory_mib={"pss": value, "private": value}) for value in pss)
        return [typed(Sample, record) for record in records]

    kept = memory_return([round_of(500, 501, 502, 503), round_of(500, 501, 502, 503.0)], 100)
    assert kept is not None
    assert kept.slope_mib_per_cycle == pytest.approx(1)
    assert kept.returned_share == pytest.approx(0.97)
    assert (kept.cycles, kept.leaks) == (3, True)
    unsure = memory_return([round_of(500, 500, 500), round_of(500, 501, 502)], 100)
    assert unsure is not None
    assert not unsure.leaks  # two rounds that differ so much show nothing
    assert memory_return([[typed(Sample, sample_of("t", 1.0))] * 5], 100) is None


def test_the_waterfall_draws_the_phases_one_after_the_other() -> None:
    lines = waterfall(summarised(two_strategies())).splitlines()
    assert lines[0] == "on-demand: median of the requests that waited for a load, 50.5 ms"
    assert [line.split()[0] for line in lines[1:]] == ["queue", "weights", "rest", "first", "HTTP"]
    bars = [(line.index("█"), line.count("█")) for line in lines[1:]]
    assert [length for _, length in bars] == [1, 29, 10, 9, 1]
    starts = [start - bars[0][0] for start, _ in bars]
    assert starts == [0, 0, 29, 38, 47]
    kept_only = [r for r in two_strategies() if r["kind"] == "run" or r["trial"] == "persistent"]
    kept_only[0] = run_of(trial_of("persistent"))
    assert "No request" in waterfall(summarised(kept_only))


def test_the_table_has_a_row_for_each_trial_and_says_what_is_missing() -> None:
    summary = summarised(two_strategies())
    lines = table(summary, "pipe").splitlines()
    assert len(lines) == 4
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]] == [
        ["persistent", "10.5", "-", "500", "n/a", "2"],
        ["on-demand", "-", "50.5", "400", "n/a", "2"],
    ]
    assert "million" not in table(summary, "simple")  # it has no prices
    assert "p99" not in table(summary, "simple", wide=True)
    no_p99 = "No p99 for persistent; on-demand: it needs 1000 requests and has 40."
    assert footnotes(summary)[1:] == [no_p99]
    assert table(summary, "pipe", wide=True).splitlines()[3].split("|")[12].strip() == "4.81"
    assert "a ratio of 4.81 in 2 rounds" in " ".join(answer_in_words(summary))
    assert footnotes(summary, wide=True)[1:] == [
        "No p95 for persistent; on-demand: it needs 200 requests and has 40.",
        no_p99,
    ]


def test_the_table_has_six_columns_whatever_was_measured() -> None:
    """On a terminal, those without a figure are left out. Targets have columns in the wide one."""
    labels = [f"{name}, transformers" for name in ("persistent", "on-demand", "lru-cached (2)")]
    records = costing({label: [(500.0, 0.01)] * 2 for label in labels}, slo={"p50": 0.2, "p99": 0.2})
    summary = summarised(records)
    lines = table(summary, "pipe").splitlines()
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert heads == ["strategy", "warm p50 (ms)", "cold p50 (ms)", "idle PSS (MiB)", "a million requests", "loads"]
    assert rows == [[label, "10.0", "-", "500", "10,000", "2"] for label in labels]
    narrow = table(summary, "simple")
    assert max(map(len, narrow.splitlines())) < 80
    assert ("warm" in narrow, "million" in narrow, "cold" in narrow) == (True, True, False)
    wide = table(summary, "simple", wide=True)
    assert ("within" in wide, "million" in wide, "p50" in wide) == (True, True, True)


@pytest.mark.parametrize(("most", "lines"), [(200, 7), (85, 7), (80, 10), (60, 13)])
def test_the_table_fits_a_terminal(most: int, lines: int) -> None:
    """Down to that of a phone: labels take several lines, and then heads do."""
    labels = ["persistent, onnxruntime", "on-demand, onnxruntime", "lru-cached (2), onnxruntime"]
    labels.append("persistent, transformers")
    summary = summarised(loading(costing({label: [(500.0, 0.01)] * 2 for label in labels}), labels[1]))
    shown = table(summary, "simple", most=most).splitlines()
    assert max(map(len, shown)) <= most
    assert len(shown) == lines
    assert " ".join(shown).split().count("onnxruntime") == 3


def test_a_million_requests_cost_the_same_in_the_table_and_on_the_card() -> None:
    """In a closed loop without what holding costs, unless the question names a rate."""
    costs = {"one": [(36000.0, 0.25)] * 2, "other": [(3600.0, 0.5)] * 2}
    for rate, told in ((None, ["250,000", "500,000"]), (10.0, ["1,250,000", "600,000"])):
        summary = summarised(costing(costs, rate=rate))
        shown = [line.split("|")[1:-1] for line in table(summary, "pipe").splitlines()[2:]]
        on_card = [line.split("|")[1:-1] for line in card(summary, "pipe").splitlines() if line.startswith("| o")]
        assert [row[4].strip() for row in shown] == [row[3].strip() for row in on_card] == told


def test_what_the_load_generator_was_at_worst_is_told() -> None:
    header, *rest = run_with({"a": [[10.0] * 20] * 2})
    one = {"seconds": 10.0, "processor_s": 1.0, "late_share": 0.001, "lag_p99_ms": 0.5, "sends": 20}
    measured = iter([one, one | {"processor_s": 2.0, "lag_p99_ms": 1.25}])
    records = [r | {"generator": next(measured)} if r["kind"] == "trial" else r for r in rest]
    summary = summarised([header, *records])
    assert summary.trials[0].generator == GeneratorFigures(cores=0.2, lag_p99_ms=1.25, late_share=0.001)
    sentence = (
        "The load generator took up to 0.20 cores; the p99 of its lag was 1.2 ms, and 0.10% of the sends were late."
    )
    assert sentence in footnotes(summary)
    assert summarised([header, *rest]).trials[0].generator is None


Top = list[tuple[str, float]]


def agree_by_all(*answers: tuple[str, Top]) -> dict[str, AnyDisagreement]:
    agreement = Agreement({"a": "float32", "b": "float32", "half": "bfloat16"}, most_labels=20)
    records = (sample_of(trial, 1.0, label=top[0][0], score=top[0][1], top=top) for trial, top in answers)
    agreement.check(typed(Sample, record) for record in records)
    return agreement.disagreements


def test_answers_are_compared_by_the_scores_of_all_labels() -> None:
    assert not agree_by_all(("a", [("P", 0.9), ("N", 0.1)]), ("b", [("P", 0.9), ("N", 0.1)]))
    wrong = agree_by_all(("a", [("P", 0.9), ("N", 0.1)]), ("b", [("P", 0.9), ("N", 0.4)]))
    assert say(wrong["b"]).endswith(": b answers text 1 with N 0.400000, but a answers N 0.100000.")
    assert "b" in agree_by_all(("a", [("P", 0.9), ("N", 0.1)]), ("b", [("P", 0.9), ("M", 0.1)]))
    assert not agree_by_all(("a", [("P", 0.9), ("N", 0.1)]), ("half", [("P", 0.6), ("N", 0.4)]))


def test_scores_of_a_regression_are_compared_by_their_size() -> None:
    assert not agree_by_all(("a", [("P", 1000.0)]), ("b", [("P", 1000.09)]))
    assert "b" in agree_by_all(("a", [("P", 1000.0)]), ("b", [("P", 1000.2)]))
    assert "b" in agree_by_all(("a", [("P", -0.5)]), ("b", [("P", 0.5)]))


def test_of_many_labels_the_best_are_compared() -> None:
    """The twentieth place may go to either of two labels that are as good."""
    many = [(f"L{i}", 0.5 - i / 100) for i in range(20)]
    assert not agree_by_all(("a", many), ("b", [*many[:19], ("other", many[19][1])]))
    assert "b" in agree_by_all(("a", many), ("b", [("other", 0.6), *many[:19]]))
    assert "b" in agree_by_all(("a", many), ("b", [(f"M{i}", score) for i, (_, score) in enumerate(many)]))


def test_labels_of_one_name_are_told_apart() -> None:
    assert not agree_by_all(("a", [("same", 0.6), ("same", 0.4)]), ("b", [("same", 0.6), ("same", 0.4)]))
    assert "b" in agree_by_all(("a", [("same", 0.6), ("same", 0.4)]), ("b", [("same", 0.6), ("same", 0.3)]))


def used(loader: str, dtype: str) -> list[Record]:
    return [{"model": "embedded", "loader": loader, "dtype": dtype, "nbytes": 40 << 20}]


def test_what_the_servers_used_is_what_is_said() -> None:
    """bfloat16 was asked for, on a processor that has it not, of a checkpoint that cannot be mapped."""
    asked = trial_of("half") | {"dtype": "bfloat16", "loader": "mapped", "weights_mib": 20.0}
    asked["model_mib"] = {"embedded": 20.0}
    samples = [sample_of("half", 10.0, first=False) for _ in range(20)]
    records = [run_of(asked, rounds=1), *samples, ended("half", used=used("transformers", "float32"))]
    summary = summarised(records)
    [trial] = summary.trials
    assert (trial.dtype, trial.used_loaders, trial.weights_mib) == ("float32", ["transformers"], 40.0)
    warnings = [warning for warning in summary.warnings if isinstance(warning, DtypeFallback | LoaderFallback)]
    assert warnings == [
        DtypeFallback(trial="half", asked="bfloat16", used="float32"),
        LoaderFallback(trial="half", used=["transformers"]),
    ]
    sentences = [say(warning) for warning in warnings]
    assert "computed in float32, not in bfloat16" in sentences[0]
    assert "loaded as 'transformers' loads them" in sentences[1]


def test_weights_are_as_large_as_the_servers_say() -> None:
    """Only a loader knows how large they are in int8."""
    asked = trial_of("small", "int8") | {
        "loader": "onnxruntime",
        "weights_mib": 160.0,
        "model_mib": {"embedded": 160.0},
    }
    records = [run_of(asked, rounds=1), sample_of("small", 10.0), ended("small", used=used("onnxruntime", "int8"))]
    [trial] = summarised(records).trials
    assert (trial.dtype, trial.weights_mib) == ("int8", 40.0)


def test_an_older_run_tells_nothing_of_what_was_used() -> None:
    records = [run_of(trial_of("a"), rounds=1), sample_of("a", 10.0), ended("a")]
    summary = summarised(records)
    assert summary.trials[0].used_loaders == [summary.trials[0].loader]
    assert not [warning for warning in summary.warnings if warning.kind.endswith("fallback")]
    bare = {key: value for key, value in trial_of("a").items() if not key.startswith("loader")}
    [trial] = summarised([run_of(bare, rounds=1), *records[1:]]).trials
    assert (trial.loader, trial.used_loaders) == ("transformers", ["transformers"])
