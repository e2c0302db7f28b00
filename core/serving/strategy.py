"""A strategy as it is declared, and as it runs."""

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
from ..errors import CannotLoadManually, InUse, LoadFailed, StartupFailed
from ..loaders.probe import Probes
from ..plugins import Plugins, Registered
from ..residency.clock import Clock
from ..residency.decisions import Decisions
from ..residency.host import Host
from ..residency.keeper import Keeper
from ..residency.versions import Versions
from .dispatcher import Dispatcher
from .events import Configured, Event
from .forwarding import Forwarder

log = logging.getLogger("residency")


@dataclass(frozen=True)
class DeclaredStrategy:
    """A strategy that was chosen, with its loader and the options of both. It holds no model."""

    registered: Registered
    loader: Registered
    options: dict[str, Any]
    loader_options: dict[str, Any]
    decisions: Decisions

    @classmethod
    def of(cls, choice: StrategyChoice, plugins: Plugins, prices: Mapping[str, Any]) -> DeclaredStrategy:
        """Make it from settings.

        `prices` fill the options of the strategy that are prices. Raises PluginError, OptionError, or StartupFailed
        with the error of the strategy's constructor.
        """
        registered, loader = plugins.strategy(choice.strategy), plugins.loader(choice.loader.name)
        options = registered.validate(registered.with_prices(choice.options, prices))
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
    """What all strategies of a server share."""

    versions: Versions
    compute: Executor
    slots: Semaphore
    """How many loads run at a time."""
    batching: Batching | None
    max_queue: int
    report: Callable[[Event], None]
    clock: Clock
    probes: Probes = field(default_factory=Probes)
    loaders: dict[str, Loader] = field(default_factory=dict)
    """By name and options, so that strategies with the same loader share one object."""

    def loader(self, declared: DeclaredStrategy) -> Loader:
        """The loader of the strategy, made if needed. Raises what its constructor raises."""
        key = f"{declared.loader.name} {_options_key(declared.loader_options)}"
        if key not in self.loaders:
            self.loaders[key] = declared.loader.cls(**declared.loader_options)
        return self.loaders[key]


class RunningStrategy:
    """A strategy that runs: its models in memory, and its requests."""

    def __init__(self, declared: DeclaredStrategy, common: Common) -> None:
        """Raises StartupFailed with the error of the loader's constructor."""
        self.declared = declared
        self._report = common.report
        try:
            loader = common.loader(declared)
        except Exception as error:  # a third party's constructor can fail in any way
            raise self._start_error(error) from error
        self.host = Host(
            declared.name,
            loader,
            common.versions,
            common.slots,
            common.report,
            common.probes,
            _options_key(declared.loader_options),
            common.clock,
        )
        self.keeper = Keeper(declared.decisions, self.host)
        common.versions.keepers.append(self.keeper)
        self.dispatcher = Dispatcher(self.keeper, common.compute, common.batching, common.max_queue, common.report)
        self.forwarder = Forwarder(self.keeper, self.dispatcher.queues)

    def start(self, state: str | None) -> None:
        """Start the strategy with the state that it saved, if any, and load what it preloads. Raises StartupFailed."""
        try:
            self.host.prepare()
            self.keeper.start(state)
        except Exception as error:
            raise self._start_error(error) from error
        self._report(Configured(self.name, self.budget))

    def _start_error(self, error: Exception) -> StartupFailed:
        return StartupFailed(f"Strategy '{self.name}' cannot start: {error}")

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def budget(self) -> int | None:
        """How many bytes the strategy may hold in memory; None: any number."""
        return self.declared.decisions.budget

    def resident(self) -> list[Resident]:
        """The models in memory, the oldest first."""
        return [copy.to_resident() for copy in self.keeper.residents()]

    def load(self, model_id: str) -> None:
        """Load the model for an operator; blocks. Raises CannotLoadManually or LoadFailed."""
        self._check_manual()
        self.keeper.load(model_id)

    def unload(self, model_id: str) -> None:
        """Free the model for an operator; blocks. Raises CannotLoadManually or InUse."""
        self._check_manual()
        self.forwarder.end_all()
        if not self.keeper.unload(model_id):
            raise InUse(f"Model '{model_id}' is in use, or pinned, under '{self.name}'; try again later.")

    def _check_manual(self) -> None:
        if not self.declared.decisions.shared:
            raise CannotLoadManually(
                f"Strategy '{self.name}' loads a model for each request; none can be loaded or unloaded manually."
            )

    def start_update(self, declared: DeclaredStrategy, model_ids: Collection[str]) -> list[str]:
        """Start a strategy object with other options, which does not decide yet. Returns the ids of what it preloads.

        Raises ValueError if models do not fit, and what the strategy raises.
        """
        self.host.prepare()
        return self.keeper.start_strategy(declared.decisions, model_ids, self.keeper.state())

    def apply_update(self, declared: DeclaredStrategy, preloads: list[str]) -> None:
        """Use the started object from now on, and load what it preloads; blocks."""
        self.declared = declared
        self.keeper.retire()
        self.keeper.use_decisions(declared.decisions)
        self._report(Configured(self.name, self.budget))
        self.keeper.preload(preloads)

    def probe_unknown(self) -> Iterator[None]:
        """Probe the models that were neither requested nor probed before, one in each step.

        A model that does not fit beside those in memory is probed by its first load.
        """
        for model_id in self.host.model_ids:
            is_unprobed = not self.host.is_probed(model_id) and model_id not in self.host.failures
            if is_unprobed and self._fits(model_id):
                self.host.probe(model_id)
                yield

    def _fits(self, model_id: str) -> bool:
        with suppress(LoadFailed):
            held = sum(copy.nbytes for copy in self.keeper.residents())
            return self.budget is None or held + self.host.size(model_id) <= self.budget
        return False

    def close(self) -> None:
        try:
            self.keeper.close()
        except Exception:
            log.exception("Closing strategy '%s' failed", self.name)
        in_use = self.keeper.residents()  # by requests that hang, which must not delay the end
        for copy in in_use[1:]:
            copy.model.begin_close()
        for copy in in_use:
            self.host.close(copy.model, "shutdown", copy.loaded_at)


def _options_key(options: Mapping[str, Any]) -> str:
    return str(sorted(options.items()))
