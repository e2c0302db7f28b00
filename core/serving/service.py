"""An engine as the settings of a served app have it: which model a request means, and the limits of one."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.choices import StrategyChoice
from ..config.settings import Settings
from ..errors import (
    CannotUpdate,
    ModelNotNamed,
    NotReady,
    Overloaded,
    SettingsError,
    TextTooLong,
    TooManyTexts,
    UnknownModel,
)
from ..plugins import Plugins
from .answer import Answer
from .capture import Capture
from .engine import STARTING, Engine
from .metrics import NO_MODEL, Metrics, check_multiprocess
from .observers import Observers
from .served import listed
from .state_file import StateFile
from .strategy import DeclaredStrategy

ROOT = "/predict"  # the route of the strategy that settings get which name models and no strategy
CHANGEABLE = ("models", "default", "strategies", "cost")  # settings that a running server takes over


class Service:
    """Everything behind the routes."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        """Raises PluginError, OptionError, StartupFailed or SettingsError for what a person got wrong."""
        check_multiprocess()
        self._settings = settings
        self._plugins = plugins
        state = StateFile(settings.state) if settings.state else None
        self.engine = Engine(settings.models, self._declared(settings), settings.batching, settings.max_queue, state)
        self._capture = Capture(settings.capture) if settings.capture else None
        self._by_route = {each.registered.route: each.name for each in self.strategies}
        self.metrics = Metrics(self.engine.versions.each)
        self.engine.subscribe(self.metrics.hear)
        self.engine.subscribe(Observers(plugins.manager.hook).hear)

    def _declared(self, settings: Settings) -> list[DeclaredStrategy]:
        prices = settings.cost.model_dump() if settings.cost else {}
        declared = [DeclaredStrategy.of(choice, self._plugins, prices) for choice in self._choices(settings)]
        names = [each.name for each in declared]
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"The strategy '{name}' is chosen twice; an app mounts each strategy once.")
        return declared

    def _choices(self, settings: Settings) -> Sequence[StrategyChoice]:
        """Left out, all that there are: a show of the embedded model. Who names models wants one copy of each."""
        if settings.strategies is not None:
            return settings.strategies
        is_a_show = "models" not in settings.model_fields_set
        known = self._plugins.strategies.values()
        return [StrategyChoice(strategy=each.name) for each in known if is_a_show or each.route == ROOT]

    @property
    def batching(self) -> dict[str, float] | None:
        """How those who wait are computed together; None: they are not."""
        return self._settings.batching.model_dump() if self._settings.batching else None

    @property
    def strategies(self) -> list[DeclaredStrategy]:
        """Those that are mounted, in their order."""
        return list(self.engine.declared.values())

    @property
    def default(self) -> str | None:
        """The model of a request that names none; None where it must."""
        only = self.engine.model_ids[0] if len(self.engine.models) == 1 else None
        return self._settings.default or only

    def find_model(self, model: str | None) -> str:
        """Its id; without one that of the default, or of the only model. Raises UnknownModel, or ModelNotNamed."""
        model_id = self.default if model is None else model
        if model_id is None:
            raise ModelNotNamed(f"model: name one of those that this server has: {listed(self.engine.model_ids)}.")
        if model_id not in self.engine.models:
            raise UnknownModel(f"There is no model '{model_id[:100]}'. Models: {listed(self.engine.model_ids)}.")
        return model_id

    def check_ready(self) -> None:
        """Raise NotReady."""
        if not self.engine.is_ready:
            raise NotReady(STARTING)

    def admit(self, route: str) -> None:
        """Raise Overloaded for a request to the route that has no place, whatever its body says: no model has one.

        It is counted under the one model that there is, or under none: which one was asked for its body says, which
        is not read. A capture has to know the model, so that it takes the whole way to refuse.
        """
        name = self._by_route.get(route)
        if name is None or not self.engine.is_ready or self._capture is not None:
            return
        queues = self.engine.running[name].dispatcher.queues
        if not all(queue.is_full for queue in queues.values()):
            return
        self.metrics.overloaded(name, next(iter(queues)) if len(queues) == 1 else NO_MODEL)
        seconds = max(queue.retry_seconds for queue in queues.values())
        raise Overloaded(f"No model has a place for one more request; come again in {seconds} s.", seconds)

    async def predict(
        self, strategy: str, model: str | None, texts: Sequence[str], seconds: float | None = None
    ) -> tuple[str, Answer]:
        """The model's id and the answer, begun within so many seconds if that is less than the setting.

        Raises TooManyTexts, TextTooLong, UnknownModel, ModelNotNamed, NotReady, Overloaded, DeadlinePassed, or
        LoadFailed.
        """
        limit = self._settings.max_texts
        if len(texts) > limit:
            raise TooManyTexts(f"texts: {len(texts)} texts are over the limit of {limit}; send them in parts.")
        if max(map(len, texts)) > self._settings.max_text:
            raise TextTooLong(f"A text is over the limit of {self._settings.max_text} characters.")
        model_id = self.find_model(model)
        if self._capture is not None:
            self._capture.arrived(model_id)
        most = self._settings.request_timeout
        return model_id, await self.engine.run(strategy, model_id, texts, min(most, seconds or most))

    async def update(self, settings: Settings) -> None:
        """Go by other models, another default, and other options of the strategies, while requests run.

        Raises ResidencyError; everything is then as before.
        """
        for name in Settings.model_fields:
            if name not in CHANGEABLE and getattr(settings, name) != getattr(self._settings, name):
                raise CannotUpdate(f"{name}: restart the server to change it; {', '.join(CHANGEABLE)} change at once.")
        await self.engine.update(settings.models, self._declared(settings))
        self._settings = settings

    def close(self) -> None:
        """Close everything, whichever fails."""
        self.engine.close()
        self.metrics.close()
        if self._capture:
            self._capture.close()
