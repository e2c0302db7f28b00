"""Models under strategies: started, asked, changed and closed. No URL, header or environment is known here."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Event as Flag
from threading import Semaphore, Thread
from typing import NamedTuple, TypeVar

from ..config.choices import Batching
from ..contracts import Resident
from ..errors import (
    CannotUpdate,
    LoadFailed,
    ModelReferenceError,
    NotReady,
    ResidencyError,
    StartupFailed,
    UnknownModel,
    UnknownStrategy,
)
from ..residency.clock import CLOCK, Clock
from ..residency.versions import Versions
from ..system.heap import start_up
from ..system.threads import spread_forwards
from .answer import Answer
from .events import Event
from .state_file import StateFile
from .strategy import Common, DeclaredStrategy, RunningStrategy
from .threads import DaemonThreads

log = logging.getLogger("residency")

COMPUTE_SLOTS = 1  # a forward's own threads use all cores
LOAD_SLOTS = 4  # a load may wait for a disk, but a thousand at once must not
PATIENCE = 60.0  # seconds
STARTING = "The models that are loaded at start-up are not in memory yet; try again soon."
Result = TypeVar("Result")


class Unavailable(NamedTuple):
    """A model that is not answered, under one strategy or, where that is None, under any."""

    model: str
    strategy: str | None
    reason: str


class Engine:
    """Answers for models, each under every strategy. Whoever starts it ends the process, or goes on without it.

    `run` and `update` belong to one event loop; all else may be called from any thread.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        strategies: Sequence[DeclaredStrategy],
        batching: Batching | None = None,
        max_queue: int = sys.maxsize,
        state: StateFile | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        """`models` are references by id. Without `batching`, every request is computed by itself; `max_queue` bounds
        the requests of one model under one strategy; `state` keeps what strategies learn.
        """
        self.models = dict(models)
        self.declared = {declared.name: declared for declared in strategies}
        self.running: dict[str, RunningStrategy] = {}
        self.is_ready = False
        self.is_checked = False  # whether each model was probed that could be
        self.versions = Versions(models)
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._compute = DaemonThreads("compute", COMPUTE_SLOTS, begin=spread_forwards)
        self._by_hand = DaemonThreads("by-hand", LOAD_SLOTS)
        slots = Semaphore(LOAD_SLOTS)
        self._common = Common(self.versions, self._compute, slots, batching, max_queue, self._tell, clock)
        self._state = state
        self._closed = Flag()
        self._updating = asyncio.Lock()

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self.models)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call the listener with all that happens from now on, from any thread; it must not block."""
        self._listeners = (*self._listeners, listener)

    def start(self) -> None:
        """Find the checkpoints and start the strategies; blocks. Raises StartupFailed.

        A model that cannot be served keeps none of the others from it.
        """
        self.versions.find_all()
        if len(self.versions.failures) == len(self.model_ids):
            model_id, reason = next(iter(self.versions.failures.items()))
            raise StartupFailed(f"Model '{model_id}': {reason}")
        states = self._state.read() if self._state else {}
        with start_up():
            for name, declared in self.declared.items():
                self.running[name] = running = RunningStrategy(declared, self._common)
                running.start(states.get(name))
        if self._state:
            Thread(target=self._keep_state, args=[self._state], name="state", daemon=True).start()
        self.is_ready = True

    async def run(self, strategy: str, model_id: str, texts: Sequence[str], seconds: float) -> Answer:
        """The answer, begun within so many seconds.

        Raises NotReady, UnknownStrategy, UnknownModel, Overloaded, DeadlinePassed, LoadFailed, or what the model
        raises.
        """
        running = self.running_one(strategy)
        if model_id not in self.models:
            raise UnknownModel(f"There is no model '{model_id[:100]}' here.")
        return await running.dispatcher.predict(model_id, texts, seconds)

    def running_one(self, strategy: str) -> RunningStrategy:
        """The strategy of that name. Raises UnknownStrategy or NotReady."""
        if strategy not in self.declared:
            raise UnknownStrategy(f"There is no strategy '{strategy[:100]}' here.")
        if not self.is_ready:
            raise NotReady(STARTING)
        return self.running[strategy]

    def resident(self) -> dict[str, list[Resident]]:
        """What is in memory, by strategy."""
        return {name: running.resident() for name, running in self.running.items()}

    async def load(self, strategy: str, model_id: str) -> None:
        """Load the model by hand; its reference is resolved anew, and what it leads to now is brought in under every
        strategy. One that hangs holds up nothing else. Raises NotReady, CannotSteer or LoadFailed.
        """
        running = self.running_one(strategy)

        def load() -> None:
            try:
                self.versions.find_anew(model_id)
            except ModelReferenceError as error:
                raise LoadFailed(
                    f"Loading model '{model_id}' failed: {self.versions.sentence(model_id, error)}"
                ) from error
            running.load(model_id)

        await self._in_thread(load)

    async def unload(self, strategy: str, model_id: str) -> None:
        """Free the model by hand. Raises NotReady, CannotSteer or InUse."""
        running = self.running_one(strategy)
        await self._in_thread(lambda: running.unload(model_id))

    async def update(
        self, models: Mapping[str, str], strategies: Sequence[DeclaredStrategy], patience: float = PATIENCE
    ) -> None:
        """Serve these models, under these options of the same strategies, while requests run.

        What is in memory stays, as far as the new options keep it. A model that is no longer among them has `patience`
        seconds to answer the requests that it has; it may hang. Raises CannotUpdate; everything is then as before.
        """
        async with self._updating:
            if not self.is_ready:
                raise NotReady(STARTING)
            declared = {each.name: each for each in strategies}
            self._check_same(declared)
            preloads = await self._in_thread(lambda: self._prepare(models, declared))
            for running in self.running.values():
                for model_id in models.keys() - running.dispatcher.queues.keys():
                    running.dispatcher.add(model_id)
            gone = [model_id for model_id in self.models if model_id not in models]
            self.models, self.declared = dict(models), declared
            left = [running.dispatcher.remove(model_id) for running in self.running.values() for model_id in gone]
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(queue.emptied() for queue in left)), patience)
            await self._in_thread(lambda: self._change(gone, preloads))

    def _check_same(self, declared: Mapping[str, DeclaredStrategy]) -> None:
        if [*declared] != [*self.declared]:
            raise CannotUpdate(f"strategies: restart the server for other ones than {', '.join(self.declared)}.")
        for name, each in declared.items():
            before = self.declared[name]
            if (each.loader.name, each.loader_options) != (before.loader.name, before.loader_options):
                raise CannotUpdate(f"strategies: restart the server for another loader of '{name}', or its options.")

    def _prepare(self, models: Mapping[str, str], declared: Mapping[str, DeclaredStrategy]) -> dict[str, list[str]]:
        """Bring in what the references lead to now, and start the new objects; what to load, by strategy."""
        before = dict(self.versions.references)
        try:
            for model_id, reference in models.items():
                if before.get(model_id) != reference:
                    self.versions.refer(model_id, reference)
            return {name: self.running[name].begin(each, models) for name, each in declared.items()}
        except Exception as error:  # a strategy can refuse in any way
            for model_id in models:
                if model_id not in before:
                    self.versions.forget(model_id)
                elif before[model_id] != models[model_id]:
                    with suppress(ResidencyError):
                        self.versions.refer(model_id, before[model_id])
            raise CannotUpdate(f"{error}") from error

    def _change(self, gone: Sequence[str], preloads: Mapping[str, list[str]]) -> None:
        for model_id in gone:
            for running in self.running.values():
                running.keeper.remove(model_id)
                running.host.forget(model_id)
            self.versions.forget(model_id)
        for name, running in self.running.items():
            running.decide_by(self.declared[name], preloads[name])

    def check_models(self) -> None:
        """Probe what was never probed, and digest what was never digested, while requests are answered already."""
        for running in self.running.values():
            for _ in running.check_unknown():
                if not self.is_ready:
                    return
        self.is_checked = True
        for model_id in self.model_ids:
            if self.is_ready and (version := self.versions.known(model_id)):
                with suppress(OSError, ResidencyError):
                    version.read_digest()

    def unavailable(self, strategy: str | None = None) -> Iterator[Unavailable]:
        """Models that are not answered, and why: under one strategy, or under each."""
        for model_id, reason in dict(self.versions.failures).items():
            yield Unavailable(model_id, None, self.versions.sentence(model_id, reason))
        for name, running in self.running.items():
            if strategy in (None, name):
                for model_id, reason in dict(running.host.failures).items():
                    if model_id not in self.versions.failures:
                        yield Unavailable(model_id, name, reason)

    def close(self) -> None:
        """Close every strategy, whichever fails."""
        was_ready, self.is_ready = self.is_ready, False
        self._closed.set()
        if was_ready and self._state:
            self._write_state(self._state)
        for running in self.running.values():
            running.close()
        self._compute.shutdown(wait=False, cancel_futures=True)

    def _keep_state(self, file: StateFile) -> None:
        while not self._closed.wait(file.every):
            self._write_state(file)

    def _write_state(self, file: StateFile) -> None:
        states = {name: running.keeper.state() for name, running in self.running.items()}
        file.write({name: state for name, state in states.items() if state is not None})

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("A listener failed")

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._by_hand.submit(work))
