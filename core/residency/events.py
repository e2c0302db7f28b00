"""What happens to the models in memory, for whoever subscribes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..contracts import LoadReason, UnloadReason


class Loaded(NamedTuple):
    """A model has come into memory."""

    strategy: str
    loader: str
    model_id: str
    nbytes: int
    seconds: float  # that the load took
    phases: Mapping[str, float]
    reason: LoadReason
    at: float  # a moment of the host's clock


class Unloaded(NamedTuple):
    """A model has left memory."""

    strategy: str
    loader: str
    model_id: str
    nbytes: int
    seconds: float  # that it was in memory
    reason: UnloadReason
    at: float  # a moment of the host's clock


Change = Loaded | Unloaded
