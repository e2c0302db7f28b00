"""What HAProxy does with requests, under our configuration and our rule of routing."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.cluster import balancer
from core.cluster.homes import order
from tests.helpers.fake_nodes import Balanced, FakeNode, balanced
from tests.helpers.support import SECONDS, wait_for

SLOTS = {f"n{i}": 1.0 for i in range(1, 5)}  # three nodes, and a slot that is not used
JSON = {"Content-Type": "application/json"}
MALFORMED = ["", "a b", "a,b", 'a"b', "a'b", "a;b", "-a", ".a", "a/b", "a%0Ab", "ä", "a" * 65, "a" * 2000, "$HOME"]
MALFORMED_IN_JSON = [*MALFORMED, "a\n", "\na", "a\nb n1", "a\0", "\0", "a\r\nX-Injected: 1", "a\tb", "a\\", "a\u2028"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    with balanced(tmp_path_factory.mktemp("run"), queue=3) as cluster:
        yield cluster


@pytest.fixture
def nodes(cluster: Balanced) -> Balanced:
    cluster.reset()
    return cluster


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def first_home(model: str, gone: str = "") -> str:
    """The first in the order that is a node, and not the one that is gone."""
    return next(name for name in order(model, SLOTS) if name not in {"n4", gone})


def model_at(name: str, *, second: str = "") -> str:
    """A model whose first home is this node, and the next one `second`."""
    ids = (f"model-{i}" for i in range(1000))
    return next(
        each for each in ids if first_home(each) == name and second in ("", first_home(each, name))
    )  # fmt: skip


def two_models() -> tuple[str, str]:
    """Two models with different homes."""
    return model_at("n1"), model_at("n2")


def send_all(cluster: Balanced, pool: ThreadPoolExecutor, count: int, model: str) -> list[Future[str]]:
    """Requests that arrive one after the other, none of which is answered."""
    sent = []
    for _ in range(count):
        total = sum(counts(cluster).values())
        sent.append(pool.submit(cluster.ask, model))
        wait_for(partial(has_received, cluster, total + 1))
    return sent


def has_received(cluster: Balanced, count: int) -> bool:
    return sum(counts(cluster).values()) >= count


def counts(cluster: Balanced) -> dict[str, int]:
    return {name: len(node.received) for name, node in cluster.nodes.items()}


def test_a_body_names_the_model(nodes: Balanced) -> None:
    for i in range(30):
        assert nodes.ask(f"m{i}") == first_home(f"m{i}")


def test_a_header_names_the_model(nodes: Balanced) -> None:
    for i in range(10):
        answer = nodes.client.post("/predict", json={"text": "a"}, headers={"X-Model": f"m{i}"})
        assert nodes.node_of(answer) == first_home(f"m{i}")
        assert nodes.node_of(nodes.client.get("/any", headers={"X-Model": f"m{i}"})) == first_home(f"m{i}")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/{}",
        "/v2/models/{}/ready",
        "/v2/models/{}/infer",
        "/v2/models/{}/versions/lru-cached",
        "/v2/models/{}/versions/lru-cached/infer",
        "/models/{}/load",
        "/models/{}/unload",
        "/models/{}/load?wait=1",
    ],
)
def test_a_path_names_the_model(nodes: Balanced, path: str) -> None:
    """Those of the Open Inference Protocol, and those that load and unload."""
    for i in range(5):
        for method in ("GET", "POST"):
            answer = nodes.client.request(method, path.format(f"m{i}"), json={"inputs": []})
            assert nodes.node_of(answer) == first_home(f"m{i}")


@pytest.mark.parametrize(
    ("route_by", "expected"),
    [
        (["header", "path", "body"], "n1"),
        (["path", "header", "body"], "n2"),
        (["body", "path", "header"], "n3"),
        (["path"], "n2"),
        (["body"], "n3"),
    ],
)
def test_the_order_of_sources_is_the_users(tmp_path: Path, route_by: list[str], expected: str) -> None:
    header, path, body = model_at("n1"), model_at("n2"), model_at("n3")
    with balanced(tmp_path, route_by=route_by) as cluster:
        answer = cluster.client.post(f"/v2/models/{path}/infer", json={"model": body}, headers={"X-Model": header})
        assert cluster.node_of(answer) == expected


def test_what_is_not_to_be_looked_at_is_not(tmp_path: Path) -> None:
    with balanced(tmp_path, route_by=["path"]) as cluster:
        model, held = two_models()[0], cluster.nodes["n1"]
        held.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(cluster.client.get, f"/v2/models/{model}")
            held.wait_for_requests(1)
            for _ in range(4):  # n1 has a request, the others have none
                named = cluster.client.post("/predict", json={"model": model}, headers={"X-Model": model})
                assert cluster.node_of(named) != "n1"
            held.gate.set()
            assert cluster.node_of(waiting.result(SECONDS)) == "n1"


def test_a_chunked_body_names_the_model(nodes: Balanced) -> None:
    for i in range(10):
        text = json.dumps({"text": "a" * 3000, "model": f"m{i}"}).encode()
        pieces = (text[k : k + 700] for k in range(0, len(text), 700))
        answer = nodes.client.post("/predict", content=pieces, headers=JSON)
        assert nodes.node_of(answer) == first_home(f"m{i}")
        assert nodes.nodes[first_home(f"m{i}")].received[-1].body == text


def test_a_body_that_comes_slowly_is_waited_for(nodes: Balanced) -> None:
    model, go = model_at("n2"), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b'{"text": "a", '
        assert go.wait(SECONDS)
        yield f'"model": "{model}"}}'.encode()

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(nodes.client.post, "/predict", content=pieces(), headers=JSON)
        assert counts(nodes) == {"n1": 0, "n2": 0, "n3": 0}
        go.set()
        assert nodes.node_of(sent.result(SECONDS)) == "n2"


@pytest.mark.parametrize("size", [1000, 40_000, 47_000])
def test_an_ordinary_body_is_read(nodes: Balanced, size: int) -> None:
    for model in two_models():
        body = json.dumps({"text": "a" * size, "model": model}).encode()
        for content in (body, iter([body])):
            assert nodes.node_of(nodes.client.post("/predict", content=content, headers=JSON)) == first_home(model)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [50_000, 70_000, 1_000_000])
def test_a_large_body_must_be_named_elsewhere(nodes: Balanced, size: int, is_chunked: bool) -> None:
    model = model_at("n3")
    body = json.dumps({"text": "a" * size, "model": model}).encode()

    def content() -> Any:
        return (body[k : k + 10_000] for k in range(0, len(body), 10_000)) if is_chunked else body

    refused = nodes.client.post("/predict", content=content(), headers=JSON)
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"
    assert "header X-Model" in refused.json()["detail"]
    assert refused.json().keys() == {"type", "title", "status", "detail", "error"}
    assert sum(counts(nodes).values()) == 0
    for path, headers in (("/predict", {"X-Model": model}), (f"/v2/models/{model}/infer", {})):
        answer = nodes.client.post(path, content=content(), headers=JSON | headers)
        assert nodes.node_of(answer) == "n3"
        assert nodes.nodes["n3"].received[-1].body == body


def test_a_large_body_for_the_only_model_needs_no_name(tmp_path: Path) -> None:
    model = model_at("n2")
    with balanced(tmp_path, default_model=model, only_model=True) as cluster:
        for body in (b'{"text": "a"}', b'{"text": "%s"}' % (b"a" * 100_000)):
            assert cluster.node_of(cluster.client.post("/predict", content=body, headers=JSON)) == "n2"


def test_requests_without_a_model_go_to_the_homes_of_the_default(tmp_path: Path) -> None:
    model, other = model_at("n2"), model_at("n1")
    with balanced(tmp_path, default_model=model) as cluster:
        for _ in range(4):
            assert cluster.node_of(cluster.client.post("/predict", json={"text": "a"})) == "n2"
        assert cluster.ask(other) == "n1"
        large = b'{"text": "%s"}' % (b"a" * 100_000)
        assert cluster.client.post("/predict", content=large, headers=JSON).status_code == 413


@pytest.mark.parametrize("model", MALFORMED)
def test_what_can_be_no_model_s_id_names_none(nodes: Balanced, model: str) -> None:
    """Neither in a header nor in a path; the node says what is wrong with it."""
    headers = [(b"x-model", model.encode())]
    assert nodes.node_of(nodes.client.post("/predict", json={"text": "a"}, headers=headers)) in SLOTS
    at = model_at("n3")
    assert nodes.node_of(nodes.client.post("/predict", json={"model": at}, headers=headers)) == "n3"
    assert nodes.node_of(nodes.client.get(f"/v2/models/{model}/ready")) in SLOTS
    assert_nothing_was_injected(nodes)


@pytest.mark.parametrize("model", MALFORMED_IN_JSON)
def test_what_can_be_no_model_s_id_names_none_in_a_body(nodes: Balanced, model: str) -> None:
    answer = nodes.client.post("/predict", json={"text": "a", "model": model})
    assert nodes.node_of(answer) in SLOTS
    assert "x-injected" not in answer.headers
    assert_nothing_was_injected(nodes)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": null}', b'{"model": {"a": 1}}', b'{"model": ["a"]}', b"\xff\0", b'"model"'],
)
def test_a_body_that_names_nothing_reaches_a_node(nodes: Balanced, body: bytes) -> None:
    assert nodes.node_of(nodes.client.post("/predict", content=body, headers=JSON)) in SLOTS
    assert_nothing_was_injected(nodes)


def assert_nothing_was_injected(cluster: Balanced) -> None:
    assert cluster.api.homes() == {}
    assert {name for name, state in cluster.api.states().items() if state.state == "up"} == {"n1", "n2", "n3"}
    assert "Lua" not in (cluster.folder / "haproxy.log").read_text()


def test_two_headers_name_no_model(nodes: Balanced) -> None:
    one, other = two_models()
    headers = [("X-Model", one), ("X-Model", one)]
    assert nodes.node_of(nodes.client.post("/predict", json={"model": other}, headers=headers)) == first_home(other)


def test_homes_change_while_requests_run(nodes: Balanced) -> None:
    model = model_at("n1")
    assert nodes.ask(model) == "n1"
    for homes in (("n2",), ("n3",), ("n1",)):
        nodes.api.set_homes({model: homes, "another": ("n3", "n1")})
        assert nodes.api.homes() == {model: homes, "another": ("n3", "n1")}
        assert nodes.ask(model) == homes[0]
    nodes.api.set_homes({model: ("n9", "n2")})  # a node that was never there
    assert nodes.ask(model) == "n2"
    nodes.api.set_homes({model: ("n4",)})  # a slot without a node
    assert nodes.ask(model) == "n1"


def test_thousands_of_homes_are_replaced_in_one_step(nodes: Balanced) -> None:
    homes = {f"model-{i}": (f"n{1 + i % 3}",) for i in range(10_000)}
    nodes.api.set_homes(homes)
    assert nodes.api.homes() == homes
    assert (nodes.folder / "homes.map").read_text().splitlines() == [
        f"{model} {each[0]}" for model, each in homes.items()
    ]
    assert [nodes.ask(f"model-{i}") for i in range(6)] == ["n1", "n2", "n3"] * 2


def test_every_router_computes_the_same_order(tmp_path: Path) -> None:
    """HAProxy's Lua and Python, with slots of different weights, and when the first ones are gone."""
    weights = {f"n{i}": 1 + i % 5 for i in range(1, 21)}
    with balanced(tmp_path, nodes=20, unused=0, weights=weights, one_node=True) as cluster:
        ids = [f"model-{i}" for i in range(800)] + [f"{i:x}.{'aB_-.9' * (i % 10)}" for i in range(200)]
        for gone in ((), ("n4", "n9", "n14", "n19"), ("n3", "n8", "n13", "n18")):
            for name in gone:
                cluster.api.disable(name)
            some = ids[:: 1 + len(gone)]
            up = {name for name, state in cluster.api.states().items() if state.state == "up"}
            expected = [next(name for name in order(model, weights) if name in up) for model in some]
            assert ask_pipelined(cluster, some) == expected


