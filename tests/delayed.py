"""A plugin for tests: `on-demand`, with a delay added to each request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pluggy

from strategies.on_demand import OnDemand

if TYPE_CHECKING:
    from core.contracts import Load, Model

SPUN = 3e-4  # seconds at the end of a delay that are not slept, because a sleep ends late


class Delayed(OnDemand):
    """Loads for every request, and answers later than it could."""

    name = "delayed"

    def __init__(self, load: Load, *, seconds: float = 0.0) -> None:
        super().__init__(load)
        self._seconds = seconds

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        end = time.perf_counter() + self._seconds
        with super().acquire(model_id) as model:
            time.sleep(max(0.0, self._seconds - SPUN))
            while time.perf_counter() < end:
                pass
            yield model


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Delayed]]:
    return [Delayed]
