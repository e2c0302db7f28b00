"""The page, in a real browser."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from playwright.sync_api import expect

from core.http.page import FOLDER, HEADERS, add_page
from tests.helpers.browsing import CONTRASTS
from tests.helpers.support import SECONDS, running, wait_for

STRATEGIES = ["persistent", "on-demand", "lru-cached", "keep-alive"]
TOKEN = "a token of the tests"
PHONE, DESKTOP = {"width": 320, "height": 640}, {"width": 1280, "height": 900}
BROWSERS_OWN = "Failed to load resource: "  # it writes a line for each request that fails; no page can prevent it
MARKUP = "<img src=x onerror=alert(1)> & so on"
Client = httpx.Client


@contextmanager
def served() -> Iterator[tuple[str, Client]]:
    """The app whose page is looked at."""
    choices = [*STRATEGIES[:2], {"strategy": "lru-cached", "options": {"memory_budget": "64MiB"}}, STRATEGIES[3]]
    with running({"strategies": choices, "token": TOKEN}) as (server, client):
        yield server.url, client


@pytest.fixture(scope="module")
def app() -> Iterator[tuple[str, Client]]:
    with served() as found:
        yield found


def unload(client: Client, strategy: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client.post("/models/embedded/unload", json={"strategy": strategy}, headers=headers)


def cold_requests(client: Client, strategy: str) -> int:
    [found] = [each for each in client.get("/residency").json()["strategies"] if each["name"] == strategy]
    return int(found["models"][0]["latency_ms"]["cold"]["count"])


class Watched:
    """A page, everything that its console said, and every URL that it asked for."""

    def __init__(self, browser: Any, url: str, path: str = "", **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(SECONDS * 1e3)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url + path)

    def row(self, table: str, strategy: str) -> Any:
        """The row of the one model that is served."""
        if table == "models":
            return self.page.locator("#models tbody", has=self.page.get_by_text(strategy, exact=True)).locator(
                "tr + tr"
            )
        return self.page.locator(f"#{table} tbody tr", has=self.page.get_by_text(strategy, exact=True)).first

    def answer(self, strategy: str) -> Any:
        """Where the strategy's latest answer stands; waits for it."""
        found = self.page.locator("#answers > li", has=self.page.get_by_role("heading", name=strategy))
        found.locator(".legend, .error").wait_for()
        return found


@contextmanager
def watched(browser: Any, url: str, path: str = "", **options: Any) -> Iterator[Watched]:
    """A page that must stay silent, and ask nobody but its own server."""
    found = Watched(browser, url, path, **options)
    try:
        yield found
        assert found.said == []
        assert all(asked.startswith((f"{url}/", "data:")) for asked in found.asked), found.asked
    finally:
        found.page.close()


def test_each_file_is_served_with_a_policy_that_allows_nothing_from_elsewhere(app: tuple[str, Client]) -> None:
    for file in FOLDER.iterdir():
        response = app[1].get("/" if file.name == "index.html" else f"/{file.name}")
        assert (response.status_code, response.text) == (200, file.read_text())
        for name, value in HEADERS.items():
            assert response.headers[name] == value
        text = file.read_text()
        assert text.count("\n") <= 250
        assert "innerHTML" not in text
        assert "https://" not in text
    # A headless browser asks for no icon, so that its silence proves nothing about one.
    assert '<link rel="icon" href="data:' in (FOLDER / "index.html").read_text()
    assert app[1].get("/openapi.json").json()["paths"].keys().isdisjoint({"/", "/page.css", "/page.js"})


