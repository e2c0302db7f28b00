"""The host of one strategy's models: what it hands out as `load`, timed and counted."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any, Literal, NamedTuple, TypeVar

import pluggy

from ..contracts import Loader, LoadReason, Model, Prediction, Reason
from ..errors import LoadFailed, ModelCrashed
from .clock import CLOCK, Clock
from .redact import without_paths
from .release import give_back

log = logging.getLogger("residency")
Result = TypeVar("Result")
HISTORY = 400  # events that are remembered of each model


class Loaded(NamedTuple):
    """A load: its seconds, in all and by phase, and when it ended (`perf_counter`)."""

    seconds: float
    phases: Mapping[str, float]
    ended: float


class Event(NamedTuple):
    """A load that took `seconds`, or an unload after so many in memory; `at` is a moment of the host's clock."""

    event: Literal["load", "unload"]
    reason: str
    at: float
    seconds: float


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
        clock: Clock = CLOCK,
    ) -> None:
        self.strategy = strategy
        self.clock = clock
        self.loader = loader
        self.loads = 0
        self.unloads = 0
        self.unload_seconds = 0.0  # in all
        self.crashes = 0
        self._checkpoints = checkpoints
        self._hooks = hooks
        self._slots = slots
        self._lock = Lock()  # protects what stands below, and the counts
        self._begun: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._latest: dict[str, Loaded] = {}
        self._resident: list[HostedModel] = []
        self._history: dict[str, deque[Event]] = {}

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self._checkpoints)

    def epoch(self, moment: float) -> float:
        return self.clock.epoch(moment)

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
        def load() -> HostedModel:
            return HostedModel(self, model_id, self.loader.load(self._checkpoints[model_id]))

        hosted, seconds = self._timed(model_id, load)
        self._arrived(hosted, seconds, "asked")
        return hosted

    def reload(self, model: HostedModel, load: Callable[[], None]) -> None:
        """For a model that has lost its weights: it left memory, and `load` brings it back."""
        if self.leaving(model):
            self.freed(model, "crash")
        _, seconds = self._timed(model.model_id, load)
        self._arrived(model, seconds, "crash")

    def _timed(self, model_id: str, load: Callable[[], Result]) -> tuple[Result, float]:
        """What `load` makes, and the seconds that it took. Raises LoadFailed for whatever it raises."""
        with self._lock:
            self._begun[model_id] += 1
            self._running[model_id] += 1
        try:
            with self._slots:
                started = time.perf_counter()
                return load(), time.perf_counter() - started
        except BaseException as error:  # whatever a loader raises, the caller gets a sentence
            raise self._failure(model_id, error) from error
        finally:
            with self._lock:
                self._running[model_id] -= 1

    def _arrived(self, model: HostedModel, seconds: float, reason: LoadReason) -> None:
        model.since = self.clock.now()
        with self._lock:
            self.loads += 1
            self.crashes += reason == "crash"
            self._latest[model.model_id] = Loaded(seconds, model.phases, time.perf_counter())
            self._resident.append(model)
        self._notify("after_model_load", model, seconds=seconds, phases=model.phases, reason=reason)
        self._remember(Event("load", reason, model.since, seconds), model.model_id)

    def _failure(self, model_id: str, error: BaseException) -> LoadFailed:
        log.error("%s: loading '%s' failed", self.strategy, model_id, exc_info=error)
        sentence = f"Loading model '{model_id}' failed: {without_paths(error, self._checkpoints[model_id])}"
        return LoadFailed(sentence, transient=isinstance(error, ModelCrashed))

    def watch(self, model_id: str) -> Watch:
        return Watch(self, model_id)

    def latest(self, model_id: str) -> Loaded:
        """The model's latest load."""
        with self._lock:
            return self._latest.get(model_id, Loaded(0.0, {}, 0.0))

    def resident(self) -> list[HostedModel]:
        """What is in memory now, the oldest first."""
        with self._lock:
            return list(self._resident)

    def loads_begun(self, model_id: str) -> tuple[int, int]:
        """How many loads of the model have begun, and how many of them are running."""
        with self._lock:
            return self._begun[model_id], self._running[model_id]

    def leaving(self, model: HostedModel) -> bool:
        """Whether it was in memory: one that crashed, and could not be loaded again, is not."""
        with self._lock:
            was_resident = model in self._resident
            if was_resident:
                self.unloads += 1
                self._resident.remove(model)
            return was_resident

    def closed_in(self, seconds: float) -> None:
        with self._lock:
            self.unload_seconds += seconds

    def freed(self, model: HostedModel, reason: Reason) -> None:
        now = self.clock.now()
        seconds = now - model.since
        self._notify("after_model_unload", model, seconds=seconds, reason=reason)
        self._remember(Event("unload", reason, now, seconds), model.model_id)

    def _remember(self, event: Event, model_id: str) -> None:
        with self._lock:
            self._history.setdefault(model_id, deque(maxlen=HISTORY)).appendleft(event)

    def history(self, model_id: str, most: int = HISTORY) -> list[Event]:
        """The latest loads and unloads, the newest first."""
        with self._lock:
            return list(self._history.get(model_id, ()))[:most]

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
        self.since = host.clock.now()  # when its load ended
        self.predict = model.predict  # no frame of ours in the hot path
        self.own_process: bool = getattr(model, "own_process", False)
        self._host = host
        self._model: Model | None = model
        self._closing = Lock()
        if hasattr(model, "reloading"):
            model.reloading = partial(host.reload, self)

    @property
    def phases(self) -> Mapping[str, float]:
        """Seconds by phase of its latest load."""
        return getattr(self._model, "phases", {})

    def close(self, reason: Reason) -> None:
        with self._closing:
            model, self._model = self._model, None
        if model is None:
            return
        self.predict = _closed
        was_resident, began = self._host.leaving(self), time.perf_counter()
        try:
            model.close(reason)
        finally:
            del model
            give_back()
            self._host.closed_in(time.perf_counter() - began)
            if self._host.leaving(self) or was_resident:  # it may have loaded itself anew until it was closed
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
