"""A server process of its own for one trial: started, awaited, and gone at the end."""

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
from .server_log import reason_in

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.01
LOG_TAIL = 64 << 10  # bytes
KeepLog = Callable[[str], None]
GRACE_SECONDS = 15.0  # between SIGTERM and SIGKILL


class ServerProcess:
    """A running server; `started` is when it was executed (`time.perf_counter`)."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes], started: float) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.started = started
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self, client: httpx.Client, timeout: float) -> float:
        """Seconds from exec to the first 200 of /readyz. Raises TrialFailed."""
        while time.perf_counter() - self.started < timeout:
            self.check()
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return time.perf_counter() - self.started
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(POLL_SECONDS)
        raise TrialFailed(f"the server was not ready within {duration(timeout)}: {self.last_words()}")

    def wait_until_checked(self, client: httpx.Client, timeout: float) -> None:
        """Return once the server has probed its models, which is done once for each and takes processor time."""
        end = time.perf_counter() + timeout
        while time.perf_counter() < end and not client.get("/readyz").json().get("checked", True):
            self.check()
            time.sleep(POLL_SECONDS)

    def check(self, seconds: float = 0.0) -> None:
        """Raises TrialFailed when the server has ended, or does within `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is not None:
            raise TrialFailed(f"the server ended with status {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """What the server's log says of why it failed."""
        return reason_in(self.log(LOG_TAIL)) or "it wrote nothing"

    def log(self, most: int = sys.maxsize) -> str:
        """What the server wrote to its log, or its last `most` bytes, which begin with a whole line."""
        end = os.fstat(self._log.fileno()).st_size
        # pread, because a seek would move the place where the server goes on writing.
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
    keep_log: KeepLog | None = None,
) -> Iterator[ServerProcess]:
    """Run the ASGI `app`, found from `folder`, with `settings` on a free loopback port; on leaving it is ended.

    Variables that configure a served app are kept away from it: an experiment says all there is.
    """
    keep = {"RESIDENCY_CACHE"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RESIDENCY_") or k in keep}
    with tempfile.TemporaryDirectory(prefix="residency-") as temporary:
        config = Path(temporary) / "settings.yaml"
        config.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), encoding="utf-8")
        environment |= {"RESIDENCY_CONFIG": str(config)} | dict(variables or {})
        command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(folder), "--workers", str(workers)]
        command += ["--host", "127.0.0.1", "--log-level", "warning", "--no-access-log"]
        with launch(command, environment, keep_log) as server:
            yield server


@contextmanager
def launch(
    command: Sequence[str], environment: Mapping[str, str], keep_log: KeepLog | None = None
) -> Iterator[ServerProcess]:
    """Run any server that takes `--port`; on leaving it is ended, and the end of its log handed to `keep_log`."""
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
            process.kill()  # it hangs, it failed, or its user is in a hurry
            raise
        finally:
            try:
                _end(process)
            finally:
                if keep_log is not None:
                    keep_log(server.log(LOG_TAIL))


def _die_with_parent() -> None:
    """In the child: let the kernel end it when this process dies, however that happens (prctl(2))."""
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
    except BaseException as error:  # it hangs, or its user is in a hurry
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
