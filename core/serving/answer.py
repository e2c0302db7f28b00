"""What comes out of a queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..contracts import Prediction
from ..residency.versions import Version


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
