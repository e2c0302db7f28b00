"""The settings of a served app in effect: which model a request is for, and the limits of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import anyio

from ..config.choices import StrategyChoice
from ..config.engines import EngineChoice
from ..config.settings import Settings
from ..errors import (
    CannotDo,
    CannotUpdate,
    LoadFailed,
    ModelNotNamed,
    NotReady,
    Overloaded,
    SettingsError,
    TextTooLong,
    TooManyTexts,
    UnknownModel,
)
from ..plugins import Plugins
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .capture import Capture
from .engine import STARTING, Engine
from .events import Answer
from .forwarding import Forwarding
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
        self.aliases = find_aliases(settings.models)
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
    def token(self) -> bytes:
        """The token of operators; empty if there is none."""
        token = self._settings.token
        return token.get_secret_value().encode() if token else b""

    @property
    def strategies(self) -> list[DeclaredStrategy]:
        """The mounted strategies, in order."""
        return list(self.engine.declared.values())

    @property
    def default(self) -> str | None:
        """The model for requests that name none; None if they must name one."""
        only = self.engine.model_ids[0] if len(self.engine.models) == 1 else None
        return self._settings.default or only

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The rows of the table of tasks, by name."""
        return self._plugins.tasks

    @property
    def default_strategy(self) -> str:
        """The strategy of requests that name none: the first."""
        return next(iter(self.engine.declared))

    def find_model(self, model: str | None) -> str:
        """The id of the model that a request names by its id or an alias. Raises UnknownModel, or ModelNotNamed."""
        name = self.default if model is None else model
        if name is None:
            raise ModelNotNamed(f"model: name one of the models of this server: {listed(self.engine.model_ids)}.")
        if name in self.engine.models:
            return name
        if (model_id := self.aliases.get(name)) is None:
            names = listed([*self.engine.model_ids, *self.aliases])
            raise UnknownModel(f"There is no model '{name[:100]}'. Models: {names}.")
        return model_id

    @property
    def has_engines(self) -> bool:
        """Whether any model is an engine."""
        return any(isinstance(choice, EngineChoice) for choice in self.engine.models.values())

    def is_engine(self, model_id: str) -> bool:
        """Whether the model is an engine, to which requests are forwarded."""
        return isinstance(self.engine.models[model_id], EngineChoice)

    async def tasks_of(self, model_id: str, strategy: str | None = None) -> tuple[str, ...]:
        """The tasks that a model has under the strategy, by default the first one; the main task is the first.

        An engine has none. Raises NotReady, or LoadFailed.
        """
        host = self.engine.find_running(strategy or self.default_strategy).host
        if (known := host.known_tasks(model_id)) is not None:
            return known
        return await anyio.to_thread.run_sync(host.tasks, model_id)

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
        self,
        strategy: str,
        model: str | None,
        items: Sequence[Any],
        seconds: float | None = None,
        task: Task = CLASSIFY,
    ) -> tuple[str, Answer]:
        """The model's id and the answer. The request must begin within `seconds`, and within `request_timeout`.

        Raises TooManyTexts, TextTooLong, UnknownModel, ModelNotNamed, CannotDo, NotReady, Overloaded, DeadlineExceeded,
        or LoadFailed.
        """
        limit = self._settings.max_texts
        if len(items) > limit:
            raise TooManyTexts(f"texts: {len(items)} texts are over the limit of {limit}; send them in parts.")
        if max(map(task.length, items)) > self._settings.max_text:
            raise TextTooLong(f"A text is over the limit of {self._settings.max_text} characters.")
        model_id = self.find_model(model)
        await self._check_task(strategy, model_id, task)
        if self._capture is not None:
            self._capture.record(model_id)
        longest = self._settings.request_timeout
        return model_id, await self.engine.run(strategy, model_id, items, min(longest, seconds or longest), task)

    async def _check_task(self, strategy: str, model_id: str, task: Task) -> None:
        """Raise CannotDo if the model is known not to have the task. One that cannot be loaded says so later."""
        if self.is_engine(model_id):
            raise CannotDo(f"Model '{model_id}' is an engine.", model_id)
        if self.engine.is_ready:
            with suppress(LoadFailed):
                if task.name not in await self.tasks_of(model_id, strategy):
                    raise CannotDo(f"Model '{model_id}' does not have the task '{task.name}'.", model_id)

    def forwarding(
        self, strategy: str, model_id: str, seconds: float | None = None
    ) -> AbstractAsyncContextManager[Forwarding]:
        """A lease on an engine, for a request that must begin within `seconds`, and within `request_timeout`.

        It raises UnknownModel, UnknownStrategy, NotReady, Overloaded, DeadlineExceeded, LoadFailed or ModelCrashed,
        here or when it is entered.
        """
        running, choice = self.engine.find_running(strategy), self.engine.models.get(model_id)
        if not isinstance(choice, EngineChoice):
            raise UnknownModel(f"There is no engine '{model_id[:100]}' here.")
        if self._capture is not None:
            self._capture.record(model_id)
        longest = self._settings.request_timeout
        return running.forwarder.lease(model_id, choice.parallel, min(longest, seconds or longest))

    def is_in_memory(self, strategy: str, model_id: str) -> bool:
        """Whether a request for the model need not wait for a load."""
        return self.engine.find_running(strategy).keeper.status(model_id) is not None

    async def update(self, settings: Settings) -> None:
        """Use other models, another default, other options and other prices from now on, while requests run.

        Raises ResidencyError; nothing has changed then.
        """
        for name in fixed_changes(self._settings, settings):
            raise CannotUpdate(f"{name}: restart the server to change it; {', '.join(CHANGEABLE)} change at once.")
        aliases = find_aliases(settings.models)
        await self.engine.update(settings.models, self._declare(settings))
        self._settings, self.aliases = settings, aliases

    def close(self) -> None:
        """Close the strategies with their models, the metrics and the capture."""
        self.engine.close()
        self.metrics.close()
        if self._capture:
            self._capture.close()


def find_aliases(models: Mapping[str, str | EngineChoice]) -> dict[str, str]:
    """The model id of each alias. Raises SettingsError for an alias that is a model id, or another model's alias."""
    found: dict[str, str] = {}
    for model_id, choice in models.items():
        for alias in choice.aliases if isinstance(choice, EngineChoice) else ():
            owner = alias if alias in models else found.get(alias, model_id)
            if owner != model_id:
                raise SettingsError(
                    f"models.{model_id}.aliases: '{alias}' is already a name of the model '{owner}'; remove it here."
                )
            found[alias] = model_id
    return found


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
