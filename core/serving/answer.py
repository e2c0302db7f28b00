"""What comes out of a lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..contracts import Prediction
from .versions import Version


@dataclass(frozen=True)
class Answer:
    """Predictions, and the seconds spent waiting (`queue`), loading and computing (`inference`)."""

    predictions: list[Prediction]
    cold: bool
    queue: float
    load: float
    inference: float
    phases: Mapping[str, float]
    batch: int = 1  # texts that were computed together
    version: Version | None = None
    """Of the model; None where a strategy lends out something else than what it has loaded."""
