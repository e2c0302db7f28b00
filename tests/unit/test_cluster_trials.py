"""Trials whose server is a cluster, without starting one: settings, counts by node, and what a report says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from core.advice.findings import findings
from core.bench.client import add_up, read_reply, read_strategy
from core.bench.cluster import TrialChoice, check_installed, request_headers
from core.bench.experiment import ResolvedExperiment, load_experiment
from core.bench.nodes import _Change, count_by_node, most_bytes, wait_until_probed
from core.bench.resume import write_experiment
from core.bench.server import ServerProcess
from core.bench.timeline import OF_EACH
from core.bench.trial import Trial
from core.cli.run_report import said
from core.cluster.status import join_strategies
from core.costs.prices import Prices
from core.errors import ResidencyError, ResultsError
from core.http.schemas import StrategiesAnswer
from core.planning.profile import profiles
from core.report.html import report
from core.report.nodes import node_table
from core.report.prose.sentences import say
from core.report.prose.settings import settings_to_paste
from core.results.header import CostSpec, Lifecycle
from core.results.run_findings import RanOnMachines, SharedByNodes
from core.results.summary import Summary
from core.stats.changes import changes
from tests.helpers.priced import UNITS
from tests.helpers.synthetic import (
    Record,
    arranged,
    loads_of,
    run_of,
    run_with,
    sample_of,
    summarised,
    trial_of,
    trial_with,
)

MIB = 1 << 20
PRICES = Prices.of(CostSpec.model_validate(UNITS))
EXPERIMENT = """# Does it scale?
name: nodes
strategies:
  - lru-cached
  - {strategy: lru-cached, cluster: CLUSTER}
