"""Workloads: what arrives when, from which file; the load generator against real servers; the trace of a served app."""

from __future__ import annotations

import json
import resource
import stat
import statistics
import time
from collections import Counter
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.integrate import quad

from core.bench.experiment import Overrides, ResolvedExperiment, load_experiment
from core.bench.traffic import Traffic, arrival_times, model_shares
from core.bench.workload import Gamma, Open
from core.errors import ResidencyError
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, gated, running

GOOD = """# What is it?
name: good
models: {a: embedded, b: embedded, c: embedded}
strategies: [persistent]
texts: [A good day., Not so good.]
workload: WORKLOAD
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:14.9799601,110,27
"""
SHARES = {"a": 0.7, "b": 0.2, "c": 0.1}


def planned(folder: Path, workload: str, *more: str, overrides: Overrides | None = None) -> ResolvedExperiment:
    (folder / "good.yaml").write_text("\n".join([GOOD.replace("WORKLOAD", workload), *more]))
    return load_experiment(folder / "good.yaml", overrides)


def traffic(folder: Path, workload: str, *more: str) -> Traffic:
    found = planned(folder, workload, *more).traffic
    assert found is not None
    return found


def times(folder: Path, workload: str, number: int = 0) -> list[float]:
    return [at for at, _ in traffic(folder, workload).arrivals(number)]


# What arrives when


def test_a_seed_and_a_round_say_all_that_is_asked(tmp_path: Path) -> None:
    workload = "{open: {rate: 20/s, duration: 10s, popularity: {zipf: 1.1}}}"
    one = traffic(tmp_path, workload)
    assert one.arrivals(0) == traffic(tmp_path, workload).arrivals(0)
    assert one.arrivals(0) != traffic(tmp_path, workload, "seed: 1").arrivals(0)
    first, second = one.arrivals(0), one.arrivals(1)
    assert [at for at, _ in first[:20]] != [at for at, _ in second[:20]]
    assert [request for _, request in first[:20]] != [request for _, request in second[:20]]
    closed = traffic(tmp_path, "{closed: {clients: 4, requests: 10}}")
    again, other = closed.draw_requests(0), closed.draw_requests(1)
    draws = [next(again) for _ in range(3000)]
    assert draws == [request for request, _ in zip(closed.draw_requests(0), range(3000), strict=False)]
    assert draws != [next(other) for _ in range(3000)]
    assert set(Counter(draws)) == {(model, text) for model in "abc" for text in (0, 1)}


@pytest.mark.process
@pytest.mark.parametrize(
    ("arrivals", "burstiness"),
    [("constant", 0.0), ("poisson", 1.0), ("{gamma: 1}", 1.0), ("{gamma: 4}", 4.0), ("{gamma: 0.25}", 0.25)],
)
def test_rate_and_burstiness_come_out(tmp_path: Path, arrivals: str, burstiness: float) -> None:
    """Of 20 000 seeded draws; the tolerance is four standard errors of a gamma's mean, and more of its variance."""
    at = times(tmp_path, f"{{open: {{rate: 1200/min, arrivals: {arrivals}, requests: 20000}}}}")
    gaps = np.diff(at)
    assert len(at) == 20_000
    assert np.mean(gaps) == pytest.approx(1 / 20, rel=4 * max(burstiness, 1e-9) ** 0.5 / 20_000**0.5)
    assert np.var(gaps) / np.mean(gaps) ** 2 == pytest.approx(burstiness, rel=0.12, abs=1e-9)


@pytest.mark.process
def test_a_duration_ends_the_arrivals(tmp_path: Path) -> None:
    at = times(tmp_path, "{open: {rate: 7200/h, arrivals: constant, duration: 3s}}")
    assert at == [0, 0.5, 1, 1.5, 2, 2.5]
    counts = [len(times(tmp_path, "{open: {rate: 100, duration: 0.5min, arrivals: {gamma: 2}}}", n)) for n in range(9)]
    assert len(set(counts)) > 1
    assert statistics.mean(counts) == pytest.approx(3000, rel=4 * (2 / 3000 / 9) ** 0.5)
    assert max(times(tmp_path, "{open: {rate: 100, duration: 500ms}}")) < 0.5