def test_a_sentence_under_every_strategy_and_what_is_in_memory_then(browser: Any, app: tuple[str, Client]) -> None:
    for strategy in ("lru-cached", "keep-alive"):
        unload(app[1], strategy)
    loads = cold_requests(app[1], "on-demand")
    with watched(browser, app[0], viewport=DESKTOP) as seen:
        state = seen.row("models", "lru-cached").locator(".state")
        expect(state).to_have_text("absent")
        assert seen.row("models", "persistent").locator(".state").inner_text() == "resident"
        seen.page.get_by_role("button", name="Try under every strategy").click()
        for strategy in STRATEGIES:
            answer = seen.answer(strategy)
            assert "POSITIVE 0.9" in answer.inner_text()
            cold = strategy != "persistent"
            assert answer.locator(".badge").inner_text() == ("cold" if cold else "warm")
            parts = answer.locator(".legend li").all_inner_texts()
            names = [" ".join(part.split()[:-2]) for part in parts]
            load = ["resolve", "weights", "structure", "tokenizer", "rest of load"] if cold else []
            assert names == ["queue", *load, "inference", "HTTP and rest"]
            assert answer.locator(".bar rect").count() == len(parts)
            total = float(answer.locator(".total").inner_text().split()[0])
            assert total == pytest.approx(sum(float(part.split()[-2]) for part in parts), rel=0.02, abs=1.0)
        expect(seen.page.get_by_role("status").first).to_contain_text("keep-alive: POSITIVE 0.9")
        expect(state).to_have_text("resident")
        memory = seen.row("models", "lru-cached").locator("td").nth(2)
        assert memory.inner_text() == "37.6 MiB"
        assert "37.6 MiB of 64 MiB" in seen.page.locator("#models").inner_text().replace(".0 ", " ")
        meter = seen.page.get_by_role("meter", name="Memory of lru-cached")
        assert int(meter.get_attribute("aria-valuenow")) < int(meter.get_attribute("aria-valuemax")) == 64 << 20
        expect(seen.row("latencies", "on-demand").locator("td").nth(5)).to_have_text(str(loads + 1))  # cold ones
        assert seen.row("latencies", "persistent").locator(".strip polyline").count() == 1
        assert "load request" in seen.row("events", "lru-cached").inner_text()
        assert "MiB" in seen.page.locator("#pss").inner_text()


def test_steers_with_a_token_and_shows_a_problem_in_its_own_words(browser: Any, app: tuple[str, Client]) -> None:
    app[1].post("/predict-lru-cached", json={"text": "fine"})
    with watched(browser, app[0], viewport=DESKTOP) as seen:
        state = seen.row("models", "lru-cached").locator(".state")
        button = seen.row("models", "lru-cached").get_by_role("button")
        expect(state).to_have_text("resident")
        assert not button.is_visible()
        seen.page.get_by_text("Manage", exact=True).first.click()
        seen.page.get_by_label("Token").fill(TOKEN)
        button.click()
        expect(state).to_have_text("absent")
        button.click()
        expect(state).to_have_text("resident")
        expect(seen.page.locator("#steered")).to_have_text("embedded is resident under lru-cached.")
        expect(seen.page.locator("#events")).to_contain_text("unload manual")
        seen.page.get_by_label("Token").fill("a wrong one")
        button.click()
        expect(seen.page.locator("#steered")).to_contain_text("Give the server's token as")
        assert seen.said.pop().startswith(f"{BROWSERS_OWN}the server responded with a status of 401")