texts: [Good.]
"""
CLUSTER = {"nodes": 2, "lifecycle": "local"}
"""As a header has it."""


def load(folder: Path, cluster: str, extra: str = "") -> ResolvedExperiment:
    path = folder / "nodes.yaml"
    path.write_text(EXPERIMENT.replace("CLUSTER", cluster) + extra)
    return load_experiment(path)


@pytest.mark.parametrize(
    ("cluster", "label"),
    [
        ("{nodes: 2}", "lru-cached, 2 nodes"),
        ("{nodes: 1}", "lru-cached, 1 node"),
        ("{nodes: 2, lifecycle: ray}", "lru-cached, 2 nodes, ray"),
        ("{nodes: {min: 3, max: 3}, lifecycle: ray-multiplexed}", "lru-cached, 3 nodes, ray-multiplexed"),
    ],
)
def test_a_label_says_how_many_nodes(tmp_path: Path, cluster: str, label: str) -> None:
    assert [trial.label for trial in load(tmp_path, cluster).trials] == ["lru-cached", label]
    assert load(tmp_path, f"{cluster}, label: mine").trials[1].label == "mine"


def test_settings_are_written_and_read_again(tmp_path: Path) -> None:
    keys = "{nodes: 2, placement: hash, copies: {max: 2, busy: 20%}, queue: 9, health: 200ms, lifecycle: ray}"
    resolved = load(tmp_path, keys)
    one, several = resolved.trials
    expected = {"nodes": 2, "placement": "hash", "copies": {"max": 2, "busy": 0.2}, "queue": 9, "health": 0.2}
    checkpoints = {"embedded": tmp_path}
    settings, plain = (Trial(resolved, trial, checkpoints, 0).settings for trial in (several, one))
    assert settings["cluster"] == expected
    assert "cluster" not in plain
    assert settings["strategies"] == plain["strategies"]
    write_experiment(tmp_path, resolved)
    written = yaml.safe_load((tmp_path / "experiment.yaml").read_text())["strategies"]
    assert written == ["lru-cached", {"strategy": "lru-cached", "cluster": {**expected, "lifecycle": "ray"}}]
    assert load_experiment(tmp_path / "experiment.yaml").trials == resolved.trials


@pytest.mark.parametrize(
    ("cluster", "extra", "sentence"),
    [
        ("2", "", "5:28: strategies[1].cluster: must be a mapping"),
        ("{nodes: {min: 1, max: 2}}", "", "5:28: strategies[1].cluster: a trial has a fixed number of 'nodes'"),
        ("{nodes: 2, secret: 0123456789abcdef}", "", "5:28: strategies[1].cluster: a trial takes no 'secret'"),
        ("{nodes: 2, lifecycle: cloud}", "", "must be one of local, ray, ray-multiplexed (got 'cloud')"),
        ("{nodes: 2, node: 1}", "", "strategies[1].cluster.node: is not a known key"),
        ("{nodes: 2}", "page_cache: cold\n", "strategies[1].cluster: cannot be used with 'page_cache: cold'"),
    ],
)
def test_what_cannot_be_a_trial_is_a_sentence(tmp_path: Path, cluster: str, extra: str, sentence: str) -> None:
    with pytest.raises(ResidencyError) as caught:
        load(tmp_path, cluster, extra)
    assert sentence in str(caught.value)


def test_only_an_experiment_has_clusters_in_its_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.config.settings import settings_from_environment

    (tmp_path / "app.yaml").write_text("strategies: [{strategy: lru-cached, cluster: {nodes: 2}}]\n")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    with pytest.raises(ResidencyError, match=r"strategies\[0\].cluster: is not a known key"):
        settings_from_environment()


def choice(lifecycle: Lifecycle | None) -> TrialChoice:
    cluster = {} if lifecycle is None else {"cluster": {"nodes": 2, "lifecycle": lifecycle}}
    return TrialChoice.model_validate({"strategy": "lru-cached", **cluster})


def test_requests_name_their_model() -> None:
    assert request_headers(choice(None), "m") == {}
    assert request_headers(choice("local"), "m") == request_headers(choice("ray"), "m") == {"X-Model": "m"}
    assert request_headers(choice("ray-multiplexed"), "m") == {"X-Model": "m", "serve_multiplexed_model_id": "m"}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.bench.cluster.find_spec", lambda name: None)
    check_installed("one", choice(None))
    check_installed("two", choice("local"))
    with pytest.raises(ResidencyError, match=r"The trial 'three' needs Ray, .*pip install 'residency\[cluster\]'"):
        check_installed("three", choice("ray"))


def test_an_answer_has_the_node_that_gave_it() -> None:
    body = b'{"predictions": [{"label": "P", "score": 0.9}], "cold": false}'
    assert read_reply(200, body, httpx.Headers({"x-residency-node": "n2"}))["node"] == "n2"
    assert "node" not in read_reply(200, body, {})
    assert read_reply(503, b"{}", httpx.Headers({"X-Residency-Node": "n1"}))["node"] == "n1"


def status(node: str, loads: int, *resident: str, keep: float | None = None) -> dict[str, Any]:
    used = [{"model": name, "loader": "fake", "dtype": "float32", "nbytes": 10} for name in ("a", "b")]
    return {
        "name": "lru-cached", "node": node, "route": "/predict-lru-cached", "loads": loads, "unloads": loads - 1,
        "unload_s": 0.5, "used": used, "resident": [{"model": name, "bytes": 10} for name in resident],
        "least_keep": keep,
    }  # fmt: skip


def residency(node: str, **histories: list[tuple[float, str]]) -> dict[str, Any]:
    """Of each model the changes, the newest first."""
    models = [
        {"model": name, "history": [{"at": at, "event": event} for at, event in history]}
        for name, history in histories.items()
    ]
    return {"node": node, "budget_bytes": 20, "models": models}


def answering(**answers: list[dict[str, Any]]) -> httpx.Client:
    """A client of a server with these answers, by path."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"strategies": answers[request.url.path.strip("/")]})

    return httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server")


