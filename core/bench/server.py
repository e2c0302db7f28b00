"""Starting, watching and ending the server process of a trial."""

from __future__ import annotations

import ctypes
import os
import signal
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
import yaml

from ..config.quantities import duration
from ..errors import TrialFailed
from ..names import APP
from .server_log import find_reason

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.01
LOG_TAIL = 64 << 10  # bytes
AppendLog = Callable[[str], None]
GRACE_SECONDS = 15.0  # between SIGTERM and SIGKILL


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
    keep = {"RESIDENCY_CACHE"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RESIDENCY_") or k in keep}
    with tempfile.TemporaryDirectory(prefix="residency-") as temporary:
        config = Path(temporary) / "settings.yaml"
        config.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), encoding="utf-8")
        environment |= {"RESIDENCY_CONFIG": str(config)} | dict(variables or {})
        command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(folder), "--workers", str(workers)]
        command += ["--host", "127.0.0.1", "--log-level", "warning", "--no-access-log"]
        with launch(command, environment, append_log) as server:
            yield server


@contextmanager
def launch(
    command: Sequence[str], environment: Mapping[str, str], append_log: AppendLog | None = None
) -> Iterator[ServerProcess]:
    """Run any server that takes `--port`. On exit the server ends, and the end of its log is passed to `append_log`."""
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
            preexec_fn=_die_with_parent,
        )
        server = ServerProcess(process, port, log, started)
        try:
            yield server
        except BaseException:
            process.kill()  # it hangs or failed, or the user pressed Ctrl-C
            raise
        finally:
            try:
                _end(process)
            finally:
                if append_log is not None:
                    append_log(server.log(LOG_TAIL))


def _die_with_parent() -> None:
    """Make the kernel kill this child when its parent ends, however that happens (prctl(2))."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except BaseException as error:  # it hangs, or the user pressed Ctrl-C
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