def test_of_several_homes_the_shorter_queue_is_taken(nodes: Balanced, pool: ThreadPoolExecutor) -> None:
    model = model_at("n1")
    nodes.api.set_homes({model: ("n2", "n3")})
    for node in nodes.nodes.values():
        node.gate.clear()
    sent = send_all(nodes, pool, 5, model)
    assert counts(nodes) == {"n1": 0, "n2": 3, "n3": 2}
    for node in nodes.nodes.values():
        node.gate.set()
    assert Counter(each.result(SECONDS) for each in sent) == {"n2": 3, "n3": 2}


def test_a_busy_home_is_passed_over(nodes: Balanced, pool: ThreadPoolExecutor) -> None:
    """The next in the order takes what the home does not, unless the home has less than twice what others have."""
    model = model_at("n1", second="n3")
    for node in nodes.nodes.values():
        node.gate.clear()
    sent = []
    for count, expected in ((3, (3, 0, 0)), (3, (3, 0, 3)), (1, (3, 1, 3)), (1, (4, 1, 3)), (1, (4, 1, 4))):
        sent += send_all(nodes, pool, count, model)
        assert tuple(counts(nodes).values()) == expected
    for node in nodes.nodes.values():
        node.gate.set()
    assert Counter(each.result(SECONDS) for each in sent) == {"n1": 4, "n2": 1, "n3": 4}


