"""Servers with engines: taking turns under a budget, changed while they run, ended and killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import httpx
import psutil
import pytest
import yaml

from core.bench.server import ServerProcess
from core.errors import TrialFailed
from tests.helpers.engines import engine, state
from tests.helpers.support import SECONDS, running, uvicorn, wait_for

MIB = 1 << 20
TOKEN = "sixteen characters or more"
STEER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ask(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": model, **body})


def pids_of(client: httpx.Client, model: str) -> list[int]:
    pid = ask(client, model).json()["pid"]
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def family(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_engine_outlives_its_server(number: int) -> None:
    """Nor a grandchild in a session of its own; one engine ignores SIGTERM, and is killed."""
    models = {"a": engine("--fork"), "b": engine("--fork --stubborn") if number == signal.SIGKILL else engine()}
    with running({"strategies": ["keep-alive"], "models": models}) as (server, client):
        for model in models:
            assert ask(client, model).status_code == 200
        children = family(server)
        assert len(children) >= 5
        server.process.send_signal(number)
        assert server.process.wait(SECONDS) in (0, -number)
        wait_for(lambda: not any(map(is_alive, children)))


def test_a_server_that_cannot_load_any_preload_says_why() -> None:
    settings = {
        "strategies": [{"strategy": "keep-alive", "options": {"preload": ["a"]}}],
        "models": {"a": engine("--fail 3")},
    }
    with pytest.raises(TrialFailed, match="its command ended with status 3"), running(settings):
        pass


def test_settings_that_change_while_requests_run(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    options = {"ttl": 600, "preload": ["a"]}
    settings = {"strategies": [{"strategy": "keep-alive", "options": options}], "token": TOKEN}

    def write(**models: Any) -> None:
        file.write_text(yaml.safe_dump(settings | {"models": models}))

    write(a=engine(), b=engine())
    with uvicorn(tmp_path / "log", variables={"RESIDENCY_CONFIG": str(file)}) as client:
        first = pids_of(client, "a")[0]
        other = pids_of(client, "b")[0]
        write(a=engine(aliases=["alias"]), b=engine())
        assert client.post("/reload", headers=STEER).status_code == 200
        assert pids_of(client, "alias")[0] == first  # nothing that its process depends on has changed
        write(a={"run": "no-such-program --port ${port}"}, b=engine())
        refused = client.post("/reload", headers=STEER)
        assert refused.status_code == 422
        assert "models.a" in refused.json()["detail"]
        assert "no-such-program" not in refused.text
        assert pids_of(client, "a")[0] == first  # it goes on
        with ThreadPoolExecutor() as pool:
            last = pool.submit(ask, client, "a", seconds=1.0)
            wait_for(lambda: state(client, "a")["in_use"] == 1)
            write(a=engine("--size 1"), c=engine())
            reload = pool.submit(client.post, "/reload", headers=STEER)
            assert last.result(SECONDS).json()["pid"] == first  # it has ended in peace
            assert reload.result(SECONDS).status_code == 200
        assert pids_of(client, "a")[0] != first
        wait_for(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(other))
        assert ask(client, "b").status_code == 404
        assert ask(client, "c").status_code == 200
    assert "fork" not in (tmp_path / "log").read_text()


class Turns:
    """Engines that take turns under a budget, some of which are killed, and what is seen of that."""

    def __init__(self, server: ServerProcess, client: httpx.Client, seed: int) -> None:
        self.seen: set[psutil.Process] = set()
        self.kills: list[tuple[str, float]] = []  # a model, and when its process was killed
        self.failures: list[tuple[str, float, float, str]] = []  # a model, from when to when, and the answer
        self.over: list[Any] = []  # what was in memory although nobody used it and the budget had no room for it
        self._server, self._client = server, client
        self._random = random.Random(seed)
        self._pids: dict[str, int] = {}
        self._lock = Lock()
        self._ended = Event()

    def run(self, models: list[str], requests: int, kills: int) -> None:
        """So many requests, four at a time."""
        turns = [self._random.choice(models) for _ in range(requests)]
        killed = set(self._random.sample(range(requests // 4, requests), kills))
        observer = Thread(target=self._observe, daemon=True)
        observer.start()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._take, turns, [number in killed for number in range(requests)]))
        self._ended.set()
        observer.join(SECONDS)

    def _take(self, model: str, kills: bool) -> None:
        if kills:
            with self._lock:
                victim = self._random.choice(sorted(self._pids))
                pid = self._pids.pop(victim)
                self.kills.append((victim, time.monotonic()))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        answer = ask(self._client, model, grow=0.1, seconds=0.01)
        if answer.status_code == 200:
            with self._lock:
                self._pids[model] = answer.json()["pid"]
        else:
            self.failures.append((model, began, time.monotonic(), answer.text))

    def unexplained(self) -> list[str]:
        """The answers of requests that failed although nobody killed their engine meanwhile."""
        return [
            text
            for model, began, ended, text in self.failures
            if not any(killed == model and began - 0.5 < at < ended for killed, at in self.kills)
        ]

    def _observe(self) -> None:
        before: Any = None
        while not self._ended.wait(0.02):
            self.seen.update(family(self._server))
            [strategy] = self._client.get("/residency").json()["strategies"]
            held = [model for model in strategy["models"] if model["state"] == "resident"]
            is_over = sum(model["bytes"] for model in held) > strategy["budget_bytes"]
            now = [(model["model"], model["bytes"], model["since"], model["in_use"]) for model in held]
            if is_over and now == before and not any(model["in_use"] for model in held):
                self.over.append(now)
            before = now


def take_turns(engines: int, room: int, requests: int, kills: int) -> None:
    models = {f"m{number}": engine("--size 40", "--fork" if number % 2 else "") for number in range(engines)}
    options = {"ttl": 600, "memory_budget": f"{room * 70}MiB"}
    settings = {"strategies": [{"strategy": "keep-alive", "options": options}], "models": models}
    with running(settings) as (server, client):
        turns = Turns(server, client, seed=requests)
        turns.run([*models], requests, kills)
        assert turns.over == []
        assert turns.unexplained() == []
        assert len(turns.kills) == kills
        reasons = Counter(
            event["reason"] for model in models for event in state(client, model)["history"] if event["event"] == "load"
        )
        assert reasons["request"] > room
        wait_for(lambda: state(client, "m0")["in_use"] in (0, None))
        turns.seen.update(family(server))
    wait_for(lambda: not any(map(is_alive, turns.seen)))


def test_engines_that_take_turns_under_a_budget_and_are_killed() -> None:
    take_turns(engines=3, room=2, requests=16, kills=2)


@pytest.mark.slow
def test_ten_engines_take_turns_two_thousand_times() -> None:
    take_turns(engines=10, room=3, requests=2000, kills=60)
