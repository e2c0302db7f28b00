"""Functions of numbers that several tasks share: scores of logits, and how far two numbers are apart."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Function = Literal["softmax", "sigmoid", "none"]
Floats = NDArray[np.float32]
TOLERANCE = 2e-2  # by which scores may differ: bfloat16 rounds


def numbers_apart(one: float, other: float) -> float:
    """How far two numbers are apart, above 1 by more than rounding explains: relative to those above 1."""
    return abs(one - other) / max(1.0, abs(one), abs(other)) / TOLERANCE


def apply(function: Function, logits: Floats) -> Floats:
    """The scores, in float32. `logits` is an array of (texts, labels); softmax is over the labels of a text."""
    if function == "none":
        return logits
    if function == "sigmoid":
        with np.errstate(over="ignore"):  # for a logit far below 0, whose sigmoid is 0
            return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