def test_a_node_is_told_that_the_client_has_gone(nodes: Balanced) -> None:
    node = nodes.nodes["n1"]
    node.gate.clear()
    url = nodes.client.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Model: %b\r\n\r\n" % model_at("n1").encode())
        node.wait_for_requests(1)
        assert nodes.api.states()["n1"].connections == 1
    wait_for(lambda: nodes.api.states()["n1"].connections == 0)
    assert nodes.api.states()["n1"].state == "up"


def test_a_node_that_is_down_is_passed_over_and_gets_its_models_back(nodes: Balanced) -> None:
    models = [f"m{i}" for i in range(12)]
    nodes.nodes["n2"].ready = False
    nodes.wait_for_states(n2="down")
    assert [nodes.ask(model) for model in models] == [first_home(model, gone="n2") for model in models]
    nodes.nodes["n2"].ready = True
    nodes.wait_for_states(n2="up")
    assert [nodes.ask(model) for model in models] == [first_home(model) for model in models]


def test_a_node_in_drain_gets_no_requests_and_answers_those_it_has(nodes: Balanced, pool: ThreadPoolExecutor) -> None:
    model = model_at("n2")
    nodes.nodes["n2"].gate.clear()
    (waiting,) = send_all(nodes, pool, 1, model)
    nodes.api.drain("n2")
    assert nodes.api.states()["n2"][:2] == ("drain", 1)
    assert nodes.ask(model) == first_home(model, gone="n2")
    nodes.api.set_homes({model: ("n2",)})
    assert nodes.ask(model) == first_home(model, gone="n2")
    nodes.nodes["n2"].gate.set()
    assert waiting.result(SECONDS) == "n2"
    wait_for(lambda: nodes.api.states()["n2"].connections == 0)
    nodes.api.use("n2")
    assert nodes.ask(model) == "n2"