def test_the_keyboard_is_enough(browser: Any, app: tuple[str, Client]) -> None:
    with watched(browser, app[0], viewport=DESKTOP) as seen:
        seen.row("models", "persistent").wait_for()
        focused = seen.page.locator(":focus")
        for _ in range(3):
            seen.page.keyboard.press("Tab")
            if focused.get_attribute("id") == "text":
                break
        assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        seen.page.keyboard.press("ControlOrMeta+a")
        seen.page.keyboard.type("The soup was cold and awful.")
        seen.page.keyboard.press("Enter")
        assert "NEGATIVE" in seen.answer("persistent").inner_text()
        reached = []
        for _ in range(4):
            seen.page.keyboard.press("Tab")
            reached.append(focused.evaluate("node => node.id || node.textContent"))
        assert reached == ["model", "strategy", "Try", "Try under every strategy"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_can_be_read(browser: Any, app: tuple[str, Client], scheme: str) -> None:
    with watched(browser, app[0], viewport=PHONE, color_scheme=scheme) as seen:
        seen.page.get_by_role("button", name="Try under every strategy").click()
        seen.answer("keep-alive")
        seen.page.get_by_text("Manage", exact=True).first.click()
        seen.page.get_by_label("Token").fill("anything")
        seen.row("events", "on-demand").wait_for()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        contrasts = dict(seen.page.evaluate(CONTRASTS))
        assert len(contrasts) > 50
        assert {text: ratio for text, ratio in contrasts.items() if ratio < 4.5} == {}
        ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(ground.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def small_server(port: int, *nodes: str, engine: bool = False, tasks: tuple[str, ...] = ("classify",)) -> Iterator[str]:
    """The page below a prefix, with a made-up residency of these nodes, to be stopped and started on one port."""
    app, outer = FastAPI(), FastAPI()
    add_page(app)
    outer.mount("/some/prefix", app)
    nothing = {"count": 0, "p50": None, "p95": None}
    model: dict[str, Any] = {
        "model": "a",
        "state": "loading",
        "bytes": None,
        "since": None,
        "last_use": None,
        "expires": None,
    }
    model |= {"engine": engine, "tasks": tasks}
    model |= {"in_use": None, "waiting": 3, "next_out": True, "why": MARKUP, "history": []}
    model |= {"latency_ms": {"warm": nothing, "cold": nothing}}
    strategy: dict[str, Any] = {
        "name": "s",
        "route": "/predict-s",
        "loader": "l",
        "options": {"pinned": []},
        "budget_bytes": None,
    }

    @app.get("/residency")
    async def residency() -> dict[str, Any]:
        memory = {"pss_bytes": None, "private_bytes": None}
        one = strategy | {"resident_bytes": 0, "models": [model]}
        return {"memory": memory, "strategies": [one | {"node": node} for node in nodes] or [one]}

    async def change(request: Request) -> Response:
        return JSONResponse({"state": f"seen by {request.headers['X-Residency-Node']}"})

    if nodes:
        app.add_route("/models/a/unload", change, methods=["POST"])

    @app.post("/predict-s")
    async def predict() -> Response:
        return JSONResponse({"detail": MARKUP}, 503, {"Retry-After": "7"}, "application/problem+json")

    server = uvicorn.Server(uvicorn.Config(outer, port=port, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}/some/prefix"
    finally:
        server.should_exit = True
        thread.join(SECONDS)


@pytest.mark.parametrize(
    ("engine", "tasks", "said"), [(True, (), "engine"), (False, ("score", "embed"), "score, embed")]
)
def test_what_classifies_nothing_is_not_tried(
    browser: Any, port: int, engine: bool, tasks: tuple[str, ...], said: str
) -> None:
    with small_server(port, engine=engine, tasks=tasks) as url, watched(browser, url, "/", viewport=DESKTOP) as seen:
        expect(seen.row("models", "s").locator("td").first).to_have_text(said)
        expect(seen.page.get_by_text("No model here classifies sentences.")).to_be_visible()
        assert not seen.page.locator("#try").is_visible()


def test_below_a_prefix_data_is_text_and_errors_are_sentences(browser: Any, port: int) -> None:
    with small_server(port) as url, watched(browser, url, "/", viewport=PHONE) as seen:
        row = seen.row("models", "s")
        assert row.locator("td").nth(7).text_content() == f"next {MARKUP}"
        assert row.locator("td").nth(6).text_content() == "3 unanswered"
        assert seen.page.locator("#pss").inner_text() == "n/a"
        seen.page.get_by_role("button", name="Try", exact=True).click()
        assert f"{MARKUP} Try again in 7 s." in seen.answer("s").inner_text()
        seen.page.get_by_text("Manage", exact=True).first.click()
        seen.page.get_by_label("Token").fill("anything")
        row.get_by_role("button").click()
        sentence = "Models cannot be managed here: start the server with RESIDENCY_TOKEN."
        expect(seen.page.locator("#steered")).to_have_text(sentence)
        own = [f"{BROWSERS_OWN}the server responded with a status of {status}" for status in (503, 404)]
        assert [line.partition(" (")[0] for line in seen.said] == own
        seen.said.clear()


def test_tells_the_nodes_of_a_cluster_apart(browser: Any, port: int) -> None:
    with small_server(port, "n1", "n2") as url, watched(browser, url, "/", viewport=DESKTOP) as seen:
        for node in ("n1", "n2"):
            seen.row("models", f"s on {node}").wait_for()
        assert seen.page.locator("#strategy option").all_inner_texts() == ["s"]
        seen.page.get_by_text("Manage", exact=True).first.click()
        seen.page.get_by_label("Token").fill("anything")
        seen.row("models", "s on n2").get_by_role("button", name="unload a under s on n2").click()
        expect(seen.page.locator("#steered")).to_have_text("a is seen by n2 under s on n2.")


def test_says_so_when_the_server_is_gone_and_recovers(browser: Any, port: int) -> None:
    with small_server(port) as url:
        seen = Watched(browser, url, "/", viewport=DESKTOP)
        seen.row("models", "s").wait_for()
    look = "document.dispatchEvent(new Event('visibilitychange'))"  # as when the tab is seen again: it asks at once
    seen.page.evaluate(look)
    alert = seen.page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not answer. The figures below are from ")
    with small_server(port):
        seen.page.evaluate(look)
        expect(alert).to_be_hidden()
    seen.page.close()
    assert seen.said != []
    assert [line for line in seen.said if not line.startswith(f"{BROWSERS_OWN}net::ERR_")] == []
