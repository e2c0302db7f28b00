"""The labels of a sequence classifier, and how its logits become scores. Both are read from config.json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts import Prediction
from ..errors import ModelReferenceError, NoFiniteScore
from .functions import Floats, Function, apply

DEFAULT_LABELS = 2  # if a config has neither labels nor their number (transformers' PreTrainedConfig)


@dataclass(frozen=True)
class Head:
    """The labels of a classifier, one for each logit, and the function that turns logits into scores."""

    labels: tuple[str, ...]
    function: Function

    def predictions(self, logits: Floats) -> list[Prediction]:
        """The prediction for each row of `logits`, an array of (texts, labels).

        Raises NoFiniteScore for a score that is infinite or not a number.
        """
        return to_predictions(self.labels, self.scores(logits))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ModelReferenceError unless `shape`, of the logits of one text, has one logit for each label."""
        if shape != (len(self.labels),):
            raise ModelReferenceError(
                f"the model gives {' × '.join(map(str, shape)) or 'no'} logits for a text, but config.json has"
                f" {len(self.labels)} labels; correct id2label there"
            )

    def scores(self, logits: Floats) -> Floats:
        """The score of each label, in float32: as `transformers.pipeline("text-classification")` computes it."""
        return apply(self.function, logits)


def to_predictions(labels: Sequence[str], scores: Floats) -> list[Prediction]:
    """The prediction for each row of `scores`, an array of (texts, labels). Raises NoFiniteScore."""
    if not np.isfinite(scores).all():
        raise NoFiniteScore("The model's score for a text is not a finite number.")
    best = scores.argmax(axis=1)
    return [
        Prediction(labels[index], row[index], list(zip(labels, row, strict=True)))
        for index, row in zip(best.tolist(), scores.tolist(), strict=True)
    ]


def parse_head(config: Mapping[str, Any], path: Path) -> Head:
    """The head that `config`, the contents of `path`, describes. Raises ModelReferenceError."""
    labels = _labels(config, path)
    problem = config.get("problem_type")
    if problem == "regression":
        return Head(labels, "none")
    if problem == "single_label_classification" and len(labels) == 1:
        raise ModelReferenceError(f"{path}: problem_type is {problem}, which needs two labels, but there is one.")
    if problem == "multi_label_classification" or len(labels) == 1:
        return Head(labels, "sigmoid")
    return Head(labels, "softmax")


def _labels(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """One label for each logit: LABEL_0, LABEL_1, … if config.json names none."""
    label_map, count = config.get("id2label"), config.get("num_labels", config.get("_num_labels"))
    if label_map is None:
        count = DEFAULT_LABELS if count is None else count
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ModelReferenceError(f"{path}: num_labels is {count!r}; it must be a whole number of at least 1.")
        return tuple(_default_label(index) for index in range(count))
    if not isinstance(label_map, dict) or not label_map:
        raise ModelReferenceError(f'{path}: id2label must map each index to a label, such as {{"0": "NEGATIVE"}}.')
    indices = {_index(key, path): label for key, label in label_map.items()}
    missing = next((index for index in range(len(indices)) if index not in indices), None)
    if missing is not None or len(indices) < len(label_map):
        raise ModelReferenceError(
            f"{path}: id2label names {len(label_map)} labels, but none for the index {missing}; its keys must be"
            f" 0 to {len(label_map) - 1}."
        )
    return tuple(_label(index, indices[index], path) for index in range(len(indices)))


def _index(key: str, path: Path) -> int:
    try:
        return int(key)
    except ValueError:
        raise ModelReferenceError(f"{path}: id2label has the key {key[:60]!r}; keys must be whole numbers.") from None


def _label(index: int, label: Any, path: Path) -> str:
    """A label as text, whatever type config.json gives it."""
    if label is None:
        return _default_label(index)
    if isinstance(label, list | dict):
        raise ModelReferenceError(f"{path}: the label of index {index} is {json.dumps(label)[:60]}; it must be text.")
    # JSON can contain half of a surrogate pair, which cannot be encoded as UTF-8 in an answer.
    return str(label).encode("utf-8", "replace").decode()


def _default_label(index: int) -> str:
    return f"LABEL_{index}"