def test_an_empty_answer_is_asked_for_elsewhere(nodes: Balanced) -> None:
    model = model_at("n1")
    nodes.nodes["n1"].empty_answers = 1
    assert nodes.ask(model) != "n1"
    assert counts(nodes)["n1"] == 1
    assert nodes.ask(model) == "n1"


def test_a_refusal_is_never_asked_for_elsewhere(nodes: Balanced) -> None:
    model = model_at("n1")
    for status in (503, 500, 502, 429):
        nodes.nodes["n1"].status = status
        assert nodes.client.post("/predict", json={"model": model}).status_code == status
    assert counts(nodes) == {"n1": 4, "n2": 0, "n3": 0}


def test_a_node_that_dies_or_hangs_fails_no_request(nodes: Balanced, pool: ThreadPoolExecutor) -> None:
    """One that hangs keeps its connections; when its checks fail, they are ended, and its requests asked elsewhere."""
    model = model_at("n3")
    node = nodes.nodes["n3"]
    node.gate.clear()
    sent = send_all(nodes, pool, 3, model)
    node.ready = False
    assert {each.result(SECONDS) for each in sent} <= {"n1", "n2"}
    node.reset()
    nodes.wait_for_states(n3="up")
    node.gate.clear()
    sent = [pool.submit(nodes.ask, model) for _ in range(3)]
    node.wait_for_requests(3)
    node.kill()
    assert {each.result(SECONDS) for each in sent} <= {"n1", "n2"}
    assert nodes.ask(model) in {"n1", "n2"}
    nodes.nodes["n3"] = FakeNode(node.place)
    nodes.wait_for_states(n3="up")
    assert nodes.ask(model) == "n3"


