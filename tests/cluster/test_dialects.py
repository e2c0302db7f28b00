"""Dialects, aliases and streams through the balancer of two nodes: as on one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from core.bench.server import ServerProcess
from tests.helpers.clusters import TOKEN, RunningCluster, alive, cluster, need_haproxy
from tests.helpers.engines import FAKE_ENGINE, engine
from tests.helpers.support import SECONDS, running, wait_for
from tests.helpers.wheels import minilm

need_haproxy()

CHAT = "/v1/chat/completions"
ALIASES = ["gpt-4o-mini", "qwen3:4b", "nomic-ai/chat-v1.5", 'a "quoted" name']
TEXTS = ["A cat sits on the mat.", "Stock prices fell."]
STRATEGY = "keep-alive"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    models = {
        "sentiment": "embedded",
        "minilm": str(minilm()),
        "chat": engine(aliases=ALIASES),
        "slow": engine("--slow 1"),
    }
    strategies = [{"strategy": STRATEGY, "options": {"ttl": 600}}, "on-demand"]
    return {"models": models, "strategies": strategies, "token": TOKEN, "default": "sentiment", "shutdown_timeout": 5}


@pytest.fixture(scope="module")
def two(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with cluster(tmp_path_factory.mktemp("two"), settings | {"cluster": {"nodes": 2}}) as found:
        yield found


@pytest.fixture(scope="module")
def one(settings: dict[str, Any]) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    with running(settings) as found:
        yield found


@pytest.fixture
def client(two: RunningCluster) -> Iterator[httpx.Client]:
    two.wait_until_up("n1", "n2")
    with httpx.Client(base_url=f"http://127.0.0.1:{two.port}", timeout=SECONDS) as client:
        yield client


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/models", {}),
    ("GET", "/on-demand/v1/models", {}),
    ("POST", "/v1/embeddings", {"json": {"model": "minilm", "input": TEXTS}}),
    ("POST", "/v1/embeddings", {"json": {"model": "minilm", "input": TEXTS, "encoding_format": "base64"}}),
    ("POST", f"/{STRATEGY}/v1/embeddings", {"json": {"model": "minilm", "input": TEXTS[0]}}),
    ("POST", "/embed", {"json": {"inputs": TEXTS}, "headers": {"X-Model": "minilm"}}),
    ("POST", "/models/sentiment", {"json": {"inputs": TEXTS[0]}}),
    ("POST", "/models/minilm", {"json": {"inputs": TEXTS[0]}}),
    ("POST", "/tasks/embed", {"json": {"model": "minilm", "items": TEXTS}}),
    ("POST", "/v1/rerank", {"json": {"model": "sentiment", "query": "a", "documents": TEXTS}}),
    ("POST", "/v1/embeddings", {"json": {"model": "nobody", "input": "a"}}),
    ("POST", "/v1/embeddings", {"json": {"model": "minilm", "input": [1, 2]}}),
    ("POST", CHAT, {"json": {"model": "sentiment", "messages": []}}),
    *(("POST", CHAT, {"json": {"model": name, "messages": []}}) for name in ("chat", *ALIASES)),
    ("POST", f"/on-demand{CHAT}", {"json": {"model": "chat", "messages": []}}),
    ("POST", "/v1/audio/transcriptions", {"data": {"model": "chat"}, "files": {"file": ("a.wav", b"\0" * 99_999)}}),
    ("POST", "/v1/audio/translations", {"data": {"model": "qwen3:4b"}}),
    ("GET", "/v1/audio/voices?model=qwen3%3A4b", {}),
    ("PUT", "/upstream/nomic-ai/chat-v1.5/a/b?c=d", {"content": b"\xff"}),
    ("GET", f"/{STRATEGY}/upstream/chat/props", {}),
]


def comparable(answer: httpx.Response) -> Any:
    """What does not differ between two servers; of an echo, what arrived at the engine."""
    value = answer.json()
    if isinstance(value, dict):
        for key in ("pid", "headers", "created", "cold"):
            value.pop(key, None)
        if "body" in value:
            value["body"] = value["body"].count("\0") or value["body"]
    return answer.status_code, answer.headers["content-type"], _rounded(value)


def _rounded(value: Any) -> Any:
    """Vectors of two batches differ in their last digits."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items() if key not in ("embedding", "created")}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_two_nodes_answer_as_one(
    method: str, path: str, options: dict[str, Any], client: httpx.Client, one: tuple[ServerProcess, httpx.Client]
) -> None:
    through, direct = (each.request(method, path, **options) for each in (client, one[1]))
    assert comparable(through) == comparable(direct)


