"""Load for each request, and free after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pluggy

from ._pool import Pool

if TYPE_CHECKING:
    from core.contracts import Load, Model


class OnDemand:
    """Loads the model for each request and frees it after the answer.

    With `share`, requests that overlap in time use one load, and the last of them frees it.
    """

    name = "on-demand"

    def __init__(self, load: Load, *, share: bool = False) -> None:
        self.shares = share  # off by default: the cost of each load is what one wants to see
        self._load = load
        self._pool = Pool(load) if share else None

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        if self._pool is not None:
            try:
                with self._pool.lease(model_id) as model:
                    yield model
            finally:
                self._pool.free(model_id, "request")
            return
        model = self._load(model_id)
        try:
            yield model
        finally:
            model.close("request")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[OnDemand]]:
    return [OnDemand]
