"""The mounted strategies of one process: chosen, started in the background, closed at the end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from threading import Semaphore
from typing import Any, Literal, NamedTuple

from ..choices import LoaderChoice, StrategyChoice
from ..contracts import Explanation, Loader, LoadingStrategy
from ..errors import (
    CannotSteer,
    InUse,
    LoadFailed,
    ModelNotNamed,
    ModelReferenceError,
    NotReady,
    Overloaded,
    ResidencyError,
    SettingsError,
    StartupFailed,
    TextTooLong,
    TooManyTexts,
    UnknownModel,
    WrongTimeout,
)
from ..heap import start_up
from ..models.probe import Probes
from ..plugins import Plugins, Registered
from ..settings import Settings
from ..threads import spread_forwards
from .answer import Answer
from .capture import Capture
from .daemons import DaemonPool
from .dispatcher import Dispatcher
from .host import Host
from .metrics import NO_MODEL, Metrics, check_multiprocess
from .redact import without_paths
from .served import listed
from .versions import Versions

log = logging.getLogger("residency")

COMPUTE_SLOTS = 1  # torch's own threads use all cores for one forward
Action = Literal["preload", "evict"]
OF_MODELS = "persistent"  # the strategy of settings that name models and none
LOAD_SLOTS = 4  # a load may wait for a disk, but a thousand at once must not


class Unavailable(NamedTuple):
    """A model that is not answered, under one strategy or, where that is None, under any."""

    model: str
    strategy: str | None
    reason: str


class Mounted:
    """A strategy with its route; `start` gives it life."""

    def __init__(self, choice: StrategyChoice, registered: Registered, loader: Registered) -> None:
        self.registered = registered
        self.loader = loader
        self.options = registered.validate(choice.options)
        self.loader_options = loader.validate(choice.loader.options)
        self.name = registered.name
        self.route = "/predict" if self.name == "persistent" else f"/predict-{self.name}"
        self.host: Host | None = None
        self.dispatcher: Dispatcher | None = None
        self._strategy: LoadingStrategy | None = None

    @property
    def budget(self) -> int | None:
        """Bytes that the strategy may hold, if it has an option of that name."""
        budget = self.options.get("memory_budget")
        return int(budget) if isinstance(budget, int) else None

    def explain(self, model_id: str) -> Explanation:
        """What the strategy knows of the model; a plugin's failure tells nothing."""
        try:
            return getattr(self._strategy, "explain", lambda _: Explanation())(model_id)
        except Exception:
            log.exception("Strategy '%s': explain('%s') failed", self.name, model_id)
            return Explanation()

    def steer(self, action: Action, model_id: str) -> None:
        """Load or free a model by hand; blocks. Raises CannotSteer, InUse, or LoadFailed."""
        method = getattr(self._strategy, action, None)
        if method is None:
            raise CannotSteer(f"The strategy '{self.name}' loads and frees models by itself only (it has no {action}).")
        if method(model_id) is False:
            raise InUse(f"Model '{model_id}' is in use, or pinned, under '{self.name}'; try again later.")

    def start(self, shared: Shared, plugins: Plugins, compute: Executor, settings: Settings, metrics: Metrics) -> None:
        """Raises StartupFailed in the strategy's or the loader's own words."""
        try:
            options = str(sorted(self.loader_options.items()))
            key = f"{self.loader.name} {options}"
            if key not in shared.loaders:
                shared.loaders[key] = self.loader.cls(**self.loader_options)
            loader, hooks = shared.loaders[key], plugins.manager.hook
            self.host = Host(self.name, loader, shared.versions, hooks, shared.slots, shared.probes, options)
            self.host.prepare()
            self._strategy = self.registered.cls(self.host, **self.options)
            self.host.shares = getattr(self._strategy, "shares", True)
            shared.versions.hosts.append(self.host)
            getattr(self._strategy, "start", lambda: None)()
        except Exception as error:
            raise StartupFailed(f"Strategy '{self.name}' cannot start: {error}") from error
        self.dispatcher = Dispatcher(self._strategy, self.host, compute, settings.batching, settings.max_queue, metrics)

    def unavailable(self) -> dict[str, str]:
        """Why models cannot be answered under this strategy, by model id."""
        return dict(self.host.failures) if self.host else {}

    def check_unknown(self) -> Iterator[None]:
        """Probe each model that nobody has asked for and that was never probed, one in each step.

        One that does not fit beside what is in memory is left for its first load.
        """
        if (host := self.host) is None:
            return
        for model_id in host.model_ids:
            is_new = not host.is_known(model_id) and model_id not in host.failures
            if is_new and self._has_room(host, model_id):
                host.check(model_id)
                yield

    def _has_room(self, host: Host, model_id: str) -> bool:
        with suppress(LoadFailed):
            held = sum(model.nbytes for model in host.resident())
            return self.budget is None or held + host.size(model_id) <= self.budget
        return False

    def close(self) -> None:
        strategy, self._strategy = self._strategy, None
        try:
            getattr(strategy, "close", lambda: None)()
        except Exception:
            log.exception("Closing strategy '%s' failed", self.name)
        for model in self.host.resident() if self.host else []:
            model.close("shutdown")  # it is lent out still: its user hangs, and must not hold up the end


