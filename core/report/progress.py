"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REDRAWS_PER_SECOND = 4  # a redraw takes CPU time from what is measured


class RunProgress:
    """Shows progress on standard error, as `core.bench.run.Progress` asks; a context manager."""

    def __init__(self, rounds: int, trials: int, requests: int) -> None:
        """`trials` counts those still to run, in all rounds; `requests` are those of one trial."""
        self._rounds = rounds
        self._requests = requests
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, auto_refresh=False, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=trials * requests)
        self._label = ""
        self._done = 0
        self._drawn = 0.0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def trial_started(self, number: int, label: str) -> None:
        self._label = f"round {number + 1} of {self._rounds}, {label}"
        self._done = 0
        self._bar.update(self._task, description=self._label, refresh=True)

    def requests_done(self, count: int) -> None:
        self._done += count
        self._bar.advance(self._task, count)
        if time.monotonic() - self._drawn > 1 / REDRAWS_PER_SECOND:
            self._drawn = time.monotonic()
            self._bar.refresh()

    def trial_ended(self, failure: str | None) -> None:
        self._bar.advance(self._task, self._requests - self._done)  # the trial failed, or `requests` was an estimate
        if failure is not None or not self._console.is_terminal:
            self._console.print(f"{self._label}: {failure or f'{self._done} requests'}", markup=False, soft_wrap=True)
