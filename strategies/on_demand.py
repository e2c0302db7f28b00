"""Load for each request, and free after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from core.contracts import Load, Model


class OnDemand:
    """Loads the model for each request and frees it after the answer."""

    name = "on-demand"
    shares = False  # one load for each request, whatever the batching: its cost is what one wants to see

    def __init__(self, load: Load) -> None:
        self._load = load

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        model = self._load(model_id)
        try:
            yield model
        finally:
            model.close("request")


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[OnDemand]]:
    return [OnDemand]
