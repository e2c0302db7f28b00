"""Answers of engines that are streams: passed on as they come, kept alive while a load runs, and cut where they end."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest
from openai import APIError, OpenAI

from tests.helpers.engines import engine, state, wait_until_idle
from tests.helpers.support import SECONDS, running, wait_for

CHAT = "/v1/chat/completions"
DONE = "data: [DONE]"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = {
        "models": {
            "fake": engine(parallel=8),
            "slow": engine("--slow 1.3"),
            "never": engine("--never", within=1.5),
            "brief": engine(parallel=3),
        },
        "strategies": [{"strategy": "keep-alive", "options": {"ttl": {"brief": 0.2}}}],
        "max_queue": 1000,
    }
    with running(settings) as (_, client):
        yield client


def asked(model: str, **members: Any) -> dict[str, Any]:
    return {"model": model, "stream": True, **members}


def lines(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)


def test_each_chunk_at_once(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=asked("fake", tokens=3, delay=0.3)) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        heard = lines(response)
        assert "t0" in next(heard)
        wait_for(lambda: state(client, "fake")["in_use"] == 1)  # the engine has more to say
        rest = list(heard)
    assert [line[:5] for line in rest] == ["data:"] * 4
    assert rest[-1] == DONE
    wait_until_idle(client, "fake")


def test_the_real_client(client: httpx.Client) -> None:
    with OpenAI(base_url=f"{client.base_url}/v1", api_key="none") as openai:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = openai.chat.completions.create(model="fake", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "t0 t1 t2 t3 t4 "


def test_comments_while_it_loads(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=asked("slow", tokens=1)) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Residency-Cold"] == "true"
        heard = lines(response)
        assert next(heard) == ": loading"
        assert state(client, "slow")["state"] == "loading"
        rest = list(heard)
    comments = [line for line in rest if line.startswith(":") and line != ": loading"]
    assert [comment.partition("queue;")[0] for comment in comments] == [
        ": Server-Timing: "
    ]  # what its head could not say
    assert "t0" in next(line for line in rest if not line.startswith(":"))
    assert rest[-1] == DONE


def test_a_failure_after_comments_is_an_event(client: httpx.Client) -> None:
    with OpenAI(base_url=f"{client.base_url}/v1", api_key="none") as openai:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = openai.chat.completions.create(model="never", messages=messages, stream=True)
        with pytest.raises(APIError, match="Loading model 'never' failed") as caught:
            list(stream)
    assert caught.value.body == {"message": caught.value.message, "type": "LoadFailed", "code": 503}


def test_an_engine_that_ends_in_its_answer(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=asked("fake", die=2)) as response:
        assert response.status_code == 200
        heard = lines(response)
        assert ["t0" in next(heard), "t1" in next(heard)] == [True, True]
        with pytest.raises(httpx.RemoteProtocolError):
            next(heard)
    wait_for(lambda: state(client, "fake")["history"][0]["reason"] == "crash")
    assert client.post(CHAT, json={"model": "fake"}).status_code == 200


def test_a_client_that_leaves(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=asked("fake", tokens=10_000, delay=0.01)) as response:
        heard = lines(response)
        assert "t0" in next(heard)
        wait_for(lambda: state(client, "fake")["in_use"] == 1)  # the lease of an earlier test lasts a little longer
    wait_until_idle(client, "fake")  # after a hundredth of what the engine had to say
    assert 'outcome="cancelled"' in client.get("/metrics").text


def test_a_client_that_leaves_while_it_loads(client: httpx.Client) -> None:
    wait_for(lambda: state(client, "brief")["state"] == "absent")
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json={"model": "brief", "seconds": SECONDS}, timeout=0.05)
    wait_until_idle(client, "brief")
    assert client.post(CHAT, json={"model": "brief"}).status_code == 200


def test_random_disconnects_leave_nothing_behind(client: httpx.Client) -> None:
    seed = random.Random(7)

    async def ask(session: aiohttp.ClientSession) -> None:
        await asyncio.sleep(seed.random() * 2)
        body = asked("brief", tokens=20, delay=0.01) if seed.random() < 0.7 else {"model": "brief", "seconds": 0.05}
        try:
            async with asyncio.timeout(seed.random() ** 2), session.post(CHAT, json=body) as response:
                await response.read()
        except TimeoutError:
            pass

    async def ask_all() -> None:
        async with aiohttp.ClientSession(str(client.base_url), connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(ask(session) for _ in range(200)))

    asyncio.run(ask_all())
    wait_for(lambda: 'in_flight{strategy="keep-alive"} 0' in client.get("/metrics").text)
    wait_for(lambda: state(client, "brief")["state"] == "absent")  # idle for its ttl, so no lease was left
    assert state(client, "brief")["waiting"] == 0
    assert client.post(CHAT, json={"model": "brief"}).status_code == 200


def test_a_client_that_cuts_its_request(client: httpx.Client) -> None:
    body = json.dumps({"model": "fake"}).encode()
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n%b" % (CHAT.encode(), body))
    wait_until_idle(client, "fake")
