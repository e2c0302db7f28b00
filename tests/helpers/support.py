"""What several tests need: checkpoint directories, hosts, and real server processes."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Semaphore
from typing import Any, TypeVar

import httpx
import pytest

from core.bench.client import connect
from core.bench.server import ServerProcess, serve
from core.checkpoints.embedded import embedded_directory
from core.loaders.onnxruntime.conversion import ensure_converted
from core.loaders.onnxruntime.facts import CannotConvert
from core.plugins import load_plugins
from core.residency.clock import CLOCK, Clock
from core.residency.decisions import Decisions
from core.residency.host import Host
from core.residency.keeper import Keeper
from core.residency.versions import Versions
from core.serving.observers import Observers

ROOT = Path(__file__).resolve().parents[2]
FAKES = str(Path(__file__).with_name("fakes.py"))
TASK_LOADER = str(Path(__file__).with_name("task_loader.py"))
ENGINE = f"{sys.executable} {Path(__file__).with_name('fake_engine.py')} --port ${{port}}"
SECONDS = 60.0  # until a test that waits for another thread or process gives up
Result = TypeVar("Result")


def checkpoint_in(folder: Path) -> Path:
    """A checkpoint directory of its own, for tests that put things into it."""
    folder.mkdir(parents=True)
    for file in embedded_directory().iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def convert(directory: Path) -> None:
    """Convert the checkpoint here, which spares the imports of a process that a server would start for it."""
    from core.loaders.onnxruntime.export import export

    with suppress(CannotConvert):  # the loader says so
        ensure_converted(directory, export)
    gc.collect()  # what an exporter leaves behind maps the checkpoint


def host_of(loader: Any, *directories: Path, strategy: str = "test", clock: Clock = CLOCK) -> Host:
    """A host whose model ids are the directories' names."""
    observers = Observers(load_plugins([FAKES]).manager.hook)
    versions = Versions({path.name: str(path) for path in directories})
    versions.find_all()
    return Host(strategy, loader, versions, Semaphore(64), observers.notify, clock=clock)


def keeper_of(strategy: Any, loader: Any, *directories: Path, clock: Clock = CLOCK, state: str | None = None) -> Keeper:
    """A strategy at work on models whose ids are the directories' names."""
    host = host_of(loader, *directories, strategy=strategy.name, clock=clock)
    keeper = Keeper(Decisions(strategy, strategy.name), host)
    host.versions.keepers.append(keeper)
    keeper.start(state)
    return keeper


def ids(keeper: Keeper) -> list[str]:
    """Of the models in memory."""
    return [copy.model_id for copy in keeper.residents()]


class Gate:
    """A FIFO in a checkpoint directory, at which the fake loader's loads hang until it is opened."""

    def __init__(self, checkpoint: Path) -> None:
        self._path = checkpoint / "gate"
        self._handle: int | None = None
        os.mkfifo(self._path)

    def wait_for_load(self) -> None:
        """Return once a load hangs here."""
        wait_for(self._someone_reads)

    def _someone_reads(self) -> bool:
        try:
            self._handle = self._handle or os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            return False
        return True

    def open(self) -> None:
        """Let every load through, now and later."""
        handle = self._handle or os.open(self._path, os.O_RDWR)
        self._path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def gated(checkpoint: Path) -> Iterator[Gate]:
    """Loads of the checkpoint hang until the gate is opened, which happens at the latest at the end."""
    gate = Gate(checkpoint)
    try:
        yield gate
    finally:
        if (checkpoint / "gate").exists():
            gate.open()


@contextmanager
def running(settings: Mapping[str, Any], *, ready: bool = True) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    """A real server process with a client."""
    with serve(settings) as server, connect(server.url, SECONDS) as client:
        if ready:
            server.wait_until_ready(client, SECONDS)
        else:
            wait_for(lambda: _answers(client) or server.process.poll() is not None)
        yield server, client


@contextmanager
def uvicorn(
    log: Path, *flags: str, variables: Mapping[str, str], python: str = sys.executable
) -> Iterator[httpx.Client]:
    """The app as a user starts it, configured by variables, what it says in the file `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "uvicorn", "core.app:app", "--port", str(port), *flags]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | dict(variables), stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        with connect(f"http://127.0.0.1:{port}", SECONDS) as client:
            wait_for(lambda: _answers(client, "/readyz") or process.poll() is not None)
            yield client
    finally:
        process.terminate()
        assert process.wait(SECONDS) is not None


def _answers(client: httpx.Client, path: str = "/healthz") -> bool:
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll what only another process can change; fails after `SECONDS`."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def in_threads(count: int, work: Callable[[int], Result]) -> list[Result]:
    """`work(0)` to `work(count - 1)`, all at a time; the first exception is raised."""
    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Result]] = [pool.submit(work, i) for i in range(count)]
        return [future.result(SECONDS) for future in futures]


def start(*command: str, ignored: Collection[int] = (), **options: Any) -> subprocess.Popen[str]:
    """Start a command with these signals ignored, as `&` and nohup do, and all others as in a terminal.

    However the tests themselves were started: in the background of a shell they have SIGINT ignored.
    """

    def set_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
    return subprocess.Popen(command, text=True, preexec_fn=set_signals, **streams)


def run_python(
    *arguments: str, cwd: Path = ROOT, variables: Mapping[str, str] | None = None, seconds: float = 4 * SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `runner.py` in this process, which spares the imports of another one."""
    from core.cli import main  # which imports all of the analysis

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["runner.py"])
        patch.chdir(ROOT)
        status = main(arguments)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, said, complained)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
