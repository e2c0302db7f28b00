"""The host of one strategy's models: it loads, probes, times, counts and closes them, and tells observers."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any

from ..checkpoints.heads import read_config
from ..contracts import (
    Loader,
    LoadReason,
    Model,
    UnloadReason,
)
from ..errors import (
    LoadFailed,
    ModelCrashed,
    ModelReferenceError,
    PluginError,
    ResidencyError,
)
from ..loaders.probe import Probes
from .clock import CLOCK, Clock
from .events import Change, Loaded, Unloaded
from .loaded import LoadedModel, LoadRecord
from .versions import Version, Versions

log = logging.getLogger("residency")
HISTORY = 400  # events that are remembered of each model


class Host:
    """Loads run in the caller's thread, at most as many at a time as `slots` has, over all hosts that share it."""

    def __init__(
        self,
        strategy: str,
        loader: Loader,
        versions: Versions,
        slots: Semaphore,
        tell: Callable[[Change], None] = lambda change: None,
        probes: Probes | None = None,
        loader_options: str = "",
        clock: Clock = CLOCK,
    ) -> None:
        """`tell` is called with every load and unload, and raises nothing; `probes` are those of all hosts;
        `loader_options` tell apart what a loader does with other options.
        """
        self.strategy = strategy
        self.clock = clock
        self.loader = loader
        self.versions = versions
        self.failures: dict[str, str] = {}
        """Why the latest load of a model failed, by its id; nothing of those whose latest load did not."""
        self.loads = 0
        self.unloads = 0
        self.unload_seconds = 0.0  # in all
        self.crashes = 0
        self._probes = probes or Probes()
        self._loader_options = loader_options
        self._tell = tell
        self._slots = slots
        self._lock = Lock()  # protects the counts and what stands below
        self._latest: dict[str, LoadRecord] = {}
        self._history: dict[str, deque[Change]] = {}

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self.versions.references)

    def version(self, model_id: str) -> Version | None:
        """The model's current version, if it has one."""
        return self.versions.known(model_id)

    def size(self, model_id: str) -> int:
        """`Loader.size` of the model. Raises LoadFailed."""
        try:
            return self.loader.size(self.versions.current(model_id).directory)
        except BaseException as error:
            raise self._failure(model_id, error) from error

    def prepare(self) -> None:
        """Let the loader do once what all its loads have in common, for one checkpoint of each kind.

        What fails is told when the model is loaded.
        """
        prepare: Callable[[Path], None] = getattr(self.loader, "prepare", lambda _: None)
        kinds: dict[str, Path] = {}
        for model_id in self.model_ids:
            if version := self.versions.known(model_id):
                with suppress(ModelReferenceError):
                    config = read_config(version.directory)
                    kinds.setdefault(f"{config.get('model_type')} {config.get('architectures')}", version.directory)
        for directory in kinds.values():
            try:
                prepare(directory)
            except Exception as error:
                log.debug("Preparing for %s failed", directory, exc_info=error)

    def load(self, model_id: str) -> LoadedModel:
        """A model of the current version, which is looked for anew. Raises LoadFailed."""
        try:
            version = self.versions.refresh(model_id)
        except ModelReferenceError as error:
            raise self._failure(model_id, error) from error
        return self._in_slot(model_id, version, is_current=True)

    def load_version(self, model_id: str, version: Version) -> LoadedModel:
        """A model of that version, which may become the current one. Raises LoadFailed."""
        return self._in_slot(model_id, version, is_current=False)

    def try_version(self, model_id: str, version: Version) -> None:
        """Load the version, and let it go again. Raises LoadFailed when it cannot answer."""
        self.load_version(model_id, version).close()

    def check(self, model_id: str) -> None:
        """Load the model to probe it, for no request; a failure is kept in `failures`."""
        with suppress(LoadFailed):
            self.load(model_id).close()

    def is_known(self, model_id: str) -> bool:
        """Whether the model was found to answer, here or in an earlier process."""
        version = self.versions.known(model_id)
        return version is not None and self._probes.knows(self.loader, self._loader_options, version.identity)

    def _in_slot(self, model_id: str, version: Version, *, is_current: bool) -> LoadedModel:
        """A model that was loaded, timed, and found to answer. Raises LoadFailed for whatever the loader raises."""
        try:
            with self._slots:
                began, processor = self.clock.now(), self.clock.cpu()
                model = self.loader.load(version.directory)
                _check(model)
                try:
                    self._probes.check(model_id, model, self.loader, self._loader_options, version.identity)
                    version.read_digest()
                except BaseException:
                    model.close()
                    raise
                seconds, processor = self.clock.now() - began, self.clock.cpu() - processor
        except BaseException as error:
            raise self._failure(model_id, error, None if is_current else version) from error
        self.failures.pop(model_id, None)
        return LoadedModel(model_id, model, version, self._record(model, seconds, processor))

    def _record(self, model: Model, seconds: float, processor: float) -> LoadRecord:
        """The clock counts all threads, also those that answer others meanwhile: of one load, at most one core for as
        long as it took. What a process of its own computes the clock does not see: there it is that core.
        """
        own_process = getattr(model, "own_process", False)
        return LoadRecord(
            seconds=seconds,
            cpu_seconds=seconds if own_process else min(processor, seconds),
            loader=getattr(model, "loaded_by", self.loader.name),
            dtype=getattr(model, "dtype", ""),
            nbytes=model.nbytes,
            phases=getattr(model, "phases", {}),
        )

    def close(self, model: LoadedModel, reason: UnloadReason, loaded_at: float) -> None:
        """Close a model that was in memory since then. A failure is logged."""
        nbytes, began = model.nbytes, self.clock.now()
        try:
            if not model.close():
                return
        except Exception:  # it must not fail the request that needs the room
            log.exception("Closing a model failed")
        with self._lock:
            self.unloads += 1
            self.unload_seconds += self.clock.now() - began
        self.left(model.model_id, nbytes, reason, loaded_at)

    def arrived(self, model: LoadedModel, reason: LoadReason, loaded_at: float) -> None:
        """Count a load whose model is in memory since then, and tell observers."""
        record = model.record
        with self._lock:
            self.loads += 1
            self.crashes += reason == "crash"
            self._latest[model.model_id] = record
        self._happened(
            Loaded(
                self.strategy,
                self.loader.name,
                model.model_id,
                record.nbytes,
                record.seconds,
                record.phases,
                reason,
                loaded_at,
            )
        )

    def left(self, model_id: str, nbytes: int, reason: UnloadReason, loaded_at: float) -> None:
        """Tell observers that a model has left memory."""
        now = self.clock.now()
        self._happened(Unloaded(self.strategy, self.loader.name, model_id, nbytes, now - loaded_at, reason, now))

    def forget(self, model_id: str) -> None:
        """The model is served no more."""
        with self._lock:
            for known in (self.failures, self._latest, self._history):
                known.pop(model_id, None)

    def used(self) -> dict[str, LoadRecord]:
        """The latest load of each model, by its id."""
        with self._lock:
            return dict(self._latest)

    def history(self, model_id: str, most: int = HISTORY) -> list[Change]:
        """The latest loads and unloads, the newest first."""
        with self._lock:
            return list(self._history.get(model_id, ()))[:most]

    def _failure(self, model_id: str, error: BaseException, tried: Version | None = None) -> LoadFailed:
        """The sentence for callers. A failure is remembered, unless it was of a version that is only `tried`."""
        known = isinstance(error, ResidencyError)
        log.error("%s: loading '%s' failed: %s", self.strategy, model_id, error, exc_info=None if known else error)
        version = self.versions.known(model_id)
        sentence = f"Loading model '{model_id}' failed: {self.versions.sentence(model_id, error)}"
        transient = isinstance(error, ModelCrashed)
        if not transient and tried in (None, version):
            self.failures[model_id] = sentence
        return LoadFailed(sentence, transient=transient)

    def _happened(self, change: Change) -> None:
        self._tell(change)
        with self._lock:
            self._history.setdefault(change.model_id, deque(maxlen=HISTORY)).appendleft(change)


_checked: set[type[Any]] = set()


def _check(model: Model) -> None:
    """Raise PluginError for a model of a form that is no longer called."""
    if type(model) in _checked:
        return
    try:
        inspect.signature(model.close).bind()
    except TypeError:
        raise PluginError(
            f"{type(model).__name__}.close takes an argument; it is called without one: def close(self)"
        ) from None
    _checked.add(type(model))
