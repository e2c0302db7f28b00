"""An engine under the settings of a served app: which model a request is for, and the limits of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
from .capture import Capture
from .engine import STARTING, Engine
from .events import Answer
from .metrics import NO_MODEL, Metrics, check_multiprocess
from .observers import Observers
from .state_file import StateFile
from .strategy import DeclaredStrategy

CHANGEABLE = ("models", "default", "strategies", "cost")  # settings that can change without a restart
MAX_LISTED = 100  # names in a sentence


class Service:
    """Everything behind the routes."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        """Raises PluginError, OptionError, StartupFailed or SettingsError if the settings are wrong."""
        check_multiprocess()
        self._settings = settings
        self._plugins = plugins
        state = StateFile(settings.state) if settings.state else None
        self.engine = Engine(settings.models, self._declare(settings), settings.batching, settings.max_queue, state)
        self._capture = Capture(settings.capture) if settings.capture else None
        self.metrics = Metrics(self.engine.versions.items)
        self.engine.subscribe(self.metrics.record)
        self.engine.subscribe(Observers(plugins.manager.hook).notify)

    def _declare(self, settings: Settings) -> list[DeclaredStrategy]:
        prices = settings.cost.model_dump() if settings.cost else {}
        declared = [DeclaredStrategy.of(choice, self._plugins, prices) for choice in self._choices(settings)]
        names = [strategy.name for strategy in declared]
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"The strategy '{name}' is chosen twice; an app mounts each strategy once.")
        return declared

    def _choices(self, settings: Settings) -> Sequence[StrategyChoice]:
        """The chosen strategies. By default all of them or, if the settings name models, only the main one.

        All of them demonstrate the embedded model. Other models would be in memory several times.
        """
        if settings.strategies is not None:
            return settings.strategies
        is_demo = "models" not in settings.model_fields_set
        known = self._plugins.strategies.values()
        return [StrategyChoice(strategy=registered.name) for registered in known if is_demo or registered.is_main]

    @property
    def batching(self) -> dict[str, float] | None:
        """The settings of batching; None: each request is computed alone."""
        return self._settings.batching.model_dump() if self._settings.batching else None

    @property
    def strategies(self) -> list[DeclaredStrategy]:
        """The mounted strategies, in order."""
        return list(self.engine.declared.values())

    @property
    def default(self) -> str | None:
        """The model for requests that name none; None if they must name one."""
        only = self.engine.model_ids[0] if len(self.engine.models) == 1 else None
        return self._settings.default or only

    def find_model(self, model: str | None) -> str:
        """The id of the model that a request is for. Raises UnknownModel, or ModelNotNamed."""
        model_id = self.default if model is None else model
        if model_id is None:
            raise ModelNotNamed(f"model: name one of the models of this server: {listed(self.engine.model_ids)}.")
        if model_id not in self.engine.models:
            raise UnknownModel(f"There is no model '{model_id[:100]}'. Models: {listed(self.engine.model_ids)}.")
        return model_id

    def check_ready(self) -> None:
        """Raise NotReady until the start-up loads are done."""
        if not self.engine.is_ready:
            raise NotReady(STARTING)

    def check_queue_slots(self, strategy: str) -> None:
        """Raise Overloaded if no model has a free queue slot under the strategy.

        So a request can be refused before its body is read. Then the model that it asks for is unknown, and the refusal
        is counted for the only model of the server, or for none. With a capture, which needs the model, nothing is
        refused here.
        """
        if not self.engine.is_ready or self._capture is not None:
            return
        queues = self.engine.running[strategy].dispatcher.queues
        if not all(queue.is_full for queue in queues.values()):
            return
        self.metrics.record_overloaded(strategy, next(iter(queues)) if len(queues) == 1 else NO_MODEL)
        seconds = max(queue.retry_seconds for queue in queues.values())
        raise Overloaded(f"The queue of each model is full; try again in {seconds} s.", seconds)

    async def predict(
        self, strategy: str, model: str | None, texts: Sequence[str], seconds: float | None = None
    ) -> tuple[str, Answer]:
        """The model's id and the answer. The request must begin within `seconds`, and within `request_timeout`.

        Raises TooManyTexts, TextTooLong, UnknownModel, ModelNotNamed, NotReady, Overloaded, DeadlineExceeded, or
        LoadFailed.
        """
        limit = self._settings.max_texts
        if len(texts) > limit:
            raise TooManyTexts(f"texts: {len(texts)} texts are over the limit of {limit}; send them in parts.")
        if max(map(len, texts)) > self._settings.max_text:
            raise TextTooLong(f"A text is over the limit of {self._settings.max_text} characters.")
        model_id = self.find_model(model)
        if self._capture is not None:
            self._capture.record(model_id)
        longest = self._settings.request_timeout
        return model_id, await self.engine.run(strategy, model_id, texts, min(longest, seconds or longest))

    async def update(self, settings: Settings) -> None:
        """Use other models, another default, other options and other prices from now on, while requests run.

        Raises ResidencyError; nothing has changed then.
        """
        for name in fixed_changes(self._settings, settings):
            raise CannotUpdate(f"{name}: restart the server to change it; {', '.join(CHANGEABLE)} change at once.")
        await self.engine.update(settings.models, self._declare(settings))
        self._settings = settings

    def close(self) -> None:
        """Close the engine, the metrics and the capture."""
        self.engine.close()
        self.metrics.close()
        if self._capture:
            self._capture.close()


def fixed_changes(before: Settings, after: Settings) -> list[str]:
    """The settings that differ, and cannot change while the server runs. Of a cluster's, it uses the secret only."""
    names = [name for name in Settings.model_fields if name not in (*CHANGEABLE, "cluster")]
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    before_secret, after_secret = (each.cluster and each.cluster.secret for each in (before, after))
    return changed + (["cluster.secret"] if before_secret != after_secret else [])


def listed(names: Iterable[str], limit: int = MAX_LISTED) -> str:
    """The first `limit` names with commas between them, and how many more there are."""
    all_names = list(names)
    rest = f" …and {len(all_names) - limit} more" if len(all_names) > limit else ""
    return ", ".join(all_names[:limit]) + rest
