"""Starting, watching and ending the server process of a trial."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import yaml

from ..config.quantities import duration
from ..errors import TrialFailed
from ..names import APP, CLUSTER_SERVERS
from ..results.header import Lifecycle
from ..system.processes import adopt_orphans, die_with_parent
from ..system.server_log import find_reason

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.01
LOG_TAIL = 64 << 10  # bytes
AppendLog = Callable[[str], None]
GRACE_SECONDS = 15.0  # between SIGTERM and SIGKILL
CLUSTER_GRACE_SECONDS = 30.0  # the same for a server that ends nodes of its own


class ServerProcess:
    """A running server. `started` is the time of its exec (`time.perf_counter`)."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes], started: float) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.started = started
        self._log = log

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.process.pid

    def wait_until_ready(self, client: httpx.Client, timeout: float) -> float:
        """Wait for the first 200 from /readyz, and return the seconds since exec. Raises TrialFailed."""
        while time.perf_counter() - self.started < timeout:
            self.check()
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return time.perf_counter() - self.started
            except httpx.TransportError:
                pass  # the server does not listen yet
            time.sleep(POLL_SECONDS)
        raise TrialFailed(f"the server was not ready within {duration(timeout)}: {self.failure_reason()}")

    def wait_until_probed(self, client: httpx.Client, timeout: float) -> None:
        """Wait until the server has probed its models, which takes CPU time once for each model."""
        end = time.perf_counter() + timeout
        while time.perf_counter() < end and not client.get("/readyz").json().get("checked", True):
            self.check()
            time.sleep(POLL_SECONDS)

    def check(self, seconds: float = 0.0) -> None:
        """Raise TrialFailed if the server has ended, or ends within `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is not None:
            raise TrialFailed(f"the server ended with status {self.process.returncode}: {self.failure_reason()}")

    def failure_reason(self) -> str:
        """Why the server failed, according to its log."""
        return find_reason(self.log(LOG_TAIL)) or "it wrote nothing"

    def log(self, most: int = sys.maxsize) -> str:
        """The server's log; if it is longer than `most` bytes, its last lines within that."""
        end = os.fstat(self._log.fileno()).st_size
        # pread, because a seek would move the offset that the server writes at.
        tail = os.pread(self._log.fileno(), min(most, end), max(0, end - most))
        whole = tail if len(tail) == end else tail.partition(b"\n")[2]
        return whole.decode("utf-8", "replace")


@contextmanager
def serve(
    settings: Mapping[str, Any],
    app: str = APP,
    folder: Path = ROOT,
    *,
    workers: int = 1,
    variables: Mapping[str, str] | None = None,
    append_log: AppendLog | None = None,
) -> Iterator[ServerProcess]:
    """Run the ASGI `app`, imported from `folder`, with `settings` on a free loopback port. The server ends on exit.

    `RESIDENCY_*` variables of this process do not reach it, because the experiment defines all settings.
    """
    with _written(settings) as config:
        environment = _environment() | {"RESIDENCY_CONFIG": str(config)} | dict(variables or {})
        command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(folder), "--workers", str(workers)]
        command += ["--host", "127.0.0.1", "--log-level", "warning", "--no-access-log"]
        with launch(command, environment, append_log) as server:
            yield server


@contextmanager
def serve_cluster(
    settings: Mapping[str, Any], lifecycle: Lifecycle, append_log: AppendLog | None = None
) -> Iterator[ServerProcess]:
    """Run the nodes that `settings` ask for, behind a balancer on a free loopback port. All of them end on exit."""
    with _written(settings) as config:
        command = [sys.executable, "-m", *CLUSTER_SERVERS[lifecycle], str(config), "--host", "127.0.0.1"]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # Ray would write colours into the log.
        environment = _environment() | {"PYTHONPATH": path, "RAY_COLOR_PREFIX": "0"}
        with launch(command, environment, append_log, adopts=True) as server:
            yield server


def _environment() -> dict[str, str]:
    """The variables of this process without our own settings. `python`, in the command of a model, is this one."""
    keep = {"RESIDENCY_CACHE"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("RESIDENCY_") or name in keep}
    return own | {"PATH": os.pathsep.join(filter(None, (str(Path(sys.executable).parent), own.get("PATH"))))}


@contextmanager
def _written(settings: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary file with the settings."""
    with tempfile.TemporaryDirectory(prefix="residency-") as temporary:
        config = Path(temporary) / "settings.yaml"
        config.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), encoding="utf-8")
        yield config


@contextmanager
def launch(
    command: Sequence[str],
    environment: Mapping[str, str],
    append_log: AppendLog | None = None,
    *,
    adopts: bool = False,
) -> Iterator[ServerProcess]:
    """Run any server that takes `--port`. On exit the server ends, and the end of its log is passed to `append_log`.

    If the server `adopts`, descendants whose parents have ended become its children, so that they count as its memory,
    and are ended with it.
    """
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; we end the server ourselves
            preexec_fn=_bind_and_adopt if adopts else die_with_parent,
        )
        server = ServerProcess(process, port, log, started)
        try:
            yield server
        except BaseException:
            # It hangs or failed, or the user pressed Ctrl-C.
            left = _descendants(process) if adopts else []
            process.kill()
            _kill(left)
            raise
        finally:
            try:
                _end_tree(process) if adopts else _end(process)
            finally:
                if append_log is not None:
                    append_log(server.log(LOG_TAIL))


def _bind_and_adopt() -> None:
    die_with_parent()
    adopt_orphans()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a server, and then each of its descendants that it has left behind."""
    found = _descendants(process)
    try:
        _end(process, CLUSTER_GRACE_SECONDS)
    finally:
        _kill(found)


def _descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):  # it has ended; psutil knows it by its start, too
            process.kill()


def _end(process: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    process.terminate()
    try:
        process.wait(grace)
    except BaseException as error:  # it hangs, or the user pressed Ctrl-C
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