@pytest.mark.process
@pytest.mark.parametrize("burstiness", [1, 8, 100])
def test_bursts_are_in_equilibrium_when_a_duration_begins(burstiness: float) -> None:
    """As many requests come as the rate says; the first one after the stationary excess of a gap."""
    choice = Open(rate=8.0, duration=20.0, arrivals=Gamma(gamma=burstiness))
    drawn = [arrival_times(choice, np.random.default_rng(seed)) for seed in range(5000)]
    counts = np.array([len(at) for at in drawn])
    assert counts.mean() == pytest.approx(160, abs=4 * counts.std() / len(counts) ** 0.5)
    # P(first > t) = λ ∫ P(gap > u) du, from t on; for b = 1 that of a gap.
    gap = stats.gamma(1 / burstiness, scale=burstiness / 8)
    for t in (0.05, 0.5, 5.0, 19.0):
        later = np.mean([not len(at) or at[0] > t for at in drawn])
        expected = 8 * quad(gap.sf, t, np.inf)[0]
        assert later == pytest.approx(expected, abs=4 * (expected / len(drawn)) ** 0.5 + 1e-9)


def test_a_number_of_requests_takes_as_long_as_the_rate_says() -> None:
    choice = Open(rate=8.0, requests=160, arrivals=Gamma(gamma=8))
    drawn = [arrival_times(choice, np.random.default_rng(seed)) for seed in range(2000)]
    assert {len(at) for at in drawn} == {160}
    ends = np.array([at[-1] for at in drawn])
    assert ends.mean() == pytest.approx(20, abs=4 * ends.std() / len(ends) ** 0.5)


@pytest.mark.process
def test_popularity_is_that_of_the_models(tmp_path: Path) -> None:
    for popularity, shares in (
        ("uniform", [1 / 3] * 3),
        ("{zipf: 1.1}", [w / (1 + 2**-1.1 + 3**-1.1) for w in (1, 2**-1.1, 3**-1.1)]),
        (f"{{shares: {json.dumps(SHARES)}}}", list(SHARES.values())),
    ):
        drawn = traffic(tmp_path, f"{{open: {{rate: 100, requests: 20000, popularity: {popularity}}}}}")
        assert model_shares(drawn.workload.popularity, "abc") == pytest.approx(shares)
        counts = Counter(request.model for _, request in drawn.arrivals(0))
        assert [counts[model] / 20_000 for model in "abc"] == pytest.approx(shares, abs=4 * (0.25 / 20_000) ** 0.5)


# Traces


def test_a_trace_as_azure_publishes_it(tmp_path: Path) -> None:
    """Seven digits of a fraction, no order, no column of models."""
    (tmp_path / "code.csv").write_text(AZURE)
    one = traffic(tmp_path, "{trace: {file: code.csv, columns: {time: TIMESTAMP}, popularity: {zipf: 1.1}}}")
    first, second = one.arrivals(0), one.arrivals(1)
    assert [at for at, _ in first] == pytest.approx([0, 0.052, 11.0000001], abs=2e-6)
    assert [at for at, _ in first] == [at for at, _ in second]
    assert (one.requests, one.seconds) == (3, first[-1][0])


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_trace_names_models_unless_a_popularity_is_given(tmp_path: Path, name: str) -> None:
    rows = [(100.5, "b"), (100, "a"), (102, "b"), (104, "c")]
    if name == "t.csv":
        (tmp_path / name).write_text("\ufefftime,model\r\n" + "".join(f"{at},{model}\r\n" for at, model in rows))
    else:
        (tmp_path / name).write_text("".join(json.dumps({"time": at, "model": m}) + "\n" for at, m in rows))
    window = f"{{trace: {{file: {name}, window: [0s, 4s], speed: 10}}}}"
    at, requests = zip(*traffic(tmp_path, window).arrivals(3), strict=True)
    assert at == pytest.approx((0, 0.05, 0.2))
    assert [request.model for request in requests] == ["a", "b", "b"]
    later = traffic(tmp_path, f"{{trace: {{file: {name}, window: [500ms, 10min]}}}}").arrivals(0)
    assert [(at, request.model) for at, request in later] == [(0, "b"), (1.5, "b"), (3.5, "c")]
    only_c = f"{{trace: {{file: {name}, popularity: {{shares: {{a: 0, b: 0, c: 1}}}}}}}}"
    assert {request.model for _, request in traffic(tmp_path, only_c).arrivals(0)} == {"c"}


