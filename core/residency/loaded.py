"""A loaded model, with the record of its load. It can be replaced by another version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from ..contracts import Model
from ..errors import CannotDo
from ..system.heap import trim_heap
from ..tasks.classify import CLASSIFY
from .versions import Version

if TYPE_CHECKING:
    from ..loaders.run.process import EngineProcess

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


class Results(list[Any]):
    """What a model has answered, and the version that answered."""

    def __init__(self, results: Iterable[Any], version: Version) -> None:
        super().__init__(results)
        self.version = version


class LoadedModel:
    """A model in memory. It is closed once."""

    def __init__(self, model_id: str, model: Model | EngineProcess, version: Version, record: LoadRecord) -> None:
        """`model` is an engine if the version is one."""
        self.model_id = model_id
        self.predict_lock = Lock()  # held while the model computes, and while it is replaced
        self._changing = Lock()
        self._set(model, version, record)

    def _set(self, model: Model | EngineProcess, version: Version, record: LoadRecord) -> None:
        self._model: Model | EngineProcess | None = model
        self.engine = None if version.engine is None else cast("EngineProcess", model)
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

    def predict(self, items: Sequence[Any], task: str = CLASSIFY.name) -> Results:
        """One result of the task for each item.

        Raises CannotDo if the model does not have the task, RuntimeError after `close`, and what the model raises.
        """
        with self.predict_lock:
            if (model := self._model) is None:
                raise RuntimeError(CLOSED)
            if self.engine is not None:
                raise CannotDo(f"Model '{self.model_id}' is an engine, to which requests are forwarded.")
            return Results(_answer(cast("Model", model), items, task), self.version)

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

    def measure(self) -> int:
        """Bytes of the model now. An engine's memory is measured anew, which takes milliseconds."""
        engine = self.engine
        return self.nbytes if engine is None or self._model is None else engine.measure()

    def has_ended(self) -> bool:
        """Whether an engine has ended by itself. Other models say so when they are used."""
        return self.engine is not None and self.engine.has_ended()

    def begin_close(self) -> None:
        """Ask an engine to end, and return at once, so that several can end at a time. Call `close` afterwards."""
        if self.engine is not None and self._model is not None:
            self.engine.begin_close()

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


def _answer(model: Model, items: Sequence[Any], task: str) -> Sequence[Any]:
    own = getattr(model, "task", CLASSIFY.name)
    if task == own:
        return model.predict(items)
    if (other := getattr(model, "also", {}).get(task)) is not None:
        results: Sequence[Any] = other(items)
        return results
    raise CannotDo(f"This model has the task '{own}', not '{task}'.")
