"""What a plugin may provide. A plugin is a module whose functions carry `residency`'s `hookimpl`.

Each example below is run by the test suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

PROJECT = "residency"
hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def register_strategies() -> Iterable[type[Any]]:
    """Return loading strategies: classes of the shape of `core.contracts.LoadingStrategy`.

    >>> import math, pluggy
    >>> class Recycled:
    ...     "Frees a model after a number of uses, a remedy against leaks."
    ...     name = "recycled"
    ...     def __init__(self, *, uses: int = 100):
    ...         self.uses = uses
    ...     def keep(self, model, now):
    ...         return 0.0 if model.uses >= self.uses else math.inf
    >>> @pluggy.HookimplMarker("residency")
    ... def register_strategies():
    ...     return [Recycled]
    """
    return ()


@hookspec
def register_loaders() -> Iterable[type[Any]]:
    """Return loaders: classes of the shape of `core.contracts.Loader`.

    >>> import pluggy
    >>> class Optimist:
    ...     "Answers POSITIVE without reading the checkpoint."
    ...     name = "optimist"
    ...     nbytes = 0
    ...     def size(self, checkpoint):
    ...         return 0
    ...     def load(self, checkpoint):
    ...         return self
    ...     def predict(self, texts):
    ...         return [("POSITIVE", 1.0) for _ in texts]
    ...     def close(self):
    ...         pass
    >>> @pluggy.HookimplMarker("residency")
    ... def register_loaders():
    ...     return [Optimist]
    """
    return ()


@hookspec
def after_model_load(
    strategy: str, loader: str, model_id: str, nbytes: int, seconds: float, phases: Mapping[str, float], reason: str
) -> None:
    """Observe a load that has just succeeded; for what it was made, `core.contracts.LoadReason` says.

    `seconds` is the load's whole time, `phases` are the parts of it that the loader tells.

    A failure in here is logged and breaks nothing.

    >>> import pluggy
    >>> loads = []
    >>> @pluggy.HookimplMarker("residency")
    ... def after_model_load(model_id, seconds):
    ...     loads.append((model_id, seconds))
    """


@hookspec
def after_model_unload(strategy: str, loader: str, model_id: str, nbytes: int, seconds: float, reason: str) -> None:
    """Observe a model that has just been freed, `seconds` after it was loaded.

    >>> import pluggy
    >>> evicted = []
    >>> @pluggy.HookimplMarker("residency")
    ... def after_model_unload(model_id, reason):
    ...     if reason in ("capacity", "budget"):
    ...         evicted.append(model_id)
    """
