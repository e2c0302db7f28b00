"""Events about models in memory, for subscribers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..contracts import LoadReason, UnloadReason


class Loaded(NamedTuple):
    """A model was loaded."""

    strategy: str
    loader: str
    model_id: str
    nbytes: int
    seconds: float  # of the load
    phases: Mapping[str, float]
    reason: LoadReason
    at: float  # on the host's clock


class Unloaded(NamedTuple):
    """A model was unloaded."""

    strategy: str
    loader: str
    model_id: str
    nbytes: int
    seconds: float  # in memory
    reason: UnloadReason
    at: float  # on the host's clock


class TimeoutChanged(NamedTuple):
    """A model has become idle, and its strategy keeps it for another time than before."""

    strategy: str
    model_id: str
    seconds: float


Change = Loaded | Unloaded
