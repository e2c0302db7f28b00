"""A node: the app in a process of its own, which ends with the process that started it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx

from ..config.settings import CONFIG, Settings
from ..config.variables import PREFIX
from ..errors import NodeFailed
from ..names import APP
from ..system.processes import end, start_bound
from ..system.server_log import find_reason

ROOT = Path(__file__).resolve().parents[2]
TOKEN, STATE, CAPTURE = f"{PREFIX}TOKEN", f"{PREFIX}STATE", f"{PREFIX}CAPTURE"
SECRET_HEADER = "X-Residency-Secret"  # noqa: S105  # a name
UNIX = "unix@"  # before the path of a socket, as in HAProxy's configuration
MOST_PATH = 90  # characters of a socket's path; the kernel takes 107, and HAProxy adds some for a temporary name
KEEP_ALIVE = 75  # seconds; longer than HAProxy keeps an idle connection, so that HAProxy is who closes it
POLL_SECONDS = 0.05
KILL_AFTER = 5.0  # seconds after `shutdown_timeout`
LOG_LINES = 200  # that are kept to find a reason in


def slot_names(count: int) -> tuple[str, ...]:
    """The names of `count` slots: n1, n2, …"""
    return tuple(f"n{number}" for number in range(1, count + 1))


def node_variables(settings: Settings, slot: str, token: str) -> dict[str, str]:
    """The variables in which the node of a slot differs from others: files of its own, and the cluster's token."""
    variables = {TOKEN: token}
    for name, path in ((STATE, settings.state), (CAPTURE, settings.capture)):
        if path is not None:
            variables[name] = str(path.with_name(f"{path.stem}-{slot}{path.suffix}"))
    return variables


def token_of(settings: Settings) -> str:
    """The operator's token, or a random one, with which only this cluster's own processes can manage its nodes."""
    return settings.token.get_secret_value() if settings.token else secrets.token_urlsafe(24)


def secret_of(settings: Settings) -> str | None:
    """What nodes want to see in each request; None: anything goes."""
    secret = settings.cluster.secret if settings.cluster else None
    return secret.get_secret_value() if secret else None


def connect(address: str, secret: str | None = None, timeout: float = 5.0, host: str | None = None) -> httpx.Client:
    """A client of the node at `unix@PATH` or `HOST:PORT`, which may answer only to the name `host`."""
    headers = ({SECRET_HEADER: secret} if secret else {}) | ({"Host": host} if host else {})
    if address.startswith(UNIX):
        transport = httpx.HTTPTransport(uds=address.removeprefix(UNIX))
        return httpx.Client(transport=transport, base_url="http://node", headers=headers, timeout=timeout)
    return httpx.Client(base_url=f"http://{address}", headers=headers, timeout=timeout, trust_env=False)


def write_to_stderr(line: str) -> None:
    """Write a line of a node's log to ours. Nobody may be reading any more."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class NodeProcess:
    """The node of a slot. It can be started again after it has ended."""

    def __init__(
        self,
        slot: str,
        config: Path,
        address: str,
        folder: Path,
        variables: Mapping[str, str],
        *,
        secret: str | None = None,
        host: str | None = None,
        logs_requests: bool = False,
        log: Callable[[str], None] = write_to_stderr,
    ) -> None:
        """`address` is `unix@PATH` or `HOST:PORT`, `folder` the working directory.

        `variables` override those of this process. Each line of the node's log is passed to `log`, after the name of
        its slot. The balancer's health checks are requests, too.
        """
        self.slot = slot
        self.address = address
        self.started = 0.0  # on the clock of time.monotonic
        self._config = config
        self._folder = folder
        self._variables = variables
        self._secret = secret
        self._host = host
        self._logs_requests = logs_requests
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._reader: Thread | None = None

    def start(self) -> None:
        """Start the process, and return at once. Raises NodeFailed for an address that cannot be used."""
        if self.address.startswith(UNIX):
            path = Path(self.address.removeprefix(UNIX))
            if len(str(path)) > MOST_PATH:
                raise NodeFailed(f"{path}: the path is too long for a socket; set TMPDIR to a shorter one.")
            path.unlink(missing_ok=True)
            listen = ["--uds", str(path), "--forwarded-allow-ips", "*"]  # only our balancer can connect
        else:
            host, _, port = self.address.rpartition(":")
            listen = ["--host", host.strip("[]"), "--port", port]
        command = [sys.executable, "-m", "uvicorn", APP, "--app-dir", str(ROOT), *listen]
        command += ["--timeout-keep-alive", str(KEEP_ALIVE), *([] if self._logs_requests else ["--no-access-log"])]
        # Each node counts for itself. Several workers of one server share a folder of counters.
        environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        environment |= {CONFIG: str(self._config), "PYTHONUNBUFFERED": "1", **self._variables}
        self._lines.clear()
        self.started = time.monotonic()
        self._process = start_bound(command, environment=environment, folder=self._folder, output=subprocess.PIPE)
        self._reader = Thread(target=self._read_log, args=[self._process], name=f"log-{self.slot}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int | None:
        """The id of the process that was started last."""
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. It need not be ready, and may hang."""
        return self._process is not None and self._process.poll() is None

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until the node's start-up loads are done. Raises NodeFailed if it ends, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with connect(self.address, self._secret, host=self._host) as client:
            while time.monotonic() < deadline:
                if not self.is_alive:
                    raise NodeFailed(f"Node {self.slot} ended with {self.status()}: {self.reason()}")
                try:
                    if client.get("/readyz").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass  # it does not listen yet
                time.sleep(POLL_SECONDS)
        raise NodeFailed(f"Node {self.slot} was not ready within {timeout:g} s: {self.reason()}")

    def status(self) -> str:
        """How the process ended, in words."""
        code = self._process.poll() if self._process else None
        return "no status" if code is None else f"signal {-code}" if code < 0 else f"status {code}"

    def reason(self) -> str:
        """Why the node failed, according to its log."""
        if self._reader and not self.is_alive:
            self._reader.join(1)  # a child of the node may keep the pipe open
        return find_reason("\n".join(self._lines)).removeprefix("residency: ") or "it wrote nothing"

    def why(self) -> str:
        """How the node ended, and why, in words that follow its name."""
        return f"has ended with {self.status()}: {self.reason().rstrip('.')}."

    def stop(self, grace: float) -> None:
        """End the node after its accepted requests, and kill it if it runs after `grace` seconds."""
        if self._process:
            end(self._process, grace)

    def kill(self) -> None:
        """Kill the node."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        with process.stdout as stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                self._lines.append(line)
                self._log(with_slot(line, self.slot))


def with_slot(line: str, slot: str) -> str:
    """A line of a log with the slot in front; a JSON object gets a key more."""
    if line.startswith("{") and line.endswith("}"):
        return f'{{"node": "{slot}", {line[1:]}' if line != "{}" else f'{{"node": "{slot}"}}'
    return f"{slot} | {line}"
