"""The task `embed`: a text, and a vector for its meaning. Texts of similar meaning have vectors close together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from .functions import Floats
from .task import Task

TOLERANCE = 5e-3  # by which the cosine of two vectors may be less than 1: bfloat16 rounds
MODULES = "modules.json"  # of a folder of sentence-transformers
OTHER_HEADS = ("HeadModel", "HeadsModel")  # ends of names such as GPT2LMHeadModel


def to_vector(value: Any) -> Floats:
    """The numbers as a float32 array. Raises ValueError for what is no list of numbers."""
    try:
        vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(value)[:40]!r}, which is not a list of numbers") from error
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"an array of shape {vector.shape}, which is not a list of numbers")
    return vector


def _to_list(vector: Floats) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


Vector = Annotated[
    NDArray[np.float32],
    PlainValidator(to_vector),
    PlainSerializer(_to_list, return_type=list[float]),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 1}),
]
"""An array of float32. As JSON it is a list of numbers; as an array it costs a batch no conversion."""


def _apart(one: Floats, other: Floats) -> float:
    """How much their cosine is less than 1; infinite if they differ in length, or one of them alone is 0."""
    if one.shape != other.shape:
        return math.inf
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if not all(sizes):
        return math.inf if any(sizes) else 0.0
    return max(0.0, 1.0 - float(one @ other) / (sizes[0] * sizes[1])) / TOLERANCE


def _check(result: Floats) -> None:
    if not np.isfinite(to_vector(result)).all():
        raise ValueError("a vector with a number that is not finite")


def _is_of(config: Mapping[str, Any], directory: Path) -> bool:
    return not any(str(name).endswith(OTHER_HEADS) for name in config["architectures"])


EMBED = Task(
    name="embed",
    item=str,
    result=Vector,
    length=len,
    apart=_apart,
    from_text=str,
    check=_check,
    normalize=to_vector,
    heads=("Model",),
    is_of=_is_of,
)
