"""A strategy as it was declared, and as it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Any

from ..config.choices import Batching, StrategyChoice
from ..contracts import Loader, Resident
from ..errors import (
    CannotSteer,
    InUse,
    LoadFailed,
    StartupFailed,
)
from ..loaders.probe import Probes
from ..plugins import Plugins, Registered
from ..residency.clock import Clock
from ..residency.decisions import Decisions
from ..residency.host import Host
from ..residency.keeper import Keeper
from ..residency.versions import Versions
from .dispatcher import Dispatcher
from .events import Configured, Event

log = logging.getLogger("residency")


@dataclass(frozen=True)
class DeclaredStrategy:
    """What was chosen, and holds nothing in memory: a strategy with a loader, and the options of both."""

    registered: Registered
    loader: Registered
    options: dict[str, Any]
    loader_options: dict[str, Any]
    decisions: Decisions

    @classmethod
    def of(cls, choice: StrategyChoice, plugins: Plugins, prices: Mapping[str, Any]) -> DeclaredStrategy:
        """Raises PluginError, OptionError, or StartupFailed in the strategy's own words."""
        registered, loader = plugins.strategy(choice.strategy), plugins.loader(choice.loader.name)
        options = registered.validate(registered.at_prices(choice.options, prices))
        loader_options = loader.validate(choice.loader.options)
        try:
            decisions = Decisions(registered.cls(**options), registered.name)
        except Exception as error:  # a third party's constructor can fail in any way
            raise StartupFailed(f"Strategy '{registered.name}' cannot start: {error}") from error
        return cls(registered, loader, options, loader_options, decisions)

    @property
    def name(self) -> str:
        return self.registered.name


@dataclass(frozen=True)
class Common:
    """What all strategies of an engine share."""

    versions: Versions
    compute: Executor
    slots: Semaphore
    """Of loads."""
    batching: Batching | None
    max_queue: int
    tell: Callable[[Event], None]
    clock: Clock
    probes: Probes = field(default_factory=Probes)
    loaders: dict[str, Loader] = field(default_factory=dict)
    """By name and options: what loads have in common is made once."""

    def loader(self, declared: DeclaredStrategy) -> Loader:
        """The one for the strategy. Raises whatever its constructor raises."""
        key = f"{declared.loader.name} {_written(declared.loader_options)}"
        if key not in self.loaders:
            self.loaders[key] = declared.loader.cls(**declared.loader_options)
        return self.loaders[key]


class RunningStrategy:
    """A strategy at work: its models in memory, and its requests."""

    def __init__(self, declared: DeclaredStrategy, common: Common) -> None:
        """Raises StartupFailed in the loader's own words."""
        self.declared = declared
        self._tell = common.tell
        try:
            loader = common.loader(declared)
        except Exception as error:  # a third party's constructor can fail in any way
            raise self._failed(error) from error
        self.host = Host(
            declared.name,
            loader,
            common.versions,
            common.slots,
            common.tell,
            common.probes,
            _written(declared.loader_options),
            common.clock,
        )
        self.keeper = Keeper(declared.decisions, self.host)
        common.versions.keepers.append(self.keeper)
        self.dispatcher = Dispatcher(self.keeper, common.compute, common.batching, common.max_queue, common.tell)

    def start(self, state: str | None) -> None:
        """Load what is to be loaded at the start; `state` is what the strategy had learned. Raises StartupFailed."""
        try:
            self.host.prepare()
            self.keeper.start(state)
        except Exception as error:
            raise self._failed(error) from error
        self._tell(Configured(self.name, self.budget))

    def _failed(self, error: Exception) -> StartupFailed:
        return StartupFailed(f"Strategy '{self.name}' cannot start: {error}")

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def budget(self) -> int | None:
        """Bytes that the strategy may hold."""
        return self.declared.decisions.budget

    def resident(self) -> list[Resident]:
        """What is in memory, the oldest first."""
        return [copy.seen() for copy in self.keeper.residents()]

    def load(self, model_id: str) -> None:
        """Load the model by hand; blocks. Raises CannotSteer or LoadFailed."""
        self._check_steered()
        self.keeper.load(model_id)

    def unload(self, model_id: str) -> None:
        """Free the model by hand; blocks. Raises CannotSteer or InUse."""
        self._check_steered()
        if not self.keeper.unload(model_id):
            raise InUse(f"Model '{model_id}' is in use, or pinned, under '{self.name}'; try again later.")

    def _check_steered(self) -> None:
        if not self.declared.decisions.shared:
            raise CannotSteer(f"Under the strategy '{self.name}' each request has a model of its own.")

    def begin(self, declared: DeclaredStrategy, model_ids: Collection[str]) -> list[str]:
        """Start the other object, by which nothing goes yet, on these models; what it wants loaded.

        Raises ValueError, and what the strategy raises.
        """
        self.host.prepare()
        return self.keeper.begin(declared.decisions, model_ids, self.keeper.state())

    def decide_by(self, declared: DeclaredStrategy, preloads: list[str]) -> None:
        """Go by other options from now on, and load what they want loaded; blocks."""
        self.declared = declared
        self.keeper.decide_by(declared.decisions)
        self._tell(Configured(self.name, self.budget))
        self.keeper.preload(preloads)

    def check_unknown(self) -> Iterator[None]:
        """Probe each model that nobody has asked for and that was never probed, one in each step.

        One that does not fit beside what is in memory is left for its first load.
        """
        for model_id in self.host.model_ids:
            is_new = not self.host.is_known(model_id) and model_id not in self.host.failures
            if is_new and self._has_room(model_id):
                self.host.check(model_id)
                yield

    def _has_room(self, model_id: str) -> bool:
        with suppress(LoadFailed):
            held = sum(copy.nbytes for copy in self.keeper.residents())
            return self.budget is None or held + self.host.size(model_id) <= self.budget
        return False

    def close(self) -> None:
        try:
            self.keeper.close()
        except Exception:
            log.exception("Closing strategy '%s' failed", self.name)
        for copy in self.keeper.residents():  # it is lent out still: its user hangs, and must not hold up the end
            self.host.close(copy.model, "shutdown", copy.loaded_at)


def _written(options: Mapping[str, Any]) -> str:
    return str(sorted(options.items()))
