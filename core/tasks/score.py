"""The task `score`: a pair of texts, and one number, such as how well the second text answers the first."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelReferenceError, NoFiniteScore
from .functions import Floats, Function, apply, numbers_apart
from .labels import parse_head
from .task import Pair, Task, text_length

QUESTION = "Is it good?"  # the first text of a pair that is made from one text
ENTAILMENT = {"entailment", "entails", "entail", "entailed"}
OPPOSITE = {"contradiction", "contradicts", "contradict", "notentailment", "nonentailment", "noentailment"}
NEUTRAL = {"neutral"}
# The functions that sentence-transformers names in a config, by the end of their name.
ACTIVATIONS: dict[str, Function] = {"Sigmoid": "sigmoid", "Identity": "none"}


@dataclass(frozen=True)
class Scoring:
    """How logits become the score of a pair."""

    columns: tuple[int, ...]
    """The logits that count. The score is that of the last."""
    function: Function

    def results(self, logits: Floats) -> list[float]:
        """The score for each row of `logits`, an array of (pairs, labels).

        Raises NoFiniteScore for a score that is infinite or not a number.
        """
        scores: Floats = apply(self.function, logits[:, list(self.columns)])[:, -1]
        if not np.isfinite(scores).all():
            raise NoFiniteScore("The model's score for a pair of texts is not a finite number.")
        found: list[float] = scores.tolist()
        return found


def parse_scoring(config: Mapping[str, Any], path: Path) -> Scoring | None:
    """How the classifier that `config`, the contents of `path`, describes scores pairs; None if it does not.

    One label is the score, as in CrossEncoder of sentence-transformers: its sigmoid, unless the config names another
    function or says that the model is a regression. Of a classifier that was trained for natural language inference,
    the score is the probability of entailment against contradiction, as `transformers.pipeline("zero-shot-
    classification")` computes it for each label by itself (`multi_label`). The pipeline takes the first label for
    contradiction, or the last if the first is entailment; here the label with that name is taken.

    Another function than these means that the model does not score. Raises ModelReferenceError for labels that cannot
    be used.
    """
    head = parse_head(config, path)
    if len(head.labels) == 1:
        function = _activation(config, head.function)
        return None if function is None else Scoring((0,), function)
    return _inference(head.labels)


def _inference(labels: Sequence[str]) -> Scoring | None:
    """The scoring by entailment; None unless the labels are those of natural language inference."""
    words = [re.sub(r"[\W_]", "", label).lower() for label in labels]
    entailment = [index for index, word in enumerate(words) if word in ENTAILMENT]
    opposite = [index for index, word in enumerate(words) if word in OPPOSITE]
    if len(entailment) != 1 or len(opposite) != 1 or not set(words) <= ENTAILMENT | OPPOSITE | NEUTRAL:
        return None
    return Scoring((*opposite, *entailment), "softmax")


def _activation(config: Mapping[str, Any], default: Function) -> Function | None:
    """The function that the config names as sentence-transformers does; None if it is not known."""
    section = config.get("sentence_transformers")
    named = section.get("activation_fn") if isinstance(section, dict) else None
    named = named or config.get("sbert_ce_default_activation_function")
    return default if named is None else ACTIVATIONS.get(str(named).rpartition(".")[2])


def _is_of(config: Mapping[str, Any], directory: Path) -> bool:
    try:
        return parse_scoring(config, directory / "config.json") is not None
    except ModelReferenceError:  # loading the classifier tells it
        return False


def _leads(config: Mapping[str, Any], directory: Path) -> bool:
    return len(parse_head(config, directory / "config.json").labels) == 1


def _check(result: float) -> None:
    if isinstance(result, bool) or not isinstance(result, int | float) or not math.isfinite(result):
        raise ValueError(f"the score {result!r}, which is not a finite number")


def _from_text(text: str) -> Pair:
    return QUESTION, text


SCORE = Task(
    name="score",
    item=Pair,
    result=float,
    length=text_length,
    apart=numbers_apart,
    from_text=_from_text,
    check=_check,
    normalize=float,
    heads=("ForSequenceClassification",),
    is_of=_is_of,
    leads=_leads,
)
