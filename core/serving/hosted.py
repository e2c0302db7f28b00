"""A model in memory as a strategy holds it: closed once, told of to the host, and given another version beneath it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ..contracts import Model, Prediction, Reason
from ..heap import give_back
from .versions import Version

if TYPE_CHECKING:
    from .host import Host


class Used(NamedTuple):
    """What a load used, which after a fallback is not what was asked for: whose way of loading, and which dtype."""

    loader: str
    dtype: str
    nbytes: int


class Freed(NamedTuple):
    """What observers are told of a model that has left memory while its place was taken."""

    model_id: str
    nbytes: int
    since: float


class Predictions(list[Prediction]):
    """What a model has answered, and its version."""

    def __init__(self, predictions: Iterable[Prediction], version: Version) -> None:
        super().__init__(predictions)
        self.version = version


class HostedModel:
    """A loaded model as the strategy sees it: its one `close` is counted, and its version may change beneath it."""

    def __init__(self, host: Host, model_id: str, model: Model, version: Version) -> None:
        self.model_id = model_id
        self.version = version
        self.since = host.clock.now()  # when its load ended
        self.turn = Lock()  # held while it computes, and while another version takes its place
        self._host = host
        self._model: Model | None = model
        self._closing = Lock()
        self._take(model)

    def _take(self, model: Model) -> None:
        self.nbytes = model.nbytes
        self.own_process: bool = getattr(model, "own_process", False)
        if hasattr(model, "reloading"):
            model.reloading = partial(self._host.reload, self)

    @property
    def phases(self) -> Mapping[str, float]:
        """Seconds by phase of its latest load."""
        return getattr(self._model, "phases", {})

    def used(self, loader: str) -> Used:
        """What its load used; a model that does not tell was loaded by `loader`."""
        return Used(getattr(self._model, "loaded_by", loader), getattr(self._model, "dtype", ""), self.nbytes)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Raises RuntimeError after `close`, and what the loader's model raises."""
        with self.turn:
            if (model := self._model) is None:
                raise RuntimeError("this model is closed; a strategy must not lend it out any more")
            return Predictions(model.predict(texts), self.version)

    def load(self, version: Version) -> tuple[Model, float]:
        """A model of that version that may take this one's place; see `Host.load_version`."""
        return self._host.load_version(self.model_id, version)

    def replace(self, model: Model, seconds: float, version: Version) -> Callable[[], None]:
        """Answer by `model` from now on, and return what is to be called to free the older one; for who has the turn.

        A model that was closed meanwhile stays so.
        """
        with self._closing:
            if self._model is None:
                return lambda: model.close("removed")
            before, self._model = self._model, model
        older = Freed(self.model_id, self.nbytes, self.since)
        self.version = version
        self._take(model)

        def free() -> None:
            began = time.perf_counter()
            before.close("removed")
            give_back()
            self._host.closed_in(time.perf_counter() - began)
            self._host.replaced(older, self, seconds)

        return free

    def discard(self) -> None:
        """Give back the memory of a model that never joined those in memory."""
        model, self._model = self._model, None
        if model is not None:
            model.close("removed")
        del model
        give_back()

    def close(self, reason: Reason) -> None:
        with self._closing:
            model, self._model = self._model, None
        if model is None:
            return
        was_resident, began = self._host.leaving(self), time.perf_counter()
        try:
            model.close(reason)
        finally:
            del model
            give_back()
            self._host.closed_in(time.perf_counter() - began)
            if self._host.leaving(self) or was_resident:  # it may have loaded itself anew until it was closed
                self._host.freed(self, reason)
