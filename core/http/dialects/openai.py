"""OpenAI's embeddings and list of models."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...tasks.embed import EMBED
from ..schemas import accept_whole_float
from .dialect import Answered, Asked, Dialect, Texts, as_list, to_array, to_list

NO_TEXTS = (
    "must be texts, not token ids, which mean something else to each model; in langchain, set"
    " OpenAIEmbeddings(check_embedding_ctx_length=False)"
)


def _refuse_token_ids(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int | list) and not isinstance(first, bool):
        raise ValueError(NO_TEXTS)
    return value


class EmbeddingsRequest(Asked):
    """Texts to embed."""

    input: Annotated[str | Texts, BeforeValidator(_refuse_token_ids)]
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: of float32, in little-endian order")
    ] = "float"
    dimensions: Annotated[
        Annotated[int, Field(ge=1, description="that of the model, or left out")] | None,
        BeforeValidator(accept_whole_float),
    ] = None


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens, estimated from the characters."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class ListedModel(BaseModel):
    """A model id, or an alias."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="when the server began, in seconds since the epoch")]
    owned_by: Literal["residency"] = "residency"
    tasks: Annotated[list[str], Field(description="the main one first; empty for an engine, or until they are known")]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ListedModel]


def _write(asked: EmbeddingsRequest, answered: Answered) -> EmbeddingsAnswer:
    size = len(answered.results[0])
    if asked.dimensions not in (None, size):
        wrong = {"type": "value_error", "loc": ("dimensions",), "msg": f"must be {size}, or left out"}
        raise RequestValidationError([wrong])
    encode = _to_base64 if asked.encoding_format == "base64" else to_list
    new = Embedding.model_construct
    return EmbeddingsAnswer.model_construct(
        object="list",
        model=answered.model,
        data=[
            new(object="embedding", index=index, embedding=encode(vector))
            for index, vector in enumerate(answered.results)
        ],
        usage=Usage(prompt_tokens=answered.tokens, total_tokens=answered.tokens),
    )


def _to_base64(vector: Any) -> str:
    return base64.b64encode(to_array(vector).tobytes()).decode()


EMBEDDINGS = Dialect[EmbeddingsRequest](EMBED.name, lambda asked: as_list(asked.input), _write)
