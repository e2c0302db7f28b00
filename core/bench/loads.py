"""Measuring single loads after a trial's requests: a few from disk, and a few from the page cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from ..errors import TrialFailed
from ..results.recorded import PageCache
from ..results.records import Load
from ..system import memory
from ..system.page_cache import drop_files, reread
from .client import Reply, read_strategy

LOADS = 3  # from disk, and as many from the page cache
SETTLE_SECONDS = 0.1  # for the server to free a model after an answer
PATIENCE = 1.0  # seconds to wait for a model that is kept for a while


@dataclass(frozen=True)
class LoadMeasurement:
    """Measures loads of one model of a trial, by sending requests for it while it is not in memory."""

    round: int
    """From 0."""
    trial: str
    """The trial's label."""
    client: httpx.Client
    pid: int
    models: Sequence[str]
    files: Callable[[str], Iterable[Path]]
    """The files that loading a model may read."""
    append: Callable[[Load], None]
    """Takes the record of each load."""
    ask: Callable[[str], tuple[float, Reply]]
    """Sends a request for a model. Returns its latency in ms, and the reply."""

    def measure(self) -> str | None:
        """Measure a few loads. Returns why some are missing, or None.

        Measures none if all models are in memory: such a strategy has no cold starts.
        """
        model = next(self._absent(), None)
        if model is None:
            return None
        try:
            return self._measure_model(model)
        except TrialFailed as error:
            return str(error)
        except httpx.HTTPError as error:
            return f"a load was not answered ({error})"

    def _measure_model(self, model: str) -> str | None:
        """Measure loads of one model. Afterwards its files are in the page cache again, in large pages."""
        files = list(self.files(model))
        if not files:
            return f"the command of '{model}' names no file that loads could read from disk"
        try:
            for _ in range(LOADS):
                if problem := self._load(model, "cold", files):
                    return problem
        finally:
            for file in files:
                reread(file)
        for _ in range(LOADS):
            if problem := self._load(model, "warm", files):
                return problem
        return None

    def _load(self, model: str, page_cache: PageCache, files: Sequence[Path]) -> str | None:
        """Measure one load. Returns why that is impossible, or None."""
        if not self._wait_until_absent(model):
            return f"'{model}' stays in memory once it is loaded"
        if page_cache == "cold":
            drop_files(files)
        before = memory.cpu_seconds(self.pid)
        ms, reply = self.ask(model)
        time.sleep(SETTLE_SECONDS)
        after = memory.cpu_seconds(self.pid)
        if reply["status"] != httpx.codes.OK:
            return f"a load was answered with an error: {reply['error']}"
        if not reply["cold"]:
            return f"'{model}' was already in memory when the request came"
        self.append(
            Load(
                round=self.round,
                trial=self.trial,
                model=model,
                page_cache=page_cache,
                ms=ms,
                processor_s=None if before is None or after is None else after - before,
                timing=reply["timing"],
            )
        )
        return None

    def _wait_until_absent(self, model: str) -> bool:
        """Wait until the model is not in memory, sending requests for other models so that it is evicted.

        Returns False if it stays.
        """
        end = time.monotonic() + PATIENCE
        while model not in self._absent():
            if time.monotonic() > end:
                return False
            for other in self.models:
                if other != model:
                    self.ask(other)
            time.sleep(SETTLE_SECONDS)
        return True

    def _absent(self) -> Iterator[str]:
        """The models that are not in memory now."""
        resident = {each["model"] for each in read_strategy(self.client)["resident"]}
        return (model for model in self.models if model not in resident)
