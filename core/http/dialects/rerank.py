"""Reranking, in the two forms that clients send to the same paths: Cohere's `documents`, and TEI's `texts`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from ...serving.queue import request_id
from ...tasks.score import SCORE
from ..schemas import FirstError, accept_whole_float
from .dialect import Answered, Asked, Dialect, Texts


class Document(BaseModel):
    """A text. Other keys are passed over."""

    model_config = ConfigDict(strict=True)

    text: str


def _refuse_raw_scores(value: Any) -> Any:
    if value is True:
        raise ValueError("must be false or left out: scores are as the checkpoint's files say")
    return value


class RerankRequest(Asked):
    """A query, and either `documents` or `texts` to order by how well they answer it."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"oneOf": [{"required": ["documents"]}, {"required": ["texts"]}]}
    )

    query: str
    documents: Annotated[list[str | Document], FirstError(), Field(default_factory=list, min_length=1)]
    texts: Annotated[Texts, Field(default_factory=list)]
    top_n: Annotated[
        Annotated[int, Field(ge=1, description="how many of the best to return")] | None,
        BeforeValidator(accept_whole_float),
    ] = None
    return_documents: Annotated[bool, Field(description="with `documents`: whether to return their texts")] | None = (
        None
    )
    return_text: Annotated[bool, Field(description="with `texts`: whether to return them")] = False
    raw_scores: Annotated[bool, BeforeValidator(_refuse_raw_scores), Field(json_schema_extra={"const": False})] = False

    @model_validator(mode="after")
    def _one_of_both(self) -> RerankRequest:
        if len({"documents", "texts"} & self.model_fields_set) != 1:
            raise ValueError("give either 'documents' or 'texts'")
        return self

    def all_texts(self) -> list[str]:
        return self.texts or [each if isinstance(each, str) else each.text for each in self.documents]


class RankedDocument(BaseModel):
    index: Annotated[int, Field(description="of the document in the request")]
    relevance_score: float
    document: Document | None = None


class RankedText(BaseModel):
    index: Annotated[int, Field(description="of the text in the request")]
    score: float
    text: str | None = None


class RerankUsage(BaseModel):
    """Tokens, estimated from the characters."""

    total_tokens: int


class RerankedDocuments(BaseModel):
    """The answer to `documents`, the best first."""

    id: Annotated[str, Field(description="the request's, as in X-Request-ID")]
    model: str
    results: list[RankedDocument]
    usage: RerankUsage


class RerankedTexts(RootModel[list[RankedText]]):
    """The answer to `texts`, the best first."""


def _items(asked: RerankRequest) -> list[tuple[str, str]]:
    return [(asked.query, text) for text in asked.all_texts()]


def _write(asked: RerankRequest, answered: Answered) -> BaseModel:
    scores = [float(score) for score in answered.results]
    best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: asked.top_n]
    texts = asked.all_texts()
    if asked.texts:
        more = [{"text": texts[i]} if asked.return_text else {} for i in best]
        return RerankedTexts([RankedText(index=i, score=scores[i], **each) for i, each in zip(best, more, strict=True)])
    results = [RankedDocument(index=i, relevance_score=scores[i]) for i in best]
    if asked.return_documents:
        for result in results:
            result.document = Document(text=texts[result.index])
    usage = RerankUsage(total_tokens=answered.tokens)
    return RerankedDocuments(id=request_id.get(), model=answered.model, results=results, usage=usage)


RERANK = Dialect[RerankRequest](SCORE.name, _items, _write)
