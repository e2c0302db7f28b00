"""The hooks of plugins. A plugin is a module with functions that are marked by `residency`'s `hookimpl`.

The tests run each example below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

PROJECT = "residency"
hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def register_strategies() -> Iterable[type[Any]]:
    """Return strategies: classes with the members of `core.contracts.LoadingStrategy`.

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
    """Return loaders: classes with the members of `core.contracts.Loader`.

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
def register_tasks() -> Iterable[Any]:
    """Return rows for the table of tasks: objects with the members of `core.tasks.task.Task`.

    A model has such a task if its `task` is the row's name.

    >>> import types, pluggy
    >>> def check(result):
    ...     if not isinstance(result, int):
    ...         raise ValueError(f"{result!r}, which is no whole number")
    >>> def apart(one, other):
    ...     return 0.0 if one == other else 2.0
    >>> count = types.SimpleNamespace(
    ...     name="count", item=str, result=int, length=len, apart=apart, from_text=str, check=check
    ... )
    >>> @pluggy.HookimplMarker("residency")
    ... def register_tasks():
    ...     return [count]
    """
    return ()


@hookspec
def after_model_load(
    strategy: str, loader: str, model_id: str, nbytes: int, seconds: float, phases: Mapping[str, float], reason: str
) -> None:
    """Observe a model that was just loaded, in `seconds`; `reason` is a `core.contracts.LoadReason`.

    `phases` has the seconds of the parts of the load that the loader reports. An error of this hook is logged, and does
    not affect the server.

    >>> import pluggy
    >>> loads = []
    >>> @pluggy.HookimplMarker("residency")
    ... def after_model_load(model_id, seconds):
    ...     loads.append((model_id, seconds))
    """


@hookspec
def after_model_unload(strategy: str, loader: str, model_id: str, nbytes: int, seconds: float, reason: str) -> None:
    """Observe a model that was just unloaded, `seconds` after it was loaded; `reason` is an `UnloadReason`.

    An error of this hook is logged, and does not affect the server.

    >>> import pluggy
    >>> evicted = []
    >>> @pluggy.HookimplMarker("residency")
    ... def after_model_unload(model_id, reason):
    ...     if reason in ("capacity", "budget"):
    ...         evicted.append(model_id)
    """
