"""The wire format: requests and answers in JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

REQUEST_EXAMPLES: dict[str, Any] = {
    "one text": {"value": {"text": "I absolutely love this product."}},
    "several texts": {"value": {"texts": ["The room was spotless.", "Never again."]}},
    "a named model": {"value": {"text": "The update broke everything.", "model": "embedded"}},
}
ANSWER_EXAMPLE: dict[str, Any] = {  # without its strategy
    "model": "embedded",
    "predictions": [{"label": "POSITIVE", "score": 0.998}],
    "cold": False,
}


State = Literal["resident", "loading", "absent"]


def accept_whole_float(value: Any) -> Any:
    """2 for 2.0, which is an integer to JSON Schema, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class FirstError(FailFast):
    """Report only the first wrong value of a list. pydantic's own class cannot be used in a union."""

    __hash__ = object.__hash__


# How many labels of each text to return; null for all.
TopK = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(accept_whole_float)]


class PredictRequest(BaseModel):
    """One text, or several, for one model."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["texts"]}]}
    )

    text: Annotated[str, Field(default_factory=str)]
    texts: Annotated[list[str], FailFast(), Field(default_factory=list, min_length=1)]
    model: (
        Annotated[
            str,
            Field(
                description="a model id; required unless the header X-Model names one, or the server has only one model"
                " or a default"
            ),
        ]
        | None
    ) = None
    top_k: Annotated[
        TopK, Field(description="how many labels of each text to return, besides the best one; null: all")
    ] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if len({"text", "texts"} & self.model_fields_set) != 1:
            raise ValueError("give either 'text' or 'texts'")
        return self

    def all_texts(self) -> list[str]:
        return self.texts or [self.text]

    @property
    def top_labels(self) -> int | None:
        """How many labels of each text to return in `top`: 0 if `top_k` was not given, None for all."""
        return self.top_k if "top_k" in self.model_fields_set else 0


class LabelScore(BaseModel):
    """A label of a text."""

    label: str
    score: Annotated[
        float, Field(allow_inf_nan=False, description="a probability (0 to 1), or any finite number for a regression")
    ]


class TextAnswer(LabelScore):
    """The label of a text that has the highest score."""

    top: Annotated[list[LabelScore] | None, Field(description="with `top_k`: that many labels, the best first")] = None


class PredictAnswer(BaseModel):
    """Predictions in the order of the texts."""

    strategy: str
    model: str
    predictions: list[TextAnswer]
    cold: Annotated[bool, Field(description="whether this request waited for a load")]


class UsedLoader(BaseModel):
    """What the most recent load of a model used; after a fallback that differs from what was configured."""

    model: str
    loader: str
    dtype: Annotated[str, Field(description="empty if the loader does not report it")]
    nbytes: int


class ResidentModel(BaseModel):
    """A model that is in memory."""

    model: str
    bytes: Annotated[int, Field(description="of parameters and buffers")]
    since: Annotated[float, Field(description="seconds since the epoch")]


class StrategyStatus(BaseModel):
    """A mounted strategy and what it has done since the process began."""

    name: str
    route: str
    loader: str
    options: dict[str, Any]
    loads: int
    unloads: int
    unload_s: Annotated[float, Field(description="seconds of all unloads together")]
    crashes: Annotated[int, Field(description="loads after the process of a model had crashed")]
    used: list[UsedLoader]
    resident: list[ResidentModel]
    batching: Annotated[dict[str, Any] | None, Field(description="the settings of batching; null: none")]
    least_keep: Annotated[
        float | None,
        Field(description="the shortest time after which an idle model was freed, in seconds; null: at once, or never"),
    ]
    faults: Annotated[dict[str, int], Field(description="errors and wrong answers of the strategy, by its member")]
    node: Annotated[str | None, Field(description="of a cluster; a single server has no such key")] = None


class StrategiesAnswer(BaseModel):
    strategies: list[StrategyStatus]
    checked: Annotated[
        bool, Field(description="whether all models that fit have been probed; of a cluster, by each node")
    ] = True


class ManualChange(BaseModel):
    """A model after it was loaded or unloaded manually."""

    model: str
    strategy: str
    state: State


class ManualRequest(BaseModel):
    """The strategy under which to load or unload a model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    strategy: str


