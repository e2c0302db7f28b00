"""The host of one strategy's models: what it hands out as `load`, timed and counted."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any, Literal, NamedTuple, TypeVar

import pluggy

from ..contracts import Loader, LoadReason, Model, Reason
from ..errors import LoadFailed, ModelCrashed, ModelReferenceError, ResidencyError
from ..heap import give_back
from ..models.heads import read_config
from ..models.probe import Probes
from .clock import CLOCK, Clock
from .hosted import Freed, HostedModel, Used
from .redact import without_paths
from .versions import Version, Versions

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
        versions: Versions,
        hooks: pluggy.HookRelay,
        slots: Semaphore,
        probes: Probes | None = None,
        loader_options: str = "",
        clock: Clock = CLOCK,
    ) -> None:
        """`probes` are those of all hosts; `loader_options` tell apart what a loader does with other options."""
        self.strategy = strategy
        self.clock = clock
        self.loader = loader
        self.shares = True
        self.failures: dict[str, str] = {}
        """Why the latest load of a model failed, by its id; nothing of those whose latest load did not."""
        self.loads = 0
        self.unloads = 0
        self.unload_seconds = 0.0  # in all
        self.crashes = 0
        self._versions = versions
        self._probes = probes or Probes()
        self._loader_options = loader_options
        self._used: dict[str, Used] = {}
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
        return tuple(self._versions.references)

    def version(self, model_id: str) -> Version | None:
        """The model's current version, if it has one."""
        return self._versions.known(model_id)

    def epoch(self, moment: float) -> float:
        return self.clock.epoch(moment)

    def size(self, model_id: str) -> int:
        try:
            return self.loader.size(self._versions.current(model_id).directory)
        except BaseException as error:
            raise self._failure(model_id, error) from error

    def prepare(self) -> None:
        """Let the loader do once what all its loads have in common, for one checkpoint of each kind.

        What fails is told when the model is loaded.
        """
        prepare: Callable[[Path], None] = getattr(self.loader, "prepare", lambda _: None)
        kinds: dict[str, Path] = {}
        for model_id in self.model_ids:
            if version := self._versions.known(model_id):
                with suppress(ModelReferenceError):
                    config = read_config(version.directory)
                    kinds.setdefault(f"{config.get('model_type')} {config.get('architectures')}", version.directory)
        for directory in kinds.values():
            try:
                prepare(directory)
            except Exception as error:
                log.debug("Preparing for %s failed", directory, exc_info=error)

    def __call__(self, model_id: str) -> Model:
        while True:
            version = self._version(model_id)
            model, seconds = self._counted(model_id, partial(self._probed, model_id, version))
            hosted = HostedModel(self, model_id, model, version)
            if self._join(hosted, seconds):
                return hosted
            hosted.discard()  # another version has become the model's while this one was loaded

    def check(self, model_id: str) -> None:
        """Load the model to probe it, for no request; a failure is kept in `failures`."""
        with suppress(LoadFailed):
            self.try_version(model_id, self._version(model_id))

    def try_version(self, model_id: str, version: Version) -> None:
        """Load the version, and let it go again. Raises LoadFailed when it cannot answer."""
        model, _ = self.load_version(model_id, version)
        model.close("request")
        del model
        give_back()

    def is_known(self, model_id: str) -> bool:
        """Whether the model was found to answer, here or in an earlier process."""
        version = self._versions.known(model_id)
        return version is not None and self._probes.knows(self.loader, self._loader_options, version.identity)

    def load_version(self, model_id: str, version: Version) -> tuple[Model, float]:
        """A model of the host's own loader, probed, and the seconds that it took; nobody is told of it yet.

        Raises LoadFailed.
        """
        return self._in_slot(model_id, partial(self._probed, model_id, version), version)

    def _version(self, model_id: str) -> Version:
        try:
            return self._versions.refresh(model_id)
        except ModelReferenceError as error:
            raise self._failure(model_id, error) from error

    def _probed(self, model_id: str, version: Version) -> Model:
        """A model that was loaded, and found to answer."""
        model = self.loader.load(version.directory)
        try:
            self._probes.check(model_id, model, self.loader, self._loader_options, version.identity)
            version.read_digest()
        except BaseException:
            model.close("request")
            raise
        return model

    def reload(self, model: HostedModel, load: Callable[[], None]) -> None:
        """For a model that has lost its weights: it left memory, and `load` brings it back."""
        if self.leaving(model):
            self.freed(model, "crash")
        _, seconds = self._counted(model.model_id, load)
        with self._lock:
            self._resident.append(model)
        self._arrived(model, seconds, "crash")

    def _counted(self, model_id: str, load: Callable[[], Result]) -> tuple[Result, float]:
        """As `_in_slot`, for a load that requests wait for."""
        with self._lock:
            self._begun[model_id] += 1
            self._running[model_id] += 1
        try:
            return self._in_slot(model_id, load)
        finally:
            with self._lock:
                self._running[model_id] -= 1

    def _in_slot(
        self, model_id: str, load: Callable[[], Result], version: Version | None = None
    ) -> tuple[Result, float]:
        """What `load` makes, and the seconds that it took. Raises LoadFailed for whatever it raises.

        `version` is what is loaded, where that may not be the current one.
        """
        try:
            with self._slots:
                started = time.perf_counter()
                result = load()
                self.failures.pop(model_id, None)
                return result, time.perf_counter() - started
        except BaseException as error:  # whatever a loader raises, the caller gets a sentence
            raise self._failure(model_id, error, version) from error

    def _join(self, model: HostedModel, seconds: float) -> bool:
        """Let a loaded model join those in memory, unless another version has become the current one."""
        with self._versions.moment:
            if model.version != self._versions.known(model.model_id):
                return False
            with self._lock:
                self._resident.append(model)
        self._arrived(model, seconds, "asked")
        return True

    def replaced(self, older: Freed, model: HostedModel, seconds: float) -> None:
        """Another version has taken the place of an older one, which is freed."""
        with self._lock:
            self.unloads += 1
        self.freed(older, "removed")
        self._arrived(model, seconds, "asked")

    def _arrived(self, model: HostedModel, seconds: float, reason: LoadReason) -> None:
        """Count a load whose model is in memory now, and tell observers."""
        model.since = self.clock.now()
        with self._lock:
            self.loads += 1
            self.crashes += reason == "crash"
            self._latest[model.model_id] = Loaded(seconds, model.phases, time.perf_counter())
            self._used[model.model_id] = model.used(self.loader.name)
        self._notify("after_model_load", model, seconds=seconds, phases=model.phases, reason=reason)
        self._remember(Event("load", reason, model.since, seconds), model.model_id)

    def _failure(self, model_id: str, error: BaseException, tried: Version | None = None) -> LoadFailed:
        """The sentence for callers. A failure is remembered, unless it was of a version that is only `tried`."""
        known = isinstance(error, ResidencyError)
        log.error("%s: loading '%s' failed: %s", self.strategy, model_id, error, exc_info=None if known else error)
        version = self._versions.known(model_id)
        reason = without_paths(error, version.directory if version else Path(self._versions.references[model_id]))
        sentence = f"Loading model '{model_id}' failed: {reason}"
        transient = isinstance(error, ModelCrashed)
        if not transient and tried in (None, version):
            self.failures[model_id] = sentence
        return LoadFailed(sentence, transient=transient)

    def watch(self, model_id: str) -> Watch:
        return Watch(self, model_id)

    def latest(self, model_id: str) -> Loaded:
        """The model's latest load."""
        with self._lock:
            return self._latest.get(model_id, Loaded(0.0, {}, 0.0))

    def used(self) -> dict[str, Used]:
        """What the latest load of each model used, by its id."""
        with self._lock:
            return dict(self._used)

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

    def freed(self, model: HostedModel | Freed, reason: Reason) -> None:
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

    def _notify(self, hook: str, model: HostedModel | Freed, **event: Any) -> None:
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


class Watch:
    """Whether a load of a model ran or finished since this was made, that is: is this request cold?"""

    def __init__(self, host: Host, model_id: str) -> None:
        self._host = host
        self._model_id = model_id
        self._begun, self._running = host.loads_begun(model_id)

    def cold(self) -> bool:
        return self._running > 0 or self._host.loads_begun(self._model_id)[0] > self._begun
