"""The one table of paths: what a model answers by its task, and what is forwarded to an engine."""

from __future__ import annotations

from collections.abc import Mapping

from ...tasks.task import Task
from .dialect import Path
from .hugging_face import EMBED_TEXTS, PIPELINES, EmbedRequest, PipelineAnswer, PipelineRequest, Vectors
from .openai import EMBEDDINGS, EmbeddingsAnswer, EmbeddingsRequest
from .rerank import RERANK, RerankedDocuments, RerankedTexts, RerankRequest
from .rows import path_of

RERANKED = RerankedDocuments | RerankedTexts
OWN = (
    Path("/v1/embeddings", "OpenAI's embeddings", EmbeddingsRequest, EmbeddingsAnswer, (EMBEDDINGS,)),
    Path("/v1/rerank", "Order texts by a query", RerankRequest, RERANKED, (RERANK,)),
    Path("/v2/rerank", "Order texts by a query", RerankRequest, RERANKED, (RERANK,)),
    Path("/rerank", "Order texts by a query", RerankRequest, RERANKED, (RERANK,)),
    Path("/embed", "Embeddings of text-embeddings-inference", EmbedRequest, Vectors, (EMBED_TEXTS,)),
)
PIPELINE = Path(
    "/models/{model_id}",
    "Run a pipeline, as Hugging Face's clients ask for it",
    PipelineRequest,
    PipelineAnswer,
    PIPELINES,
    forwarded="/",
)
"""At an engine that is a server of Hugging Face, the root takes such bodies."""
ENGINES_ONLY = (
    *(
        Path(f"{version}{path}")
        for version in ("/v1", "")
        for path in (
            "/chat/completions",
            "/completions",
            "/responses",
            "/messages",
            "/messages/count_tokens",
            "/reranking",
            "/score",
            "/audio/speech",
            "/audio/transcriptions",
            "/audio/translations",
            "/images/generations",
            "/images/edits",
            "/images/variations",
        )
    ),
    Path("/v1/audio/voices", methods=("GET", "POST")),
    Path("/v1/decisions"),
    Path("/v1/systemone"),
    Path("/embeddings"),
    Path("/embedding"),
    Path("/completion"),
    Path("/infill"),
    Path("/tokenize"),
    Path("/detokenize"),
    Path("/apply-template"),
    Path("/pooling"),
    Path("/classify"),
    Path("/sdapi/v1/txt2img"),
    Path("/sdapi/v1/img2img"),
    Path("/sdapi/v1/loras", methods=("GET",)),
)
UPSTREAM = "/upstream/{path:path}"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def paths_of(tasks: Mapping[str, Task]) -> tuple[Path, ...]:
    """The whole table but for paths that hold the name of a model."""
    return (*OWN, *(path_of(task) for task in tasks.values()), *ENGINES_ONLY)