class Latencies(BaseModel):
    """Latencies of recent answers in milliseconds; null if there are none."""

    count: int
    p50: float | None
    p95: float | None


class HistoryEvent(BaseModel):
    """A load that took `seconds`, or an unload after `seconds` in memory."""

    event: Literal["load", "unload"]
    reason: str
    at: Annotated[float, Field(description="seconds since the epoch")]
    seconds: float


class ModelVersion(BaseModel):
    """The digest of a checkpoint, null until it is computed, and its commit, if it is from the hub."""

    sha256: str | None
    revision: str | None


class ModelResidency(BaseModel):
    """One model under one strategy. Times are seconds since the epoch; what is unknown is null."""

    model: str
    engine: Annotated[bool, Field(description="whether it is an engine, to which requests are forwarded")]
    tasks: Annotated[list[str] | None, Field(description="the main one first; none for an engine; null: not read yet")]
    state: State
    bytes: int | None
    since: float | None
    last_use: float | None
    expires: float | None
    in_use: int | None
    failure: Annotated[str | None, Field(description="why its most recent load failed")]
    version: ModelVersion | None
    waiting: Annotated[int, Field(description="requests that hold a queue slot")]
    next_out: Annotated[bool, Field(description="whether it would be evicted next")]
    why: str
    latency_ms: dict[Literal["warm", "cold"], Latencies]
    history: Annotated[list[HistoryEvent], Field(description="the newest first")]


class StrategyResidency(BaseModel):
    """The models of one strategy, and its memory_budget."""

    name: str
    route: str
    loader: str
    options: dict[str, Any]
    budget_bytes: int | None
    resident_bytes: int
    models: list[ModelResidency]
    node: Annotated[str | None, Field(description="of a cluster; a single server has no such key")] = None


class Memory(BaseModel):
    """Memory of the server's process and its children; null if the system does not report it."""

    pss_bytes: int | None
    private_bytes: int | None


class Kept(BaseModel):
    """Objects that loads share, and that the process keeps while no model uses them; the most recently used stay."""

    kept: int
    most: int
    made: Annotated[
        int, Field(description="since the start; if this is far above `kept`, more are in use than can be kept")
    ]


class ResidencyAnswer(BaseModel):
    memory: Memory
    kept: Annotated[dict[str, Kept], Field(description="by what it is, such as tokenizers")]
    strategies: list[StrategyResidency]


class Health(BaseModel):
    status: str


class Unavailable(BaseModel):
    """A model whose requests get 503, and why; `strategy` is null if that is so under each."""

    model: str
    strategy: str | None
    reason: str


class Readiness(Health):
    checked: Annotated[
        bool, Field(description="whether all models that fit have been probed, also those never requested")
    ]
    unavailable: list[Unavailable]


class Problem(BaseModel):
    """An error, as in RFC 9457 (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str

    @classmethod
    def of(cls, status: int, detail: str) -> Problem:
        """The error with an HTTP status and a sentence."""
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail)


class ProtocolProblem(Problem):
    """A problem for clients of the Open Inference Protocol, which read `error`."""

    error: Annotated[str, Field(description="the detail")]

    @classmethod
    def of(cls, status: int, detail: str) -> ProtocolProblem:
        """The error with an HTTP status and a sentence."""
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail, error=detail)


class MessageProblem(ProtocolProblem):
    """A problem for clients that read `error` as a text, or `message`."""

    message: Annotated[str, Field(description="the detail")]

    @classmethod
    def of(cls, status: int, detail: str) -> MessageProblem:
        """The error with an HTTP status and a sentence."""
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail, error=detail, message=detail)


class ErrorOfOpenAI(BaseModel):
    """An error as OpenAI's clients read it."""

    message: str
    type: str
    code: int

    @classmethod
    def of(cls, status: int, detail: str) -> ErrorOfOpenAI:
        """The error with an HTTP status and a sentence."""
        kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
        return cls(message=detail, type=kind, code=status)


class ProblemOfOpenAI(Problem):
    """A problem for clients of OpenAI's API."""

    error: ErrorOfOpenAI

    @classmethod
    def of(cls, status: int, detail: str) -> ProblemOfOpenAI:
        """The error with an HTTP status and a sentence."""
        error = ErrorOfOpenAI.of(status, detail)
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail, error=error)
