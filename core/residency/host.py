"""Loads, probes, times, counts and closes the models of one strategy, and reports it to observers."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any

from ..checkpoints.heads import read_config, read_tasks
from ..config.engines import EngineChoice
from ..contracts import Loader, LoadReason, Model, UnloadReason
from ..errors import LoadFailed, ModelCrashed, ModelReferenceError, PluginError, ResidencyError
from ..loaders.probe import Probes
from .clock import CLOCK, Clock
from .events import Change, Loaded, TimeoutChanged, Unloaded
from .loaded import LoadedModel, LoadRecord
from .versions import Version, Versions

if TYPE_CHECKING:
    from ..loaders.run.loader import EngineLoader

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
        # By model id, the identity of its files, and its tasks.
        self._tasks: dict[str, tuple[str, tuple[str, ...]]] = {}

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self.versions.references)

    def version(self, model_id: str) -> Version | None:
        """The current version of the model, or None."""
        return self.versions.get(model_id)

    def size(self, model_id: str, budget: int | None = None) -> int:
        """Bytes of the model, by `Loader.size`. Raises LoadFailed.

        An engine of which nothing is known takes the whole `budget`, so that it is loaded alone. No guess exceeds it.
        """
        try:
            version = self.versions.current(model_id)
            if (choice := version.engine) is None:
                return self.loader.size(version.directory)
            size = engine_loader().size(model_id, choice)
            if choice.memory is not None or budget is None:
                return size or 0
            return budget if size is None else min(size, budget)
        except BaseException as error:
            raise self._record_failure(model_id, error) from error

    def engine(self, model_id: str) -> EngineChoice | None:
        """How the model is started, if it is an engine; else None."""
        reference = self.versions.references.get(model_id)
        return reference if isinstance(reference, EngineChoice) else None

    def tasks(self, model_id: str) -> tuple[str, ...]:
        """The names of the model's tasks, first the main one; none of an engine. Raises LoadFailed.

        They are read once for each version of the files.
        """
        if (known := self.known_tasks(model_id)) is not None:
            return known
        try:
            version = self.versions.current(model_id)
            read: Callable[[Path], Collection[str]] = getattr(self.loader, "tasks", read_tasks)
            tasks = () if version.engine is not None else tuple(read(version.directory))
        except Exception as error:
            raise self._record_failure(model_id, error) from error
        self._tasks[model_id] = version.identity, tasks
        return tasks

    def known_tasks(self, model_id: str) -> tuple[str, ...] | None:
        """The names of the model's tasks; None if they must be read, for which others may have to be waited for."""
        version, known = self.versions.get(model_id), self._tasks.get(model_id)
        return known[1] if version and known and known[0] == version.identity else None

    def prepare(self) -> None:
        """Call `Loader.prepare` for one checkpoint of each kind. An error is ignored: the load will report it."""
        prepare: Callable[[Path], None] = getattr(self.loader, "prepare", lambda _: None)
        kinds: dict[str, Path] = {}
        for model_id in self.model_ids:
            if (version := self.versions.get(model_id)) and version.engine is None:
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
        if version is not None and version.engine is not None:
            return True  # it says itself when it is ready
        return version is not None and self._probes.knows(self.loader, self._loader_options, version.identity)

    def _load_in_slot(self, model_id: str, version: Version, *, is_current: bool) -> LoadedModel:
        """Load, time and probe a model, in a load slot. Raises LoadFailed for any error of the loader.

        An engine needs no slot: it may start for minutes, and the loads of others must not wait for that.
        """
        try:
            if version.engine is not None:
                return self._start_engine(model_id, version, version.engine)
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

    def _start_engine(self, model_id: str, version: Version, choice: EngineChoice) -> LoadedModel:
        began = self.clock.now()
        engine = engine_loader().load(model_id, choice)
        seconds = self.clock.now() - began
        self.failures.pop(model_id, None)
        record = LoadRecord(seconds, seconds, engine.loaded_by, "", engine.nbytes, engine.phases)
        return LoadedModel(model_id, engine, version, record)

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
                self._loader_name(model.model_id),
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
        loader = self._loader_name(model_id)
        self._record_change(Unloaded(self.strategy, loader, model_id, nbytes, now - loaded_at, reason, now))

    def _loader_name(self, model_id: str) -> str:
        return self.loader.name if self.engine(model_id) is None else "run"

    def record_timeout(self, model_id: str, seconds: float) -> None:
        """Report for how long an idle model stays, in seconds, if that has changed."""
        if self._timeouts.get(model_id) != seconds:
            self._timeouts[model_id] = seconds
            self._report(TimeoutChanged(self.strategy, model_id, seconds))

    def forget(self, model_id: str) -> None:
        """Drop the records of a model that is no longer served."""
        with self._lock:
            for records in (self.failures, self._last_loads, self._history, self._timeouts, self._tasks):
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


def engine_loader() -> EngineLoader:
    """The loader of engines, which a server without engines does not import."""
    from ..loaders.run import loader

    return loader.engine_loader()


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