def test_without_retries_an_empty_answer_is_an_error(tmp_path: Path) -> None:
    with balanced(tmp_path, retry=0) as cluster:
        model = model_at("n1")
        cluster.nodes["n1"].empty_answers = 1
        answer = cluster.client.post("/predict", json={"model": model})
        assert (answer.status_code, answer.json()["status"]) == (502, 502)
        assert "node" in answer.json()["detail"]
        assert counts(cluster) == {"n1": 1, "n2": 0, "n3": 0}
        assert cluster.ask(model) == "n1"


def test_a_stream_arrives_chunk_by_chunk(nodes: Balanced) -> None:
    with nodes.client.stream("GET", "/stream", headers={"X-Model": model_at("n2")}) as answer:
        chunks = answer.iter_raw()
        for i in range(3):
            nodes.nodes["n2"].next_chunk.release()
            assert next(chunks) == b"chunk %d" % i
        assert list(chunks) == []
    assert answer.headers["x-residency-node"] == "n2"


def test_a_named_node_is_reached_through_the_other_door(nodes: Balanced) -> None:
    for name in ("n1", "n2", "n3"):
        answer = nodes.internal.get("/residency", headers={"X-Residency-Node": name, "X-Model": model_at("n1")})
        assert nodes.node_of(answer) == name
        assert nodes.nodes[name].received[-1].path == "/residency"
    nodes.api.drain("n2")
    assert nodes.node_of(nodes.internal.post("/reload", headers={"X-Residency-Node": "n2"})) == "n2"


