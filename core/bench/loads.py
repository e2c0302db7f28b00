"""What a load takes from the disk, and what from the page cache: a few of each, after a trial's requests."""

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
from ..system.page_cache import evict, read_anew
from .client import ask, strategy_of

LOADS = 3  # from the disk, and as many from the page cache
SETTLE_SECONDS = 0.1  # after an answer, for the model to be freed
PATIENCE = 1.0  # seconds, for one that is kept for a while


@dataclass(frozen=True)
class Loads:
    """Of one of a trial's models, which is asked for while it is not in memory."""

    round: int
    """From 0."""
    trial: str
    """The trial's label."""
    client: httpx.Client
    route: str
    pid: int
    models: Sequence[str]
    text: str
    files: Callable[[str], Iterable[Path]]
    """All that loading a model may read."""
    append: Callable[[Load], None]
    """Takes the record of each load."""

    def measure(self) -> str | None:
        """Measure a few loads; why there could not be all of them, or None.

        There are none of a strategy that keeps its models: it pays for no load that a request waits for.
        """
        model = next(self._absent(), None)
        if model is None:
            return None
        try:
            return self._of(model)
        except TrialFailed as error:
            return str(error)
        except httpx.HTTPError as error:
            return f"a load was not answered ({error})"

    def _of(self, model: str) -> str | None:
        """Leaves the files as they were found before the trial: read in a row, in the page cache."""
        files = list(self.files(model))
        try:
            for _ in range(LOADS):
                if lacking := self._load(model, "cold", files):
                    return lacking
        finally:
            for file in files:
                read_anew(file)
        for _ in range(LOADS):
            if lacking := self._load(model, "warm", files):
                return lacking
        return None

    def _load(self, model: str, page_cache: PageCache, files: Sequence[Path]) -> str | None:
        """One load; why it could not be, or None."""
        if not self._leaves(model):
            return f"'{model}' stays in memory once it is loaded"
        if page_cache == "cold":
            evict(files)
        before = memory.processor_seconds(self.pid)
        ms, reply = ask(self.client, self.route, model, self.text)
        time.sleep(SETTLE_SECONDS)
        after = memory.processor_seconds(self.pid)
        if reply["status"] != httpx.codes.OK:
            return f"a load was answered with an error: {reply['error']}"
        if not reply["cold"]:
            return f"'{model}' was in memory when it was asked for"
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

    def _leaves(self, model: str) -> bool:
        """Whether the model is not in memory, or soon leaves it, perhaps for one of the others."""
        end = time.monotonic() + PATIENCE
        while model not in self._absent():
            if time.monotonic() > end:
                return False
            for other in self.models:
                if other != model:
                    ask(self.client, self.route, other, self.text)
            time.sleep(SETTLE_SECONDS)
        return True

    def _absent(self) -> Iterator[str]:
        """The models that are not in memory now."""
        resident = {each["model"] for each in strategy_of(self.client)["resident"]}
        return (model for model in self.models if model not in resident)
