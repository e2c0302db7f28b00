"""Runs models under strategies. It knows no HTTP and no environment variables."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Event as Flag
from threading import Semaphore, Thread
from typing import Any, NamedTuple, TypeVar

from ..config.choices import Batching
from ..config.engines import EngineChoice
from ..contracts import Resident
from ..errors import (
    CannotUpdate,
    EngineFailed,
    LoadFailed,
    ModelReferenceError,
    NotReady,
    ResidencyError,
    StartupFailed,
    UnknownModel,
    UnknownStrategy,
)
from ..residency.clock import CLOCK, Clock
from ..residency.host import engine_loader
from ..residency.versions import Versions
from ..system.heap import pause_garbage_collection
from ..system.threads import spread_forwards
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .events import Answer, Event
from .state_file import StateFile
from .strategy import Common, DeclaredStrategy, RunningStrategy
from .threads import DaemonThreads

log = logging.getLogger("residency")

COMPUTE_SLOTS = 1  # the threads of one forward use all cores
LOAD_SLOTS = 4  # loads wait for the disk, so a few overlap; a thousand must not
DRAIN_TIMEOUT = 60.0  # seconds that a removed model has to answer its requests
STARTING = "The models that are loaded at start-up are not in memory yet; try again soon."
Result = TypeVar("Result")


class Unavailable(NamedTuple):
    """A model that cannot answer, under one strategy or, if that is None, under any."""

    model: str
    strategy: str | None
    reason: str


class Engine:
    """Answers requests for models, each under every strategy.

    `run` and `update` belong to one event loop. Everything else may be called from any thread.
    """

    def __init__(
        self,
        models: Mapping[str, str | EngineChoice],
        strategies: Sequence[DeclaredStrategy],
        batching: Batching | None = None,
        max_queue: int = sys.maxsize,
        state: StateFile | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        """`models` are references by model id. Without `batching`, each request is computed alone. `max_queue` is the
        number of queue slots of each model under each strategy. `state` keeps what strategies learn.
        """
        self.models = dict(models)
        self.declared = {declared.name: declared for declared in strategies}
        self.running: dict[str, RunningStrategy] = {}
        self.is_ready = False
        self.is_checked = False  # whether all models that fit have been probed
        self.versions = Versions(models)
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._compute = DaemonThreads("compute", COMPUTE_SLOTS, initialize=spread_forwards)
        self._manual = DaemonThreads("by-hand", LOAD_SLOTS)
        slots = Semaphore(LOAD_SLOTS)
        self._common = Common(self.versions, self._compute, slots, batching, max_queue, self._report, clock)
        self._state = state
        self._closed = Flag()
        self._updating = asyncio.Lock()

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self.models)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call the listener with every event from now on, from any thread. It must not block."""
        self._listeners = (*self._listeners, listener)

    def start(self) -> None:
        """Find the checkpoints and start the strategies; blocks.

        Raises StartupFailed if a strategy cannot start or no model can be served. If some can, the others are logged.
        """
        self.versions.find_all()
        if len(self.versions.failures) == len(self.model_ids):
            model_id, reason = next(iter(self.versions.failures.items()))
            raise StartupFailed(f"Model '{model_id}': {reason}")
        self._prepare_engines()
        states = self._state.read() if self._state else {}
        with pause_garbage_collection():
            for name, declared in self.declared.items():
                self.running[name] = running = RunningStrategy(declared, self._common)
                running.start(states.get(name))
        if self._state:
            Thread(target=self._save_state_periodically, args=[self._state], name="state", daemon=True).start()
        self.is_ready = True

    def _prepare_engines(self) -> None:
        if choices := _engines_in(self.models):
            engine_loader().prepare(choices)

    async def run(
        self, strategy: str, model_id: str, items: Sequence[Any], seconds: float, task: Task = CLASSIFY
    ) -> Answer:
        """The answer to a request that must begin within `seconds`.

        Raises NotReady, UnknownStrategy, UnknownModel, Overloaded, DeadlineExceeded, LoadFailed, or what the model
        raises.
        """
        running = self.find_running(strategy)
        if model_id not in self.models:
            raise UnknownModel(f"There is no model '{model_id[:100]}' here.")
        return await running.dispatcher.predict(model_id, items, seconds, task)

    def find_running(self, strategy: str) -> RunningStrategy:
        """The running strategy of that name. Raises UnknownStrategy or NotReady."""
        if strategy not in self.declared:
            raise UnknownStrategy(f"There is no strategy '{strategy[:100]}' here.")
        if not self.is_ready:
            raise NotReady(STARTING)
        return self.running[strategy]

    def resident(self) -> dict[str, list[Resident]]:
        """The models in memory, by strategy."""
        return {name: running.resident() for name, running in self.running.items()}

    async def load(self, strategy: str, model_id: str) -> None:
        """Load the model for an operator.

        Its reference is resolved again, and a new version replaces the older one under every strategy. Raises NotReady,
        CannotLoadManually or LoadFailed.
        """
        running = self.find_running(strategy)

        def load() -> None:
            try:
                self.versions.resolve_again(model_id)
            except ModelReferenceError as error:
                raise LoadFailed(
                    f"Loading model '{model_id}' failed: {self.versions.redact(model_id, error)}"
                ) from error
            running.load(model_id)

        await self._run_in_thread(load)

    async def unload(self, strategy: str, model_id: str) -> None:
        """Free the model for an operator. Raises NotReady, CannotLoadManually or InUse."""
        running = self.find_running(strategy)
        await self._run_in_thread(lambda: running.unload(model_id))

    async def update(
        self,
        models: Mapping[str, str | EngineChoice],
        strategies: Sequence[DeclaredStrategy],
        drain_timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        """Serve these models, under these options of the same strategies, while requests run.

        Models stay in memory as far as the new options keep them. A removed model has `drain_timeout` seconds to answer
        its requests. Raises CannotUpdate; nothing has changed then.
        """
        async with self._updating:
            if not self.is_ready:
                raise NotReady(STARTING)
            declared = {strategy.name: strategy for strategy in strategies}
            self._check_update(declared)
            preloads = await self._run_in_thread(lambda: self._prepare_update(models, declared))
            for running in self.running.values():
                for model_id in models.keys() - running.dispatcher.queues.keys():
                    running.dispatcher.add(model_id)
            removed = [model_id for model_id in self.models if model_id not in models]
            self.models, self.declared = dict(models), declared
            draining = [
                running.dispatcher.remove(model_id) for running in self.running.values() for model_id in removed
            ]
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(queue.wait_until_empty() for queue in draining)), drain_timeout)
            await self._run_in_thread(lambda: self._finish_update(removed, preloads))

    def _check_update(self, declared: Mapping[str, DeclaredStrategy]) -> None:
        if [*declared] != [*self.declared]:
            raise CannotUpdate(f"strategies: restart the server to use others than {', '.join(self.declared)}.")
        for name, after in declared.items():
            before = self.declared[name]
            if (after.loader.name, after.loader_options) != (before.loader.name, before.loader_options):
                raise CannotUpdate(f"strategies: restart the server to change the loader of '{name}' or its options.")

    def _prepare_update(
        self, models: Mapping[str, str | EngineChoice], declared: Mapping[str, DeclaredStrategy]
    ) -> dict[str, list[str]]:
        """Switch to the versions that the references lead to, and start the strategies. Returns what each preloads."""
        before = dict(self.versions.references)
        try:
            changed = {model_id: choice for model_id, choice in models.items() if before.get(model_id) != choice}
            _check_engines(changed)
            for model_id, reference in changed.items():
                self.versions.set_reference(model_id, reference)
            return {name: self.running[name].start_update(strategy, models) for name, strategy in declared.items()}
        except Exception as error:  # a strategy may raise any error
            for model_id in models:
                if model_id not in before:
                    self.versions.forget(model_id)
                elif before[model_id] != models[model_id]:
                    with suppress(ResidencyError):
                        self.versions.set_reference(model_id, before[model_id])
            raise CannotUpdate(f"{error}") from error

    def _finish_update(self, removed: Sequence[str], preloads: Mapping[str, list[str]]) -> None:
        for model_id in removed:
            for running in self.running.values():
                running.keeper.remove(model_id)
                running.host.forget(model_id)
            self.versions.forget(model_id)
        for name, running in self.running.items():
            running.apply_update(self.declared[name], preloads[name])

    def probe_models(self) -> None:
        """Probe models and compute digests, where that was never done, while requests are answered."""
        for running in self.running.values():
            for _ in running.probe_unknown():
                if not self.is_ready:
                    return
        self.is_checked = True
        for model_id in self.model_ids:
            if self.is_ready and (version := self.versions.get(model_id)):
                with suppress(OSError, ResidencyError):
                    version.read_digest()

    def unavailable(self, strategy: str | None = None) -> Iterator[Unavailable]:
        """The models that cannot answer: under one strategy or, without one, under each."""
        for model_id, reason in dict(self.versions.failures).items():
            yield Unavailable(model_id, None, self.versions.redact(model_id, reason))
        for name, running in self.running.items():
            if strategy in (None, name):
                for model_id, reason in dict(running.host.failures).items():
                    if model_id not in self.versions.failures:
                        yield Unavailable(model_id, name, reason)

    def close(self) -> None:
        """Close every strategy. An error of one is logged."""
        was_ready, self.is_ready = self.is_ready, False
        self._closed.set()
        if was_ready and self._state:
            self._save_state(self._state)
        for running in self.running.values():
            running.close()
        self._compute.shutdown(wait=False, cancel_futures=True)

    def _save_state_periodically(self, file: StateFile) -> None:
        while not self._closed.wait(file.every):
            self._save_state(file)

    def _save_state(self, file: StateFile) -> None:
        states = {name: running.keeper.state() for name, running in self.running.items()}
        file.write({name: state for name, state in states.items() if state is not None})

    def _report(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("A listener failed")

    async def _run_in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._manual.submit(work))


def _engines_in(models: Mapping[str, str | EngineChoice]) -> dict[str, EngineChoice]:
    return {model_id: choice for model_id, choice in models.items() if isinstance(choice, EngineChoice)}


def _check_engines(models: Mapping[str, str | EngineChoice]) -> None:
    """Raise CannotUpdate if the command of an engine cannot be run. The log says more."""
    for model_id, choice in _engines_in(models).items():
        try:
            engine_loader().size(model_id, choice)
        except EngineFailed as error:
            log.error("models.%s: %s", model_id, error)
            raise CannotUpdate(f"models.{model_id}: {error.for_callers}") from error