def test_the_state_of_all_nodes_is_added_up() -> None:
    nodes = [status("n1", 3, "a", "b", keep=2.0), status("n2", 4, "a", keep=None)]
    with answering(strategies=nodes) as client:
        found = read_strategy(client)
    assert (found["route"], found["loads"], found["unloads"], found["unload_s"]) == ("/predict-lru-cached", 7, 5, 1.0)
    assert [model["model"] for model in found["resident"]] == ["a", "b", "a"]
    assert [used["model"] for used in found["used"]] == ["a", "b"]
    assert found["least_keep"] == 2.0
    assert add_up([status("n1", 1)])["least_keep"] is None  # type: ignore[list-item]


def test_what_each_node_did() -> None:
    strategies = [status("n2", 1, "b"), status("n1", 3, "a")]
    history = residency("n1", a=[(4.0, "load"), (1.0, "unload"), (0.0, "load")], b=[(3.0, "unload"), (2.0, "load")])
    with answering(strategies=strategies, residency=[history]) as client:
        one, two = count_by_node(client, {"n1": 5})
    assert (one.node, one.requests, one.loads, one.unloads, one.bytes) == ("n1", 5, 3, 2, 10)
    assert (one.most_bytes, one.budget_bytes) == (10, 20)
    assert (two.node, two.requests, two.most_bytes, two.budget_bytes) == ("n2", 0, None, None)


def test_the_most_bytes_follow_from_the_end_and_the_changes() -> None:
    changes = [_Change(1.0, "a", loaded=True), _Change(2.0, "b", loaded=True), _Change(3.0, "a", loaded=False)]
    assert most_bytes(5, {"a": 7, "b": 5}, changes) == 12
    assert most_bytes(5, {"b": 5}, []) == 5


def test_changes_before_forgotten_ones_do_not_count() -> None:
    forgotten = [(float(100 + at), ("unload", "load")[at % 2]) for at in reversed(range(OF_EACH))]
    history = residency("n1", a=forgotten, b=[(50.0, "unload"), (49.0, "load"), (48.0, "unload")])
    with answering(strategies=[status("n1", 300, "a")], residency=[history]) as client:
        [counts] = count_by_node(client, {})
    assert counts.most_bytes == 10  # without b, which may have been there at any time before


def node(name: str, requests: int, **changes: Any) -> Record:
    counts = {"node": name, "requests": requests, "loads": 4, "unloads": 1, "bytes": 3 * MIB}
    return counts | {"most_bytes": 9 * MIB, "budget_bytes": 10 * MIB} | changes


def clustered(rounds: int = 2, **cluster: Any) -> list[Record]:
    """A run of one server, and of two nodes."""
    trials = [trial_of("one"), trial_of("two") | {"cluster": CLUSTER | cluster}]
    records = [run_of(*trials, rounds=rounds)]
    for number in range(rounds):
        records += trial_with("one", [10.0] * 20, number)
        records += trial_with("two", [8.0] * 20, number, nodes=[node("n2", 5), node("n1", 15, most_bytes=8 * MIB)])
    return records


def test_the_report_has_a_section_by_node() -> None:
    records = clustered()
    summary = summarised(records)
    one, two = summary.trials
    assert (one.cluster, one.nodes) == (None, None)
    assert two.nodes is not None
    first, second = two.nodes
    assert (first.node, first.requests, first.share, first.loads) == ("n1", 30, 0.75, 8)
    assert (second.end_mib, second.most_mib, second.budget_mib, second.most_of_budget) == (3.0, 9.0, 10.0, 0.9)
    table = node_table(summary, "pipe")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["two: n1", "two: n2"]
    assert "75.0%" in table
    page = report(summary, arranged(records), said(summary), None)
    assert 'id="nodes-title">By node<' in page
    assert Summary.model_validate_json(summary.model_dump_json(by_alias=True)).trials[1].nodes == two.nodes
    [finding] = [each for each in findings(summary) if isinstance(each, SharedByNodes)]
    assert (finding.busiest, finding.share, finding.most_of_budget) == ("n1", 0.75, 0.9)


def test_without_a_cluster_there_is_no_such_section() -> None:
    records = run_with({"one": [[10.0] * 20]})
    summary = summarised(records)
    assert node_table(summary, "simple") == ""
    assert "By node" not in report(summary, arranged(records), said(summary), None)