def test_a_node_that_is_not_there_is_not_replaced_by_another(nodes: Balanced) -> None:
    nodes.nodes["n2"].ready = False
    nodes.wait_for_states(n2="down")
    for headers in ({"X-Residency-Node": "n2"}, {"X-Residency-Node": "n4"}, {"X-Residency-Node": "n99"}, {}):
        answer = nodes.internal.get("/residency", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (503, 503)
        assert "X-Residency-Node" in answer.json()["detail"]
    nodes.nodes["n1"].empty_answers = 1
    with suppress(httpx.RemoteProtocolError):  # after an earlier request, HAProxy ends the connection, too
        assert nodes.internal.post("/reload", headers={"X-Residency-Node": "n1"}).status_code == 502
    assert counts(nodes) == {"n1": 1, "n2": 0, "n3": 0}


def test_clients_cannot_name_a_node_or_a_secret(nodes: Balanced) -> None:
    model = model_at("n1")
    headers = {"X-Residency-Node": "n2", "X-Residency-Secret": "guessed"}
    assert nodes.node_of(nodes.client.post("/predict", json={"model": model}, headers=headers)) == "n1"
    assert not {"x-residency-node", "x-residency-secret"} & nodes.nodes["n1"].received[-1].headers.keys()


def test_readiness_is_that_of_any_node(nodes: Balanced) -> None:
    assert nodes.client.get("/healthz").json() == {"status": "ok"}
    assert nodes.client.get("/readyz").json() == {"status": "ready", "checked": True, "unavailable": []}
    assert (nodes.client.head("/readyz").status_code, nodes.client.head("/readyz").content) == (200, b"")
    for name in ("n1", "n2", "n3"):
        nodes.nodes[name].ready = False
    nodes.wait_for_states(n1="down", n2="down", n3="down")
    for path in ("/readyz", "/predict"):
        answer = nodes.client.post(path, json={"model": "a"}) if path == "/predict" else nodes.client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 503
    assert nodes.client.get("/healthz").status_code == 200


def test_what_is_about_all_nodes_is_answered_by_one_process(nodes: Balanced) -> None:
    paths = ("/residency", "/metrics", "/strategies", "/reload", "/residency?history=3")
    for path in paths:
        answer = nodes.client.get(path)
        assert (answer.status_code, "not running" in answer.json()["detail"]) == (503, True)
    status = FakeNode(nodes.folder / "status.sock")
    try:
        for path in paths:
            assert nodes.client.get(path).json() == {"node": "status"}
        assert nodes.client.post("/reload", content=b"a" * 100_000).json() == {"node": "status"}
    finally:
        status.kill()
    assert sum(counts(nodes).values()) == 0


def test_a_slot_leads_to_another_machine(nodes: Balanced) -> None:
    remote = FakeNode("remote")
    try:
        nodes.api.set_homes({"a": ("n4",)})
        nodes.api.set_address("n4", remote.address)
        nodes.api.use("n4")
        answer = nodes.client.post("/predict", json={"model": "a"})
        assert (answer.headers["x-residency-node"], answer.json()) == ("n4", {"node": "remote"})
        nodes.wait_for_states(n4="up")
    finally:
        nodes.api.disable("n4")
        remote.kill()


def test_ids_of_strangers_take_no_memory_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id of 64 letters and its order take some 200 bytes; HAProxy remembers 8,192 of them in a thread."""
    monkeypatch.setattr(balancer, "MAX_THREADS", 1)
    with balanced(tmp_path, nodes=1) as cluster:
        cluster.nodes["n1"].ready = False
        cluster.wait_for_states(n1="down")
        process = psutil.Process(cluster.process.pid)
        ask_pipelined(cluster, [f"{i:064}" for i in range(14_000)])
        before = process.memory_info().rss
        ask_pipelined(cluster, [f"{i:064}" for i in range(14_000, 26_000)])
        assert process.memory_info().rss - before < 12_000 * 80


def ask_pipelined(cluster: Balanced, models: list[str]) -> list[str]:
    """The nodes that answer for the models, over one connection, many at a time; "" where there is none."""
    url, nodes = cluster.client.base_url, []
    with socket.create_connection((url.host, url.port or 80)) as connection, connection.makefile("rb") as answers:
        for k in range(0, len(models), 100):
            part = models[k : k + 100]
            connection.sendall(b"".join(b"GET / HTTP/1.1\r\nHost: a\r\nX-Model: %b\r\n\r\n" % m.encode() for m in part))
            for _ in part:
                headers = dict(
                    line.decode().split(": ", 1)
                    for line in iter(lambda: answers.readline().strip(), b"")
                    if b": " in line
                )
                answers.read(int(headers["content-length"]))
                nodes.append(headers.get("x-residency-node", ""))
    return nodes
