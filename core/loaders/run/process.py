"""An engine that runs: its address, its memory, and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Event, Lock, Thread
from time import monotonic

from ...config.engines import EngineChoice
from ...system.memory import pss_and_swap, tree
from .guarded import Guarded
from .leftovers import RunFile
from .sizes import Peak

log = logging.getLogger("residency")
GRACE = 10.0  # seconds from SIGTERM to SIGKILL
END_SECONDS = 5.0  # for processes to end after SIGKILL; longer only if the kernel itself hangs


class EngineProcess:
    """An engine, and all of its processes. Everything may be called from any thread."""

    own_process = True
    loaded_by = "run"

    def __init__(
        self,
        choice: EngineChoice,
        guarded: Guarded,
        url: str,
        peak: Peak,
        phases: Mapping[str, float],
        nbytes: int,
        stop: Callable[[], None] | None,
        run_file: RunFile | None,
    ) -> None:
        """`nbytes` are believed until the memory is measured. `stop` is what its own command for that does."""
        self.url = url
        self.phases = phases
        self._choice = choice
        self._guarded = guarded
        self._peak = peak
        self._nbytes = nbytes
        self._stop = stop
        self._run_file = run_file
        self._measuring = Lock()
        self._ending = Lock()  # protects the attributes below
        self._kill_at: float | None = None
        self._stopping: Thread | None = None  # in which its own command stops it
        self._is_closed = False
        self._has_closed = Event()

    @property
    def nbytes(self) -> int:
        """Bytes in memory, as last measured."""
        return self._nbytes

    @property
    def pids(self) -> list[int]:
        """The ids of its processes, the first of which is its guardian."""
        return [] if self._guarded.gone.is_set() else tree(self._guarded.pid)

    def measure(self) -> int:
        """Measure its memory, which takes milliseconds, and return it. A memory that is `fixed` is believed."""
        with self._measuring:
            if self._choice.fixed_bytes is None:
                guardian, *others = self.pids or [0]
                measured = pss_and_swap(others)
                if measured is not None and not self.has_ended():
                    self._nbytes = measured + (pss_and_swap([guardian]) or 0)  # which is freed with the engine
                    self._peak.note(self._nbytes)
            return self._nbytes

    def has_ended(self) -> bool:
        """Whether it has ended, which it was not asked to. What its command has started elsewhere may still run."""
        return self._guarded.ended.is_set() and not self._lives_elsewhere

    @property
    def is_over(self) -> bool:
        """Whether nothing of it can listen on its port any more."""
        return self._has_closed.is_set() or (self._guarded.gone.is_set() and not self._lives_elsewhere)

    @property
    def _lives_elsewhere(self) -> bool:
        return self._choice.stop is not None and self._guarded.status == 0

    def begin_close(self) -> None:
        """Ask it to end, and return at once, so that several can end at a time. Call `close` afterwards."""
        with self._ending:
            if self._kill_at is None:
                self._kill_at = monotonic() + GRACE
                if self._stop is None:
                    self._guarded.terminate()
                else:
                    self._stopping = Thread(target=self._stop, name=f"stop-{self._guarded.name}", daemon=True)
                    self._stopping.start()

    def close(self) -> None:
        """End it, and wait until its memory is freed. A second call does nothing."""
        self.begin_close()
        with self._ending:
            if self._is_closed:
                return
            self._is_closed = True
        assert self._kill_at is not None
        kill_at = self._kill_at
        if self._stopping is not None:
            self._stopping.join()
            kill_at = monotonic() + GRACE
        if not self._guarded.gone.wait(max(0.0, kill_at - monotonic())):
            log.warning("%s: it has not ended within %g s, and is killed.", self._guarded.name, GRACE)
            self._guarded.kill()
            if not self._guarded.gone.wait(END_SECONDS):
                log.error("%s: its processes hang in the kernel.", self._guarded.name)
        if self._run_file is not None:
            self._run_file.close()
        self._has_closed.set()
