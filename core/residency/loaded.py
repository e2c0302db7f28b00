"""A loaded model, with the record of its load. It can be replaced by another version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from ..contracts import Model, Prediction
from ..system.heap import trim_heap
from .versions import Version

CLOSED = "this model is closed"


@dataclass(frozen=True)
class LoadRecord:
    """What a load took, and what it used; after a fallback that differs from what was configured."""

    seconds: float
    cpu_seconds: float
    loader: str
    dtype: str
    nbytes: int
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the load by phase."""


class Predictions(list[Prediction]):
    """What a model has answered, and the version that answered."""

    def __init__(self, predictions: Iterable[Prediction], version: Version) -> None:
        super().__init__(predictions)
        self.version = version


class LoadedModel:
    """A model in memory. It is closed once."""

    def __init__(self, model_id: str, model: Model, version: Version, record: LoadRecord) -> None:
        self.model_id = model_id
        self.predict_lock = Lock()  # held while the model computes, and while it is replaced
        self._changing = Lock()
        self._set(model, version, record)

    def _set(self, model: Model, version: Version, record: LoadRecord) -> None:
        self._model: Model | None = model
        self.version = version
        self.record = record
        self.own_process: bool = getattr(model, "own_process", False)

    @property
    def nbytes(self) -> int:
        """Bytes of the model, as it reports them now; if it is closed or cannot, those of its load."""
        with suppress(Exception):
            if (model := self._model) is not None:
                return model.nbytes
        return self.record.nbytes

    def predict(self, texts: Sequence[str]) -> Predictions:
        """One prediction for each text. Raises RuntimeError after `close`, and what the loader's model raises."""
        with self.predict_lock:
            if (model := self._model) is None:
                raise RuntimeError(CLOSED)
            return Predictions(model.predict(texts), self.version)

    def replace(self, fresh: LoadedModel) -> LoadedModel | None:
        """Answer with `fresh` from now on, and return the older model, which the caller closes.

        The caller holds `predict_lock`. Returns None if the model is already closed.
        """
        with self._changing:
            if self._model is None or fresh._model is None:
                return None
            older = LoadedModel(self.model_id, self._model, self.version, self.record)
            self._set(fresh._model, fresh.version, fresh.record)
            fresh._model = None
            return older

    def close(self) -> bool:
        """Free the memory. Returns False if it was freed before. Raises what the loader's model raises."""
        with self._changing:
            model, self._model = self._model, None
        if model is None:
            return False
        try:
            model.close()
        finally:
            del model
            trim_heap()
        return True