class Shared:
    """What all strategies of a server have in common."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.loaders: dict[str, Loader] = {}  # by name and options: what loads have in common is made once
        self.slots = Semaphore(LOAD_SLOTS)
        self.probes = Probes()


class Service:
    """Everything behind the routes."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        """Raises PluginError, OptionError or SettingsError for what a person got wrong."""
        check_multiprocess()
        self._settings = settings
        self._plugins = plugins
        self.mounted = [self._mount(choice) for choice in self._choices()]
        names = [mounted.name for mounted in self.mounted]
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"The strategy '{name}' is chosen twice; an app mounts each strategy once.")
        self._routes = {mounted.route: mounted for mounted in self.mounted}
        self._capture = Capture(settings.capture) if settings.capture else None
        self.ready = False
        self.checked = False  # whether each model was probed that could be
        self.versions = Versions(settings.models)
        self.metrics = Metrics(self.versions.each)
        plugins.manager.register(self.metrics, "metrics")
        for mounted in self.mounted:
            self.metrics.budget.labels(mounted.name).set(mounted.budget or math.inf)
        self._compute = DaemonPool("compute", COMPUTE_SLOTS, begin=spread_forwards)
        self._by_hand = DaemonPool("by-hand", LOAD_SLOTS)

    def _choices(self) -> Sequence[StrategyChoice]:
        """Left out, all that there are: a show of the embedded model. Who names models wants one copy of each."""
        if self._settings.strategies is not None:
            return self._settings.strategies
        is_a_show = "models" not in self._settings.model_fields_set
        return [StrategyChoice(strategy=name) for name in (self._plugins.strategies if is_a_show else [OF_MODELS])]

    def _mount(self, choice: StrategyChoice) -> Mounted:
        loader: LoaderChoice = choice.loader
        return Mounted(choice, self._plugins.strategy(choice.strategy), self._plugins.loader(loader.name))

    @property
    def models(self) -> Mapping[str, str]:
        """References by id."""
        return self._settings.models

    @property
    def model_ids(self) -> Sequence[str]:
        return tuple(self._settings.models)

    @property
    def default(self) -> str | None:
        """The model of a request that names none; None where it must."""
        only = self.model_ids[0] if len(self.model_ids) == 1 else None
        return self._settings.default or only

    def start(self) -> None:
        """Find the checkpoints and start the strategies; blocks. Raises StartupFailed.

        A model that cannot be served keeps none of the others from it.
        """
        self.versions.find_all()
        if len(self.versions.failures) == len(self.model_ids):
            model_id, reason = next(iter(self.versions.failures.items()))
            raise StartupFailed(f"Model '{model_id}': {reason}")
        shared = Shared(self.versions)
        with start_up():
            for mounted in self.mounted:
                mounted.start(shared, self._plugins, self._compute, self._settings, self.metrics)
        self.ready = True

    def check_models(self) -> None:
        """Probe what was never probed, and digest what was never digested, while requests are answered already."""
        for mounted in self.mounted:
            for _ in mounted.check_unknown():
                if not self.ready:
                    return
        self.checked = True
        for model_id in self.model_ids:
            if self.ready and (version := self.versions.known(model_id)):
                with suppress(OSError, ResidencyError):
                    version.read_digest()

    def unavailable(self, mounted: Mounted | None = None) -> Iterator[Unavailable]:
        """Models that are not answered, and why: under one strategy, or under each."""
        for model_id, reason in self.versions.failures.items():
            yield Unavailable(model_id, None, without_paths(reason, Path(self.versions.references[model_id])))
        for each in self.mounted if mounted is None else [mounted]:
            for model_id, reason in each.unavailable().items():
                if model_id not in self.versions.failures:
                    yield Unavailable(model_id, each.name, reason)

    def close(self) -> None:
        """Close every strategy, whichever fails."""
        self.ready = False
        for mounted in self.mounted:
            mounted.close()
        self.metrics.close()
        if self._capture:
            self._capture.close()
        self._compute.shutdown(wait=False, cancel_futures=True)

    def admit(self, path: str) -> None:
        """Raise Overloaded for a request to `path` that has no place, whatever its body says: no model has one.

        It is counted under the one model that there is, or under none: which one was asked for its body says, which
        is not read. A capture has to know the model, so that it takes the whole way to refuse.
        """
        mounted = self._routes.get(path)
        if mounted is None or mounted.dispatcher is None or self._capture is not None:
            return
        lanes = mounted.dispatcher.lanes
        if not all(lane.is_full for lane in lanes.values()):
            return
        self.metrics.overloaded(mounted.name, next(iter(lanes)) if len(lanes) == 1 else NO_MODEL)
        seconds = max(lane.retry_seconds for lane in lanes.values())
        raise Overloaded(f"No model has a place for one more request; come again in {seconds} s.", seconds)

    async def steer(self, mounted: Mounted, action: Action, model_id: str) -> None:
        """Load or free a model by hand; see `Mounted.steer`. A load that hangs holds up nothing else.

        A load resolves the reference anew, and brings in what it leads to now under every strategy.
        """

        def work() -> None:
            if action == "preload":
                self._find_anew(model_id)
            mounted.steer(action, model_id)

        await asyncio.wrap_future(self._by_hand.submit(work))

    async def predict(
        self, mounted: Mounted, model: str | None, texts: Sequence[str], timeout: str | None = None
    ) -> tuple[str, Answer]:
        """The model's id and the answer, begun within `timeout` seconds if that is less than the setting.

        Raises TooManyTexts, TextTooLong, UnknownModel, ModelNotNamed, WrongTimeout, NotReady, Overloaded,
        DeadlinePassed, or LoadFailed.
        """
        limit = self._settings.max_texts
        if len(texts) > limit:
            raise TooManyTexts(f"texts: {len(texts)} texts are over the limit of {limit}; send them in parts.")
        if max(map(len, texts)) > self._settings.max_text:
            raise TextTooLong(f"A text is over the limit of {self._settings.max_text} characters.")
        model_id = self.find_model(model)
        if self._capture is not None:
            self._capture.arrived(model_id)
        if not self.ready or mounted.dispatcher is None:
            raise NotReady("The models that are loaded at start-up are not in memory yet; try again soon.")
        seconds = self._settings.request_timeout if timeout is None else self._seconds(timeout)
        return model_id, await mounted.dispatcher.predict(model_id, texts, seconds)

    def _find_anew(self, model_id: str) -> None:
        try:
            self.versions.find_anew(model_id)
        except ModelReferenceError as error:
            reason = without_paths(error, Path(self.versions.references[model_id]))
            raise LoadFailed(f"Loading model '{model_id}' failed: {reason}") from error

    def find_model(self, model: str | None) -> str:
        """Its id; without one that of the default, or of the only model. Raises UnknownModel, or ModelNotNamed."""
        model_id = self.default if model is None else model
        if model_id is None:
            raise ModelNotNamed(f"model: name one of those that this server has: {listed(self.model_ids)}.")
        if model_id not in self._settings.models:
            raise UnknownModel(f"There is no model '{model_id[:100]}'. Models: {listed(self.model_ids)}.")
        return model_id

    def _seconds(self, timeout: str) -> float:
        try:
            seconds = float(timeout)
        except ValueError:
            seconds = 0.0
        if not seconds > 0:
            raise WrongTimeout("X-Request-Timeout must be a number of seconds above 0.")
        return min(seconds, self._settings.request_timeout)

    def status(self, mounted: Mounted) -> dict[str, Any]:
        """The strategy as `core.schemas.StrategyStatus`."""
        host = mounted.host
        return {
            "name": mounted.name,
            "route": mounted.route,
            "loader": mounted.loader.name,
            "options": mounted.options,
            "batching": self._settings.batching and self._settings.batching.model_dump(),
            "loads": host.loads if host else 0,
            "unloads": host.unloads if host else 0,
            "unload_s": host.unload_seconds if host else 0.0,
            "crashes": host.crashes if host else 0,
            "used": [{"model": model_id, **used._asdict()} for model_id, used in (host.used() if host else {}).items()],
            "resident": []
            if host is None
            else [
                {"model": model.model_id, "bytes": model.nbytes, "since": host.epoch(model.since)}
                for model in host.resident()
            ],
        }