def test_all_names_of_an_engine_lead_to_one_copy(client: httpx.Client) -> None:
    pids = set()
    for name in ("chat", *ALIASES):
        for _ in range(3):
            pids.add(client.post(CHAT, json={"model": name}).json()["pid"])
    assert len(pids) == 1


def test_a_stream_is_passed_on_as_it_comes(client: httpx.Client) -> None:
    asked = {"model": "qwen3:4b", "stream": True, "tokens": 4, "delay": 0.2}
    client.post(CHAT, json={"model": "chat"})  # it is in memory
    with client.stream("POST", CHAT, json=asked) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        times = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(times) == 6
    assert times[-1] - times[0] > 0.3  # of 0.6 s between the first token and the last


def test_a_slow_load_is_waited_for_once(client: httpx.Client) -> None:
    assert client.post(CHAT, json={"model": "slow"}).json()["path"] == CHAT
    strategies = client.get("/residency").json()["strategies"]
    models = [model for each in strategies if each["name"] == STRATEGY for model in each["models"]]
    assert [model["state"] for model in models if model["model"] == "slow"].count("resident") == 1
    assert {(model["engine"], *model["tasks"]) for model in models if model["model"] in ("slow", "minilm")} == {
        (True,),
        (False, "embed"),
    }


def test_operators_load_and_unload_an_engine_at_a_node(two: RunningCluster, client: httpx.Client) -> None:
    for node in ("n1", "n2"):
        for change, state in (("load", "resident"), ("unload", "absent")):
            status, body = two.ask("POST", f"/models/slow/{change}", {"strategy": STRATEGY}, {"X-Residency-Node": node})
            assert (status, json.loads(body)["state"]) == (200, state)


def test_a_node_that_is_killed_in_mid_stream_cuts_the_stream(two: RunningCluster, client: httpx.Client) -> None:
    """The client sees that the answer is incomplete, and the next request is answered; no engine is left behind."""
    asked = {"model": "chat", "stream": True, "tokens": 400, "delay": 0.05}
    node = client.post(CHAT, json={"model": "chat"}).headers["X-Residency-Node"]
    process = two.child(f"{node}.sock")
    engines = [each for each in process.children(recursive=True) if str(FAKE_ENGINE) in each.cmdline()]
    assert engines
    with pytest.raises(httpx.RemoteProtocolError):
        read_until(client, asked, process.kill)

    def is_answered() -> bool:
        """A request that meets the dead node before the balancer knows is cut: it may have been asked already."""
        with suppress(httpx.RemoteProtocolError):
            return client.post(CHAT, json={"model": "qwen3:4b"}).status_code == 200
        return False

    wait_for(is_answered)
    wait_for(lambda: not alive(engines))


def read_until(client: httpx.Client, asked: dict[str, Any], do: Callable[[], None]) -> None:
    """Read a stream, and do something after its first events."""
    with client.stream("POST", CHAT, json=asked) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number == 2:
                do()


def test_names_change_with_the_file(two: RunningCluster, client: httpx.Client, settings: dict[str, Any]) -> None:
    before = two.settings
    renamed = settings["models"] | {"chat": engine(aliases=["another name"])}
    two.wait_until_up("n1", "n2")
    two.change(before | {"models": renamed}, "All nodes have the settings")
    pids = {
        client.post(CHAT, json={"model": name}).json()["pid"] for name in ("another name", "chat") for _ in range(4)
    }
    assert len(pids) == 1
    assert client.post(CHAT, json={"model": "qwen3:4b"}).status_code == 404
    two.change(before, "All nodes have the settings")


@pytest.mark.slow
def test_nothing_outlives_the_cluster(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings | {"models": {"chat": settings["models"]["chat"]}, "default": "chat", "cluster": {"nodes": 2}}
    with cluster(tmp_path_factory.mktemp("killed"), settings) as found:
        status, body = found.ask("POST", CHAT, {"model": "chat"})
        assert status == 200
        children = found.children()
        assert json.loads(body)["pid"] in [each.pid for each in children]
        psutil.Process(found.process.pid).kill()
        wait_for(lambda: not alive(children))
