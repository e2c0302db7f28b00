"""The task `classify`: a text, or a pair of texts, and every label's score."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, WithJsonSchema

from ..contracts import Prediction
from .functions import numbers_apart
from .task import Task, Text, text_length

_SCORES = TypeAdapter(dict[str, float])


def to_prediction(value: Any) -> Prediction:
    """The prediction: `value` itself, or that of an object of scores. Raises ValueError for what is neither."""
    if isinstance(value, Prediction):
        return value
    if not (scores := _SCORES.validate_python(value, strict=True)):
        raise ValueError("an object without labels")
    return Prediction(*max(scores.items(), key=lambda pair: pair[1]), list(scores.items()))


def _to_scores(prediction: Prediction) -> dict[str, float]:
    return dict(prediction.scores)


Scores = Annotated[
    Prediction,
    PlainValidator(to_prediction),
    PlainSerializer(_to_scores, return_type=dict[str, float]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1}),
]
"""A prediction. As JSON it is an object of every label's score, in the order of the model's labels."""


def _apart(one: Prediction, other: Prediction) -> float:
    """The largest distance of scores; infinite if the labels differ."""
    if [label for label, _ in one.scores] != [label for label, _ in other.scores]:
        return math.inf
    return max(numbers_apart(a, b) for (_, a), (_, b) in zip(one.scores, other.scores, strict=True))


def _check(result: Prediction) -> None:
    label, score = result
    if not isinstance(label, str):
        raise ValueError(f"the label {label!r}, which is not text")
    if not math.isfinite(score):
        raise ValueError(f"the score {score!r}, which is not a finite number")


CLASSIFY = Task(
    name="classify",
    item=Text,
    result=Scores,
    length=text_length,
    apart=_apart,
    from_text=str,
    check=_check,
    normalize=Prediction.of,
    heads=("ForSequenceClassification",),
)
