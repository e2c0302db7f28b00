"""Where the balancer takes requests that name a model in the ways of other servers' clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from core.cluster.blueprint import read_blueprint
from core.cluster.homes import order
from core.cluster.runtime_api import engine_lines
from core.config.engines import EngineChoice
from core.config.settings import Settings
from tests.helpers.fake_nodes import Balanced, balanced
from tests.helpers.support import SECONDS, wait_for

SLOTS = {f"n{i}": 1.0 for i in range(1, 5)}
ALIASES = {
    "chat": [
        "qwen3:4b",
        "nomic-ai/nomic-embed-text-v1.5-GGUF",
        "über das Wetter",
        'a "quoted" name',
        "n1 n2",
        "#x",
        "a\\b",
    ],
    "speech": ["whisper-1", "a" * 200],
}
PARALLEL = 5
MODELS = {
    name: EngineChoice(run="serve ${port}", aliases=aliases, parallel=PARALLEL) for name, aliases in ALIASES.items()
}
FORM = {"Content-Type": "multipart/form-data; boundary=cut"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    with balanced(tmp_path_factory.mktemp("run"), models={**MODELS, "embedded": "embedded"}, queue=3) as cluster:
        yield cluster


@pytest.fixture
def nodes(cluster: Balanced) -> Balanced:
    cluster.reset()
    return cluster


def home(model: str) -> str:
    return next(name for name in order(model, SLOTS) if name != "n4")


def pairs() -> list[tuple[str, str]]:
    """Each engine with each of its names."""
    return [(model, name) for model, aliases in ALIASES.items() for name in (model, *aliases)]


def form(model: str, file: bytes, *, file_first: bool = False) -> bytes:
    parts = [
        b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n",
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + file + b"\r\n",
    ]
    return b"".join(reversed(parts) if file_first else parts) + b"--cut--\r\n"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/on-demand/v1/embeddings", "/rerank"])
def test_an_alias_in_a_body_leads_to_the_home_of_its_model(nodes: Balanced, path: str) -> None:
    """Where JSON escapes characters beyond ASCII, the balancer reads no name, and any node answers."""
    for model, name in pairs():
        if name.isascii():
            assert nodes.node_of(nodes.client.post(path, json={"messages": [], "model": name})) == home(model), name


def test_an_alias_in_a_header_a_query_and_a_path_leads_there_too(nodes: Balanced) -> None:
    for model, name in pairs():
        if name.isascii():
            answer = nodes.client.post("/v1/audio/speech", content=b"x", headers={"X-Model": name})
            assert nodes.node_of(answer) == home(model), name
        escaped = quote(name, safe="")
        assert nodes.node_of(nodes.client.get(f"/v1/audio/voices?a=1&model={escaped}")) == home(model), name
        for path in ("/models/{}", "/on-demand/models/{}", "/upstream/{}/v1/chat", "/on-demand/upstream/{}/x/y/z"):
            assert nodes.node_of(nodes.client.post(path.format(escaped))) == home(model), (path, name)


def test_the_path_of_the_inference_protocol_may_begin_with_a_strategy(nodes: Balanced) -> None:
    for i in range(6):
        assert nodes.node_of(nodes.client.post(f"/on-demand/v2/models/m{i}/infer", json={})) == home(f"m{i}")


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_form_names_its_model_before_its_file(nodes: Balanced, size: int) -> None:
    for model, name in pairs():
        answer = nodes.client.post("/v1/audio/transcriptions", content=form(name, b"\r\n" * size), headers=FORM)
        assert nodes.node_of(answer) == home(model), name
        assert nodes.nodes[home(model)].received[-1].body == form(name, b"\r\n" * size)


def test_a_form_whose_name_is_not_found_reaches_any_node(nodes: Balanced) -> None:
    """It is not refused: who sends a file cannot name its model elsewhere without a change."""
    for content in (
        form("chat", b"x" * 200_000, file_first=True),
        b"--cut--\r\n",
        b'name="model"\r\n\r\n',
        b"\r\n\r\n",
    ):
        assert nodes.node_of(nodes.client.post("/v1/audio/transcriptions", content=content, headers=FORM)) in SLOTS
    assert "Lua" not in (nodes.folder / "haproxy.log").read_text()


@pytest.mark.parametrize("name", ["qwen3", "QWEN3:4B", "a" * 201, "é" * 800, "%00", "x\r\nX: 1", "chat:10"])
def test_what_is_no_name_is_none(nodes: Balanced, name: str) -> None:
    escaped = quote(name, safe="")
    for path in (f"/models/{escaped}", f"/models/{'/'.join(escaped * 3)}", f"/x?model={escaped}"):
        assert nodes.node_of(nodes.client.get(path)) in SLOTS
    assert "Lua" not in (nodes.folder / "haproxy.log").read_text()


def test_an_engine_is_asked_once(nodes: Balanced) -> None:
    """Where it gives no answer, it may have begun one; a model of ours is asked again at another node."""
    for node in nodes.nodes.values():
        node.empty_answers = 1
    with suppress(httpx.RemoteProtocolError):  # or 502, if the connection to the node was a new one
        assert nodes.client.post("/v1/chat/completions", json={"model": "qwen3:4b"}).status_code == 502
    assert sum(len(node.received) for node in nodes.nodes.values()) == 1
    other = next(f"m{i}" for i in range(100) if home(f"m{i}") != home("chat"))
    assert nodes.client.post("/v1/embeddings", json={"model": other}).status_code == 200


def test_an_engine_has_as_many_requests_as_it_does_at_a_time(nodes: Balanced) -> None:
    """Its home is passed over at more than `parallel` of them, where another model's is at `queue`."""
    for node in nodes.nodes.values():
        node.gate.clear()
    with ThreadPoolExecutor(2 * PARALLEL) as pool:
        sent = [pool.submit(nodes.ask, "chat") for _ in range(PARALLEL)]
        nodes.nodes[home("chat")].wait_for_requests(PARALLEL)
        sent.append(pool.submit(nodes.ask, "chat"))
        wait_for(lambda: sum(len(node.received) for node in nodes.nodes.values()) == PARALLEL + 1)
        assert len(nodes.nodes[home("chat")].received) == PARALLEL
        for node in nodes.nodes.values():
            node.gate.set()
        assert [each.result(SECONDS) for each in sent[:PARALLEL]] == [home("chat")] * PARALLEL


