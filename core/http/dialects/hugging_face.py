"""Hugging Face's pipelines, as its InferenceClient asks for them, and its text-embeddings-inference's `/embed`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from ...tasks.classify import CLASSIFY
from ...tasks.embed import EMBED
from ...tasks.score import SCORE
from ..schemas import LabelScore, TopK
from .dialect import Answered, Asked, Body, Dialect, Texts, Unsupported, as_list, normalized, to_array, to_list

PLACE = "{}"  # of the label in a hypothesis
LEAST = 1e-7  # the distance from 0 and 1 of a probability whose logit is taken


def _check_template(value: Any) -> Any:
    if isinstance(value, str) and PLACE not in value:
        raise ValueError("must contain {}, which is replaced by each label")
    return value


class Parameters(BaseModel):
    """The parameters of a pipeline. Others are passed over. Texts over the model's limit are truncated."""

    model_config = ConfigDict(strict=True)

    top_k: Annotated[TopK, Field(description="of a classifier: how many labels of each text to return; null: all")] = (
        None
    )
    function_to_apply: Unsupported = None
    candidate_labels: (
        Annotated[Texts, Field(description="to choose from by an NLI model: zero-shot classification")] | None
    ) = None
    hypothesis_template: Annotated[
        str, BeforeValidator(_check_template), Field(json_schema_extra={"pattern": r"\{\}"})
    ] = "This example is {}."
    multi_label: Annotated[bool, Field(description="whether several labels may hold, so that scores do not add up")] = (
        False
    )
    normalize: Annotated[bool, Field(description="of an embedder: give all vectors the length 1")] | None = None
    prompt_name: Unsupported = None
    dimensions: Unsupported = None


class Sentences(BaseModel):
    """A sentence, and others to compare with it."""

    model_config = ConfigDict(strict=True)

    source_sentence: str
    sentences: Texts


class PipelineRequest(Body):
    """Inputs whose form, with the parameters and the task of the model, says which pipeline is asked for."""

    inputs: str | Texts | Sentences
    parameters: Parameters | None = None
    normalize: bool | None = None  # InferenceClient sends it here
    prompt_name: Unsupported = None
    dimensions: Unsupported = None


class EmbedRequest(Asked):
    """Texts to embed."""

    inputs: str | Texts
    normalize: Annotated[
        bool, Field(description="whether to give all vectors the length 1; if not, they are as the model's files say")
    ] = True
    prompt_name: Unsupported = None
    dimensions: Unsupported = None


class Labels(RootModel[list[list[LabelScore]]]):
    """Every label of each text, the best first."""


class Ranking(RootModel[list[LabelScore]]):
    """The candidate labels, the best first."""


class Vectors(RootModel[list[list[float]]]):
    """A vector for each text."""


class Similarities(RootModel[list[float]]):
    """The cosine of each sentence with the source sentence."""


PipelineAnswer = Labels | Ranking | Vectors | Similarities


def _texts(asked: PipelineRequest) -> list[str]:
    assert not isinstance(asked.inputs, Sentences)
    return as_list(asked.inputs)


def _is_classification(asked: PipelineRequest) -> bool:
    return not isinstance(asked.inputs, Sentences) and _labels(asked) is None


def _write_labels(asked: PipelineRequest, answered: Answered) -> Labels:
    most = asked.parameters.top_k if asked.parameters else None
    return Labels([_label_scores(prediction.ranked()[:most]) for prediction in answered.results])


def _label_scores(pairs: Sequence[tuple[str, float]]) -> list[LabelScore]:
    return [LabelScore(label=label, score=score) for label, score in pairs]


def _write_vectors(asked: PipelineRequest, answered: Answered) -> Vectors:
    wanted = asked.normalize or (asked.parameters and asked.parameters.normalize)
    return _vectors(answered, normalize=bool(wanted))


def _vectors(answered: Answered, *, normalize: bool) -> Vectors:
    write = normalized if normalize else to_list
    return Vectors.model_construct([write(vector) for vector in answered.results])


def _sentences(asked: PipelineRequest) -> list[str]:
    assert isinstance(asked.inputs, Sentences)
    return [asked.inputs.source_sentence, *asked.inputs.sentences]


def _write_similarities(asked: PipelineRequest, answered: Answered) -> Similarities:
    source, *others = [to_array(normalized(vector)) for vector in answered.results]
    return Similarities([float(np.dot(source, other)) for other in others])


def _labels(asked: PipelineRequest) -> list[str] | None:
    return asked.parameters.candidate_labels if asked.parameters else None


def _hypotheses(asked: PipelineRequest) -> list[tuple[str, str]]:
    """Each candidate label's pair of the text and a hypothesis."""
    assert isinstance(asked.inputs, str)
    assert asked.parameters is not None
    template = asked.parameters.hypothesis_template
    return [(asked.inputs, template.replace(PLACE, label)) for label in _labels(asked) or ()]


def _write_ranking(asked: PipelineRequest, answered: Answered) -> Ranking:
    """Unless several labels may hold, scores add up to 1: the softmax of the logits of entailment over contradiction.

    The pipeline of transformers leaves out the contradiction there, whose logit a score does not tell. As there, a
    label without others has its own probability.
    """
    scores = [float(score) for score in answered.results]
    if asked.parameters and not asked.parameters.multi_label and len(scores) > 1:
        bounded = np.clip(scores, LEAST, 1 - LEAST)
        odds = bounded / (1 - bounded)
        scores = [float(each) for each in odds / math.fsum(odds)]
    ranked = sorted(zip(_labels(asked) or (), scores, strict=True), key=lambda pair: pair[1], reverse=True)
    return Ranking(_label_scores(ranked))


PIPELINES = (
    Dialect[PipelineRequest](
        SCORE.name,
        _hypotheses,
        _write_ranking,
        fits=lambda asked: isinstance(asked.inputs, str) and _labels(asked) is not None,
    ),
    Dialect[PipelineRequest](CLASSIFY.name, _texts, _write_labels, fits=_is_classification),
    Dialect[PipelineRequest](EMBED.name, _texts, _write_vectors, fits=_is_classification),
    Dialect[PipelineRequest](
        EMBED.name, _sentences, _write_similarities, fits=lambda asked: isinstance(asked.inputs, Sentences)
    ),
)
EMBED_TEXTS = Dialect[EmbedRequest](
    EMBED.name,
    lambda asked: as_list(asked.inputs),
    lambda asked, answered: _vectors(answered, normalize=asked.normalize),
)
