"""What stands beside the nodes of a cluster on this machine: HAProxy and the placer, as children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..config.settings import CONFIG
from ..names import PLACER
from ..system.processes import end, start_bound
from .balancer import LOG, Balancer, stop
from .node import ROOT
from .settings_file import COPY

PLACER_SECONDS = 5.0  # for the placer to end
LOG_TAIL = 400  # characters of HAProxy's log


class BalancerProcess:
    """HAProxy, with the configuration that `make` returns at each start."""

    def __init__(self, folder: Path, make: Callable[[], Balancer], *, assume_up: bool = False) -> None:
        """With `assume_up`, nodes count as up from the first start on."""
        self.started = 0.0
        self._folder = folder
        self._make = make
        self._assume_up = assume_up
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start HAProxy, and return when it listens. After the first time, nodes count as up. Raises BalancerFailed.

        It ends with the thread that calls this.
        """
        is_first = self._process is None and not self._assume_up
        self.started = time.monotonic()
        balancer = self._make()
        balancer.write()
        self._process = balancer.start(assume_up=not is_first)

    @property
    def is_alive(self) -> bool:
        """Whether HAProxy runs."""
        return self._process is not None and self._process.poll() is None

    def why(self) -> str:
        """How HAProxy ended, in words that follow its name."""
        code = self._process.poll() if self._process else None
        log = (self._folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
        return f"has ended with status {code}: {log[-LOG_TAIL:] or 'it wrote nothing'}."

    def stop(self, grace: float) -> None:
        """End HAProxy after the requests that it has, or after `grace` seconds."""
        if self._process and self.is_alive:
            stop(self._process, grace)

    def kill(self) -> None:
        """Kill HAProxy."""
        if self._process:
            self._process.kill()


class PlacerProcess:
    """The placer of the run folder. `source` is the file that POST /reload reads; None: nodes have their own."""

    def __init__(self, folder: Path, source: Path | None) -> None:
        self.started = 0.0
        self._folder = folder
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the placer, and return at once."""
        command = [sys.executable, "-m", PLACER, str(self._folder)]
        if self._source:
            command += ["--config", str(self._source)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.started = time.monotonic()
        environment = os.environ | {CONFIG: str(self._folder / COPY), "PYTHONPATH": path}
        self._process = start_bound(command, environment=environment)

    @property
    def is_alive(self) -> bool:
        """Whether the placer runs."""
        return self._process is not None and self._process.poll() is None

    def why(self) -> str:
        """How the placer ended, in words that follow its name. Its reason stands in the log, which is ours."""
        return f"has ended with status {self._process.poll() if self._process else None}."

    def stop(self) -> None:
        """End the placer."""
        if self._process:
            end(self._process, PLACER_SECONDS)

    def kill(self) -> None:
        """Kill the placer."""
        if self._process:
            self._process.kill()
