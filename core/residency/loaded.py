"""A model that was loaded, with the record of its load; another version may take its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from ..contracts import Model, Prediction
from ..system.heap import give_back
from .versions import Version

CLOSED = "this model is closed; nobody may use it any more"


@dataclass(frozen=True)
class LoadRecord:
    """What a load took, and what it used, which after a fallback is not what was asked for."""

    seconds: float
    cpu_seconds: float
    loader: str
    dtype: str
    nbytes: int
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds."""


class Predictions(list[Prediction]):
    """What a model has answered, and its version."""

    def __init__(self, predictions: Iterable[Prediction], version: Version) -> None:
        super().__init__(predictions)
        self.version = version


class LoadedModel:
    """A model in memory: closed once, and never while it computes under `turn`."""

    def __init__(self, model_id: str, model: Model, version: Version, record: LoadRecord) -> None:
        self.model_id = model_id
        self.turn = Lock()  # held while it computes, and while another version takes its place
        self._changing = Lock()
        self._take(model, version, record)

    def _take(self, model: Model, version: Version, record: LoadRecord) -> None:
        self._model: Model | None = model
        self.version = version
        self.record = record
        self.own_process: bool = getattr(model, "own_process", False)

    @property
    def nbytes(self) -> int:
        """As measured now; of one that is closed, or cannot tell, what its load took."""
        with suppress(Exception):
            if (model := self._model) is not None:
                return model.nbytes
        return self.record.nbytes

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Raises RuntimeError after `close`, and what the loader's model raises."""
        with self.turn:
            if (model := self._model) is None:
                raise RuntimeError(CLOSED)
            return Predictions(model.predict(texts), self.version)

    def replace(self, fresh: LoadedModel) -> LoadedModel | None:
        """Answer as `fresh` from now on, and return the older one, which is to be closed; for whoever has the turn.

        None for a model that was closed meanwhile, and stays so.
        """
        with self._changing:
            if self._model is None or fresh._model is None:
                return None
            older = LoadedModel(self.model_id, self._model, self.version, self.record)
            self._take(fresh._model, fresh.version, fresh.record)
            fresh._model = None
            return older

    def close(self) -> bool:
        """Give the memory back; whether it was there. Raises what the loader's model raises."""
        with self._changing:
            model, self._model = self._model, None
        if model is None:
            return False
        try:
            model.close()
        finally:
            del model
            give_back()
        return True