def test_a_node_that_tells_no_budget() -> None:
    records = run_with({"one": [[10.0] * 20]})
    records[0]["trials"][0]["cluster"] = CLUSTER
    records[-1]["nodes"] = [node("n1", 0, most_bytes=None, budget_bytes=None)]
    [trial] = summarised(records).trials
    assert trial.nodes is not None
    assert (trial.nodes[0].share, trial.nodes[0].most_mib, trial.nodes[0].most_of_budget) == (None, None, None)


def test_a_plan_is_not_based_on_a_cluster() -> None:
    waited = {"cold": True, "timing": {"queue": 0.1, "load": 5.0, "inference": 2.0}}
    records = [
        record | (waited if record["kind"] == "sample" and record["text"] == 0 else {})
        for record in [*clustered(), *loads_of("one", 0, cold=(9.0, 0.01)), *loads_of("one", 1, cold=(9.0, 0.01))]
    ]
    [profile] = profiles(arranged(records), PRICES)
    [model] = profile.models.values()
    assert len(model.load) == 40  # of the single server alone
    records[0]["trials"] = records[0]["trials"][1:]
    alone = [record for record in records if record.get("trial") != "one"]
    with pytest.raises(ResultsError, match="no finished trial of a single server"):
        profiles(arranged(alone), PRICES)


def test_another_cluster_is_another_trial() -> None:
    found = changes(arranged(clustered()), arranged(clustered(nodes=3)), 0.05)
    assert "two cannot be compared: its 'cluster' is not the same." in [say(each) for each in found.findings]


@pytest.mark.parametrize(
    ("lifecycle", "start"),
    [
        (None, "RESIDENCY_CONFIG=app.yaml uvicorn core.app:app;"),
        ("local", "python runner.py serve app.yaml;"),
        ("ray", "serve run core.cluster:build config=app.yaml;"),
        ("ray-multiplexed", "Ray's own @serve.multiplexed served it."),
    ],
)
def test_settings_to_paste_say_how_to_start_the_nodes(lifecycle: Lifecycle | None, start: str) -> None:
    assert start in settings_to_paste("two", "/predict", "models: {}\n", lifecycle)


def machine(number: int, name: str, processor: str) -> Record:
    return {"kind": "machine", "round": number, "name": name, "environment": {"processor": processor, "cores": 2}}


def test_rounds_on_machines() -> None:
    records = run_with({"a": [[10.0] * 20] * 3})
    records += [machine(0, "east", "x"), machine(1, "west", "y"), machine(2, "west", "x"), machine(2, "east", "x")]
    summary = summarised(records)
    assert [(each.name, each.rounds) for each in summary.machines] == [("east", [0, 2]), ("west", [1])]
    [finding] = [each for each in findings(summary) if isinstance(each, RanOnMachines)]
    assert not finding.are_alike
    assert say(finding).startswith("The rounds ran on east (rounds 1 and 3) and west (round 2);")


def test_a_sample_may_have_a_node() -> None:
    run = arranged([run_of(trial_of("a")), *trial_with("a", []), sample_of("a", 1.0, node="n1")])
    assert run.labels == ["a"]


def test_nodes_are_probed_when_each_of_them_is() -> None:
    asked: list[bool] = []

    def answer(_: httpx.Request) -> httpx.Response:
        asked.append(len(asked) == 2)
        return httpx.Response(200, json={"strategies": [], "checked": asked[-1]})

    class Running:
        def check(self) -> None:
            """It runs."""

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server") as client:
        wait_until_probed(cast("ServerProcess", Running()), client, 10)
    assert asked == [False, False, True]


def test_one_node_that_probes_is_enough() -> None:
    done, busy = (StrategiesAnswer(strategies=[], checked=checked) for checked in (True, False))
    assert join_strategies({"n1": done, "n2": done}).checked
    assert not join_strategies({"n1": done, "n2": busy}).checked