@pytest.mark.process
def test_thinning_is_seeded_and_keeps_the_clock(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time\n" + "".join(f"{i}\n" for i in range(10_000)))
    whole, thinned = "{trace: {file: t.csv}}", "{trace: {file: t.csv, thin: 0.3}}"
    kept = times(tmp_path, thinned)
    assert set(kept) < set(times(tmp_path, whole))
    assert len(kept) == pytest.approx(3000, abs=4 * (10_000 * 0.3 * 0.7) ** 0.5)
    assert kept == times(tmp_path, thinned, number=1)
    other = traffic(tmp_path, thinned, "seed: 5").arrivals(0)
    assert kept != [at for at, _ in other]


def test_a_resolved_experiment_can_be_planned_again(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(AZURE)
    for workload in (
        "{trace: {file: t.csv, columns: {time: TIMESTAMP}, window: [0s, 2h], thin: 0.9}}",
        "{open: {rate: 90/min, arrivals: {gamma: 3}, requests: 20, popularity: {shares: {a: 0.5, b: 0.5, c: 0}}}}",
        "{closed: {clients: 2, duration: 200ms}}",
    ):
        plan = planned(tmp_path, workload, overrides=Overrides(repeats=2))
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        again = tmp_path / "elsewhere" / "experiment.yaml"
        again.write_text(yaml.safe_dump(plan.experiment.model_dump(mode="json") | {"texts": list(plan.texts)}))
        assert load_experiment(again).experiment.workload == plan.experiment.workload


# Mistakes

OPEN = "{open: {rate: 20/s, duration: 5s}}"
BAD = {
    "no kind": ("{}", "workload: must have exactly one of the keys closed, open, trace."),
    "two kinds": ("{closed: {clients: 1, requests: 1}, open: {rate: 1, requests: 1}}", "exactly one of"),
    "an unknown kind": ("{opn: {rate: 1, requests: 1}}", "exactly one of the keys"),
    "no mapping": ("open", "exactly one of the keys"),
    "a misspelt key": ("{open: {rat: 20/s, duration: 5s}}", "workload.open.rat: is not a known key; allowed: duration"),
    "no end": ("{closed: {clients: 3}}", "workload.closed: must have either a 'duration' or a number of 'requests'."),
    "two ends": ("{open: {rate: 1/s, duration: 5s, requests: 5}}", "either a 'duration' or"),
    "a rate without a unit": ("{open: {rate: 20 per s, duration: 5s}}", "must be a rate such as 20/s, 90/min or 1200"),
    "a rate of none": ("{open: {rate: 0/s, duration: 5s}}", "rate: must be more than 0, such as 1 (got '0/s')."),
    "a rate that is true": ("{open: {rate: true, duration: 5s}}", "rate: must be a number, such as 0.5 (got true)."),
    "an odd duration": ("{open: {rate: 20, duration: 5 days}}", "must be a duration such as 200ms, 30s, 10min or 2h"),
    "no time": ("{open: {rate: 20, duration: 0s}}", "duration: must be more than 0, such as 1"),
    "too many requests": ("{open: {rate: 1000/s, duration: 20min}}", "must make 1 to 1000000 requests in a trial."),
    "too few requests": ("{open: {rate: 1/h, duration: 20min}}", "must make 1 to 1000000 requests in a trial."),
    "too many clients": ("{closed: {clients: 100000, requests: 5}}", "must be at most 1000"),
    "arrivals of no kind": ("{open: {rate: 1, requests: 5, arrivals: even}}", "must be poisson, constant, or {gamma: "),
    "no burstiness": ("{open: {rate: 1, requests: 5, arrivals: {gamma: 0}}}", "gamma: must be more than 0"),
    "a popularity of no kind": ("{open: {rate: 1, requests: 5, popularity: {zip: 1}}}", "must be uniform, {zipf: "),
    "shares of others": (
        "{open: {rate: 1, requests: 5, popularity: {shares: {a: 1}}}}",
        "must give the share of each model, 0 or more: a, b, c.",
    ),
    "shares of more than all": (
        "{open: {rate: 1, requests: 5, popularity: {shares: {a: 1, b: 1, c: 0}}}}",
        "shares must add up to 1, not to 2.",
    ),
    "a trace that is not there": ("{trace: {file: none.csv}}", "none.csv: cannot be read: No such file"),
    "a trace of another kind": ("{trace: {file: good.yaml}}", "good.yaml: a trace is a .csv or a .jsonl file."),
    "a window that ends first": ("{trace: {file: t.csv, window: [5s, 5s]}}", "the window must end after it begins"),
    "a window without arrivals": ("{trace: {file: t.csv, window: [1h, 2h]}}", "must leave 1 to 1000000 arrivals, but"),
    "no such column": (
        "{trace: {file: t.csv, columns: {time: TIMESTAMP}}}",
        "t.csv:2: has no 'TIMESTAMP'; it has time, model. Name the column under 'columns'",
    ),
    "no such model": ("{trace: {file: t.csv}}", "t.csv:3: there is no model 'z'; models: a, b, c."),
    "no such column of models": ("{trace: {file: t.csv, columns: {model: MODEL}}}", "names no model under 'MODEL'."),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_mistake_names_the_place_and_the_remedy(tmp_path: Path, kind: str) -> None:
    (tmp_path / "t.csv").write_text("time,model\n1,a\n2,z\n")
    workload, sentence = BAD[kind]
    with pytest.raises(ResidencyError) as failure:
        planned(tmp_path, workload)
    assert str(failure.value).startswith(str(tmp_path / "good.yaml:6:"))
    assert sentence in str(failure.value)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.csv", "time\n1\nyesterday\n", "t.csv:3: 'yesterday' is not a time"),
        ("t.csv", "time\n1\nnan\n", "t.csv:3: 'nan' is not a time"),
        ("t.csv", "time,model\n1,a\n2,\n", "t.csv:3: names no model under 'model'"),
        ("t.csv", "time,model\n1,a\n2\n", "t.csv:3: is a short row: it has 1 field, but the header has 2."),
        ("t.csv", "time,model\n\n1,a\n2,a,b\n", "t.csv:4: is a long row: it has 3 fields, but the header has 2."),
        ("t.csv", "time\n1700000000000\n", "t.csv:2: 1700000000000 cannot be a time in seconds: that would be after"),
        ("t.csv", "time\n1700000000000\n", "If it is in milliseconds, write 'unit: ms' under 'trace'."),
        ("t.jsonl", '{"time": 1700000000000000.5}', "If it is in microseconds, write 'unit: us' under 'trace'."),
        ("t.csv", "time\n-1700000000000000000\n", "If it is in nanoseconds, write 'unit: ns' under 'trace'."),
        ("t.csv", "time\n1e30\n", "Write seconds, or name the unit under 'trace'."),
        ("t.csv", 'time\n"1\n', "is not valid CSV"),
        ("t.csv", "time\n", "contains no arrivals"),
        ("t.csv", "", "contains no arrivals"),
        ("t.jsonl", '{"time": 1}\n{"time": 2', "t.jsonl:2: is not valid JSON"),
        ("t.jsonl", "[" * 100_000, "t.jsonl:1: is not valid JSON"),
        ("t.jsonl", "[1]\n", "t.jsonl:1: must be an object"),
        ("t.jsonl", '{"time": true}\n', "t.jsonl:1: 'True' is not a time"),
        ("t.jsonl", '{"time": 1, "model": 5}\n', "t.jsonl:1: 'model' must be a model id, not 5"),
        ("t.jsonl", '{"time": 1' + "0" * 400 + "}\n", "t.jsonl:1: "),
    ],
)
def test_a_bad_trace_names_its_line(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ResidencyError) as failure:
        planned(tmp_path, f"{{trace: {{file: {name}}}}}")
    assert f"workload.trace.file: {tmp_path / name}" in str(failure.value)
    assert sentence in str(failure.value)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize(("unit", "length"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_times_are_in_the_unit_that_is_said(tmp_path: Path, unit: str, length: int) -> None:
    begin = 1_700_000_000 * length
    for name, text in (
        ("t.csv", f"time\n{begin}\n{begin + 3 * length // 2}\n"),
        ("t.jsonl", f'{{"time": {begin}}}\n{{"time": "{begin + 3 * length // 2}"}}\n'),
        ("iso.csv", "time\n2023-11-14 22:13:20\n2023-11-14T22:13:21.5Z\n"),  # which says for itself what it is
    ):
        (tmp_path / name).write_text(text)
        found = times(tmp_path, f"{{trace: {{file: {name}, unit: {unit}}}}}")
        assert found == pytest.approx([0, 1 if unit == "s" and name != "iso.csv" else 1.5], abs=1e-3)


def test_a_unit_that_cannot_be_the_times_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time\n1700000000000000000\n")
    with pytest.raises(ResidencyError, match=r"cannot be a time in milliseconds.*write 'unit: ns'"):
        planned(tmp_path, "{trace: {file: t.csv, unit: ms}}")
    with pytest.raises(ResidencyError, match=r"workload.trace.unit: "):
        planned(tmp_path, "{trace: {file: t.csv, unit: minutes}}")


@pytest.mark.parametrize("line", ["repetitions: 10", "memory_after_each: true", "page_cache: cold"])
def test_a_workload_stands_alone(tmp_path: Path, line: str) -> None:
    with pytest.raises(ResidencyError, match=rf"good.yaml:8:1: {line.partition(':')[0]}: .*workload"):
        planned(tmp_path, OPEN, line)


def test_repetitions_and_a_workload_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ResidencyError, match="--repetitions: this experiment has a workload"):
        planned(tmp_path, OPEN, overrides=Overrides(repetitions=3))
    with pytest.raises(ResidencyError, match="repetitions: must be a number if there is no workload"):
        planned(tmp_path, "null", "repetitions: null")
    assert planned(tmp_path, "null").requests == 60  # the plain form


@pytest.mark.process
def test_a_served_app_writes_a_trace_of_its_requests(tmp_path: Path) -> None:
    """Also of those that find no place; and a disk that is full stops nothing."""
    directories = {name: checkpoint_in(tmp_path / name) for name in "ab"}
    settings = {
        "strategies": [{"strategy": "on-demand", "loader": "fake"}],
        "models": {name: str(path) for name, path in directories.items()},
        "plugins": [FAKES],
        "max_queue": 1,
        "capture": str(tmp_path / "t.jsonl"),
    }
    infer = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}]}
    began = time.time()
    with running(settings) as (server, client):

        def ask(model: str) -> int:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=SECONDS) as own:
                return own.post("/predict-on-demand", json={"text": "good", "model": model}).status_code

        assert ask("b") == 200
        assert client.post("/v2/models/a/infer", json=infer).status_code == 200
        assert ask("none") == 404
        with gated(directories["a"]) as a, gated(directories["b"]) as b:
            busy = [Thread(target=ask, args=(model,)) for model in "ab"]
            for thread in busy:
                thread.start()
            a.wait_for_load()
            b.wait_for_load()
            assert [ask("b"), ask("a")] == [503, 503]
            for thread, gate in zip(busy, (a, b), strict=True):
                gate.open()
                thread.join()
        rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
        assert stat.S_IMODE((tmp_path / "t.jsonl").stat().st_mode) == 0o600
        with (tmp_path / "t.jsonl").open("a") as file:  # more than the log holds, to which the limit applies, too
            file.write((json.dumps(rows[-1]) + "\n") * 500)
        size = (tmp_path / "t.jsonl").stat().st_size
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size + 70, size + 70))  # room for one line, and a part
        assert [ask("a") for _ in range(4)] == [200] * 4
        assert server.log().count("cannot be written, so requests are missing in it") == 1
    assert all(set(row) == {"time", "model"} for row in rows)
    models = [row["model"] for row in rows]
    assert (models[:2], sorted(models[2:4]), models[4:]) == (["b", "a"], ["a", "b"], ["b", "a"])
    assert began <= rows[0]["time"] <= rows[-1]["time"] <= time.time()
    replayed = traffic(tmp_path, "{trace: {file: t.jsonl}}").arrivals(0)
    assert [request.model for _, request in replayed] == [*models, *["a"] * 501]
    assert [at for at, _ in replayed][:6] == pytest.approx([row["time"] - rows[0]["time"] for row in rows])