def test_engines_change_while_requests_run(nodes: Balanced) -> None:
    nodes.api.set_engines({"other": EngineChoice(run="serve ${port}", aliases=["qwen3:4b"])})
    assert nodes.node_of(nodes.client.post("/v1/completions", json={"model": "qwen3:4b"})) == home("other")
    nodes.api.set_engines(MODELS)
    assert nodes.node_of(nodes.client.post("/v1/completions", json={"model": "qwen3:4b"})) == home("chat")


def test_a_balancer_elsewhere_gets_the_names_of_engines(tmp_path: Path) -> None:
    """Ray sends it the settings that concern it as JSON."""
    file = tmp_path / "app.yaml"
    file.write_text(
        "models: {a: embedded, b: embedded, c: embedded, chat: {run: 'serve ${port}', aliases: ['x y'],"
        " within: 3min, memory: {fixed: 1GiB}}}\nstrategies: [on-demand]\ncluster: {nodes: 2}\n"
    )
    blueprint = read_blueprint(file)
    settings = Settings(**json.loads(blueprint.for_balancer))
    assert set(settings.models) == {"a", "b", "chat"}
    assert settings.models["chat"] == blueprint.settings.models["chat"]
    assert engine_lines(settings.models) == [f"{name.encode().hex()} chat:10" for name in ("chat", "x y")]
