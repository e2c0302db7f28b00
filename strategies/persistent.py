"""Load everything before the first request, and keep it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pluggy

from ._pool import Pool

if TYPE_CHECKING:
    from core.contracts import Explanation, Load, Model

log = logging.getLogger("residency")


class Persistent:
    """Keeps every model in memory from before the first request until the server ends.

    A model that fails to load keeps none of the others from being served; it is tried again when it is
    asked for. When all fail, the server does not start.
    """

    name = "persistent"
    shares = True

    def __init__(self, load: Load) -> None:
        self._model_ids = load.model_ids
        self._pool = Pool(load)

    def start(self) -> None:
        failures = []
        for model_id in self._model_ids:
            try:
                with self.acquire(model_id):
                    pass
            except Exception as error:
                failures.append(error)
                log.warning("%s", error)
        if len(failures) == len(self._model_ids):
            raise failures[0]

    def acquire(self, model_id: str) -> AbstractContextManager[Model]:
        return self._pool.lease(model_id)

    def preload(self, model_id: str) -> None:
        self._pool.preload(model_id)

    def evict(self, model_id: str) -> bool:
        return self._pool.free(model_id, "manual")

    def explain(self, model_id: str) -> Explanation:
        return self._pool.explain(model_id)

    def close(self) -> None:
        self._pool.close()


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Persistent]]:
    return [Persistent]
