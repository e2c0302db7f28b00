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

    >>> import contextlib, pluggy
    >>> class Twice:
    ...     "Loads every model twice, to be sure."
    ...     name = "twice"
    ...     def __init__(self, load):
    ...         self.load = load
    ...     @contextlib.contextmanager
    ...     def acquire(self, model_id):
    ...         self.load(model_id).close("request")
    ...         model = self.load(model_id)
    ...         yield model
    ...         model.close("request")
    >>> @pluggy.HookimplMarker("residency")
    ... def register_strategies():
    ...     return [Twice]
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
    ...     def close(self, reason):
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
    """Observe a load that has just succeeded, `asked` for by the strategy or made necessary by a `crash`.

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
