"""Loads, probes, times, counts and closes the models of one strategy, and reports it to observers."""

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
from ..contracts import Loader, LoadReason, Model, UnloadReason
from ..errors import LoadFailed, ModelCrashed, ModelReferenceError, PluginError, ResidencyError
from ..loaders.probe import Probes
from .clock import CLOCK, Clock
from .events import Change, Loaded, TimeoutChanged, Unloaded
from .loaded import LoadedModel, LoadRecord
from .versions import Version, Versions

log = logging.getLogger("residency")
HISTORY = 400  # events that are kept for each model


class Host:
    """Loads models in the caller's thread. `slots` limits how many loads run at a time, in all hosts that share it."""

    def __init__(
        self,
        strategy: str,
        loader: Loader,
        versions: Versions,
        slots: Semaphore,
        report: Callable[[Change | TimeoutChanged], None] = lambda event: None,
        probes: Probes | None = None,
        loader_options: str = "",
        clock: Clock = CLOCK,
    ) -> None:
        """`report` is called with every load, unload and new timeout, and must not raise. `probes` is shared by all
        hosts, so `loader_options` tells the models of one loader with different options apart.
        """
        self.strategy = strategy
        self.clock = clock
        self.loader = loader
        self.versions = versions
        self.failures: dict[str, str] = {}
        """The error of each model whose most recent load failed, by model id."""
        self.loads = 0
        self.unloads = 0
        self.unload_seconds = 0.0  # in all
        self.crashes = 0
        self._probes = probes or Probes()
        self._loader_options = loader_options
        self._report = report
        self._slots = slots
        self._lock = Lock()  # protects the counters and the attributes below
        self._last_loads: dict[str, LoadRecord] = {}
        self._history: dict[str, deque[Change]] = {}
        self._timeouts: dict[str, float] = {}

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self.versions.references)

    def version(self, model_id: str) -> Version | None:
        """The current version of the model, or None."""
        return self.versions.get(model_id)

    def size(self, model_id: str) -> int:
        """Bytes of the model, by `Loader.size`. Raises LoadFailed."""
        try:
            return self.loader.size(self.versions.current(model_id).directory)
        except BaseException as error:
            raise self._record_failure(model_id, error) from error

    def prepare(self) -> None:
        """Call `Loader.prepare` for one checkpoint of each kind. An error is ignored: the load will report it."""
        prepare: Callable[[Path], None] = getattr(self.loader, "prepare", lambda _: None)
        kinds: dict[str, Path] = {}
        for model_id in self.model_ids:
            if version := self.versions.get(model_id):
                with suppress(ModelReferenceError):
                    config = read_config(version.directory)
                    kinds.setdefault(f"{config.get('model_type')} {config.get('architectures')}", version.directory)
        for directory in kinds.values():
            try:
                prepare(directory)
            except Exception as error:
                log.debug("Preparing for %s failed", directory, exc_info=error)

    def load(self, model_id: str) -> LoadedModel:
        """Load the current version of the model, after a check whether its files have changed. Raises LoadFailed."""
        try:
            version = self.versions.refresh(model_id)
        except ModelReferenceError as error:
            raise self._record_failure(model_id, error) from error
        return self._load_in_slot(model_id, version, is_current=True)

    def load_version(self, model_id: str, version: Version) -> LoadedModel:
        """Load a version of the model that is not current yet. Raises LoadFailed."""
        return self._load_in_slot(model_id, version, is_current=False)

    def try_version(self, model_id: str, version: Version) -> None:
        """Load and close the version. Raises LoadFailed if it cannot be loaded or cannot answer."""
        self.load_version(model_id, version).close()

    def probe(self, model_id: str) -> None:
        """Load and close the model, to see whether it answers. An error is kept in `failures`."""
        with suppress(LoadFailed):
            self.load(model_id).close()

    def is_probed(self, model_id: str) -> bool:
        """Whether the current version has been probed, in this process or an earlier one."""
        version = self.versions.get(model_id)
        return version is not None and self._probes.knows(self.loader, self._loader_options, version.identity)

    def _load_in_slot(self, model_id: str, version: Version, *, is_current: bool) -> LoadedModel:
        """Load, time and probe a model, in a load slot. Raises LoadFailed for any error of the loader."""
        try:
            with self._slots:
                began, cpu = self.clock.now(), self.clock.cpu()
                model = self.loader.load(version.directory)
                _check_close(model)
                try:
                    self._probes.check(model_id, model, self.loader, self._loader_options, version.identity)
                    version.read_digest()
                except BaseException:
                    model.close()
                    raise
                seconds, cpu = self.clock.now() - began, self.clock.cpu() - cpu
        except BaseException as error:
            raise self._record_failure(model_id, error, None if is_current else version) from error
        self.failures.pop(model_id, None)
        return LoadedModel(model_id, model, version, self._load_record(model, seconds, cpu))

    def _load_record(self, model: Model, seconds: float, cpu: float) -> LoadRecord:
        """The record of a load.

        The CPU clock counts all threads, also those that answer requests during the load, but no child process. So a
        load is charged with at most one core for its duration, and with exactly that if the model has its own process.
        """
        own_process = getattr(model, "own_process", False)
        return LoadRecord(
            seconds=seconds,
            cpu_seconds=seconds if own_process else min(cpu, seconds),
            loader=getattr(model, "loaded_by", self.loader.name),
            dtype=getattr(model, "dtype", ""),
            nbytes=model.nbytes,
            phases=getattr(model, "phases", {}),
        )

    def close(self, model: LoadedModel, reason: UnloadReason, loaded_at: float) -> None:
        """Close a model that was in memory since `loaded_at`. An error is logged."""
        nbytes, began = model.nbytes, self.clock.now()
        try:
            if not model.close():
                return
        except Exception:  # it must not fail the request that needs the memory
            log.exception("Closing a model failed")
        with self._lock:
            self.unloads += 1
            self.unload_seconds += self.clock.now() - began
        self.record_unload(model.model_id, nbytes, reason, loaded_at)

    def record_load(self, model: LoadedModel, reason: LoadReason, loaded_at: float) -> None:
        """Count a load that ended at `loaded_at`, and report it to observers."""
        record = model.record
        with self._lock:
            self.loads += 1
            self.crashes += reason == "crash"
            self._last_loads[model.model_id] = record
        self._record_change(
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

    def record_unload(self, model_id: str, nbytes: int, reason: UnloadReason, loaded_at: float) -> None:
        """Report to observers that a model was unloaded."""
        now = self.clock.now()
        self._record_change(Unloaded(self.strategy, self.loader.name, model_id, nbytes, now - loaded_at, reason, now))

    def record_timeout(self, model_id: str, seconds: float) -> None:
        """Report for how long an idle model stays, in seconds, if that has changed."""
        if self._timeouts.get(model_id) != seconds:
            self._timeouts[model_id] = seconds
            self._report(TimeoutChanged(self.strategy, model_id, seconds))

    def forget(self, model_id: str) -> None:
        """Drop the records of a model that is no longer served."""
        with self._lock:
            for records in (self.failures, self._last_loads, self._history, self._timeouts):
                records.pop(model_id, None)

    def recent_loads(self) -> dict[str, LoadRecord]:
        """The record of the most recent load of each model, by model id."""
        with self._lock:
            return dict(self._last_loads)

    def history(self, model_id: str, limit: int = HISTORY) -> list[Change]:
        """The most recent loads and unloads of the model, the newest first."""
        with self._lock:
            return list(self._history.get(model_id, ()))[:limit]

    def _record_failure(self, model_id: str, error: BaseException, tried: Version | None = None) -> LoadFailed:
        """Log an error, keep it in `failures`, and return it as a sentence without paths.

        It is not kept if it is transient, or if the version that was `tried` is not the current one.
        """
        is_known = isinstance(error, ResidencyError)
        log.error("%s: loading '%s' failed: %s", self.strategy, model_id, error, exc_info=None if is_known else error)
        version = self.versions.get(model_id)
        sentence = f"Loading model '{model_id}' failed: {self.versions.redact(model_id, error)}"
        transient = isinstance(error, ModelCrashed)
        if not transient and tried in (None, version):
            self.failures[model_id] = sentence
        return LoadFailed(sentence, transient=transient)

    def _record_change(self, change: Change) -> None:
        self._report(change)
        with self._lock:
            self._history.setdefault(change.model_id, deque(maxlen=HISTORY)).appendleft(change)


_checked: set[type[Any]] = set()


def _check_close(model: Model) -> None:
    """Raise PluginError if `close` cannot be called without an argument, as an older contract had it."""
    if type(model) in _checked:
        return
    try:
        inspect.signature(model.close).bind()
    except TypeError:
        raise PluginError(f"{type(model).__name__}.close must take no argument, as in: def close(self)") from None
    _checked.add(type(model))
