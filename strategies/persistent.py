"""Load everything before the first request, and keep it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from core.contracts import Load, Model


class Persistent:
    """Keeps every model in memory from before the first request until the server ends."""

    name = "persistent"
    shares = True

    def __init__(self, load: Load) -> None:
        self._load = load
        self._models: dict[str, Model] = {}

    def start(self) -> None:
        for model_id in self._load.model_ids:
            self._models[model_id] = self._load(model_id)

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        yield self._models[model_id]

    def close(self) -> None:
        while self._models:
            self._models.popitem()[1].close("shutdown")


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Persistent]]:
    return [Persistent]
