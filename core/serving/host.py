"""The host of one strategy's models: what it hands out as `load`, timed and counted."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any

import pluggy

from ..contracts import Loader, Model, Prediction, Reason
from ..errors import LoadFailed
from .release import give_back

log = logging.getLogger("residency")
PATH = re.compile(r"(?<![\w/…])~?(?:/[^\s'\",;:()\[\]]+)+/?")


class Host:
    """`core.contracts.Load` for one strategy; knows what is in memory because every load goes through it.

    Loads run in the caller's thread, at most `slots` at a time over all hosts that share the semaphore.
    No lock is held meanwhile; single flight is the strategy's.
    """

    def __init__(
        self,
        strategy: str,
        loader: Loader,
        checkpoints: Mapping[str, Path],
        hooks: pluggy.HookRelay,
        slots: Semaphore,
    ) -> None:
        self.strategy = strategy
        self.loader = loader
        self.loads = 0
        self.unloads = 0
        self._checkpoints = checkpoints
        self._hooks = hooks
        self._slots = slots
        self._lock = Lock()  # protects what stands below, and both counts
        self._begun: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._phases: dict[str, Mapping[str, float]] = {}
        self._resident: list[HostedModel] = []

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self._checkpoints)

    def size(self, model_id: str) -> int:
        try:
            return self.loader.size(self._checkpoints[model_id])
        except BaseException as error:
            raise self._failure(model_id, error) from error

    def prepare(self) -> None:
        """Let the loader do once what all its loads have in common; a broken model is told when it is loaded."""
        prepare: Callable[[Path], None] = getattr(self.loader, "prepare", lambda _: None)
        for model_id, directory in self._checkpoints.items():
            try:
                prepare(directory)
            except Exception as error:
                log.warning("%s", self._failure(model_id, error))

    def __call__(self, model_id: str) -> Model:
        with self._lock:
            self._begun[model_id] += 1
            self._running[model_id] += 1
        try:
            with self._slots:
                started = time.perf_counter()
                model = self.loader.load(self._checkpoints[model_id])
                seconds = time.perf_counter() - started
            hosted = HostedModel(self, model_id, model)
        except BaseException as error:  # whatever a loader raises, the caller gets a sentence
            raise self._failure(model_id, error) from error
        finally:
            with self._lock:
                self._running[model_id] -= 1
        with self._lock:
            self.loads += 1
            self._phases[model_id] = hosted.phases
            self._resident.append(hosted)
        self._notify("after_model_load", hosted, seconds=seconds)
        return hosted

    def _failure(self, model_id: str, error: BaseException) -> LoadFailed:
        log.error("%s: loading '%s' failed", self.strategy, model_id, exc_info=error)
        return LoadFailed(f"Loading model '{model_id}' failed: {without_paths(error, self._checkpoints[model_id])}")

    def watch(self, model_id: str) -> Watch:
        return Watch(self, model_id)

    def phases(self, model_id: str) -> Mapping[str, float]:
        """Seconds by phase of the model's latest load."""
        with self._lock:
            return self._phases.get(model_id, {})

    def resident(self) -> list[HostedModel]:
        """What is in memory now, the oldest first."""
        with self._lock:
            return list(self._resident)

    def loads_begun(self, model_id: str) -> tuple[int, int]:
        """How many loads of the model have begun, and how many of them are running."""
        with self._lock:
            return self._begun[model_id], self._running[model_id]

    def leaving(self, model: HostedModel) -> None:
        with self._lock:
            self.unloads += 1
            self._resident.remove(model)

    def freed(self, model: HostedModel, reason: Reason) -> None:
        self._notify("after_model_unload", model, seconds=time.time() - model.since, reason=reason)

    def _notify(self, hook: str, model: HostedModel, **event: Any) -> None:
        """Call every observer, each by itself: a failure is logged and breaks nothing."""
        event |= {
            "strategy": self.strategy,
            "loader": self.loader.name,
            "model_id": model.model_id,
            "nbytes": model.nbytes,
        }
        for observer in getattr(self._hooks, hook).get_hookimpls():
            try:
                observer.function(*(event[name] for name in observer.argnames))
            except Exception:
                log.exception("Plugin %s: %s failed", observer.plugin_name, hook)


class HostedModel:
    """A loaded model as the strategy sees it: its one `close` is counted."""

    def __init__(self, host: Host, model_id: str, model: Model) -> None:
        self.model_id = model_id
        self.nbytes = model.nbytes
        self.phases: Mapping[str, float] = getattr(model, "phases", {})
        self.since = time.time()
        self.predict = model.predict  # no frame of ours in the hot path
        self._host = host
        self._model: Model | None = model
        self._closing = Lock()

    def close(self, reason: Reason) -> None:
        with self._closing:
            model, self._model = self._model, None
        if model is None:
            return
        self.predict = _closed
        self._host.leaving(self)
        try:
            model.close(reason)
        finally:
            del model
            give_back()
            self._host.freed(self, reason)


def _closed(texts: Sequence[str]) -> list[Prediction]:
    raise RuntimeError("this model is closed; a strategy must not lend it out any more")


class Watch:
    """Whether a load of a model ran or finished since this was made, that is: is this request cold?"""

    def __init__(self, host: Host, model_id: str) -> None:
        self._host = host
        self._model_id = model_id
        self._begun, self._running = host.loads_begun(model_id)

    def cold(self) -> bool:
        return self._running > 0 or self._host.loads_begun(self._model_id)[0] > self._begun


def without_paths(error: BaseException, checkpoint: Path) -> str:
    """The first line of an error, without what it tells of the machine's folders."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    # Literally first: a folder's name may hold a space, at which a pattern would stop.
    for folder in (checkpoint, checkpoint.resolve(), *checkpoint.parents, *checkpoint.resolve().parents):
        if folder != folder.parent:
            line = line.replace(str(folder), "…")
    return PATH.sub("…", line)
