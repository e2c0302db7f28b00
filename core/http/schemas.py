"""The wire format: what a request and an answer look like in JSON."""

from __future__ import annotations

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


def _whole(value: Any) -> Any:
    """2 of 2.0: to JSON Schema that is an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# How many labels of each text are told; null for all.
TopK = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_whole)]


class PredictRequest(BaseModel):
    """One text, or several, for one model."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["texts"]}]}
    )

    text: Annotated[str, Field(default_factory=str)]
    texts: Annotated[list[str], FailFast(), Field(default_factory=list, min_length=1)]
    model: Annotated[str, Field(description="a model id; needed unless there is one only, or a default")] | None = None
    top_k: Annotated[TopK, Field(description="tell so many labels of each text, too; null: all")] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if len({"text", "texts"} & self.model_fields_set) != 1:
            raise ValueError("give either 'text' or 'texts'")
        return self

    def all_texts(self) -> list[str]:
        return self.texts or [self.text]

    @property
    def labels(self) -> int | None:
        """How many labels of each text are told besides the best one: 0 when it was not asked for, None for all."""
        return self.top_k if "top_k" in self.model_fields_set else 0


class LabelScore(BaseModel):
    """A label of a text."""

    label: str
    score: Annotated[
        float, Field(allow_inf_nan=False, description="a probability (0 to 1), or any finite number of a regression")
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
    """What the latest load of a model used; after a fallback that is not what was configured."""

    model: str
    loader: str
    dtype: Annotated[str, Field(description="empty where the loader does not tell")]
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
    unload_s: Annotated[float, Field(description="seconds that all unloads took together")]
    crashes: Annotated[int, Field(description="loads that a model's crashed process made necessary")]
    used: list[UsedLoader]
    resident: list[ResidentModel]
    batching: Annotated[dict[str, Any] | None, Field(description="how those who wait are computed together; null: not")]
    least_keep: Annotated[
        float | None,
        Field(description="the fewest seconds after which a model was to be freed; null: at once, or never"),
    ]
    faults: Annotated[dict[str, int], Field(description="errors and wrong answers of the strategy, by its member")]


class StrategiesAnswer(BaseModel):
    strategies: list[StrategyStatus]


class Steered(BaseModel):
    """A model after it was loaded or unloaded by hand."""

    model: str
    strategy: str
    state: State


class SteerRequest(BaseModel):
    """Under which strategy to load or unload a model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    strategy: str


class Latencies(BaseModel):
    """Of the latest answers, in milliseconds; null where there are none."""

    count: int
    p50: float | None
    p95: float | None


class HistoryEvent(BaseModel):
    """A load that took `seconds`, or an unload after so many in memory."""

    event: Literal["load", "unload"]
    reason: str
    at: Annotated[float, Field(description="seconds since the epoch")]
    seconds: float


class ModelVersion(BaseModel):
    """A checkpoint's digest, null until it was read, and its commit, if it comes from the hub."""

    sha256: str | None
    revision: str | None


class ModelResidency(BaseModel):
    """One model under one strategy; what the strategy does not tell is null. Times are seconds since the epoch."""

    model: str
    state: State
    bytes: int | None
    since: float | None
    last_use: float | None
    expires: float | None
    in_use: int | None
    failure: Annotated[str | None, Field(description="why its latest load failed")]
    version: ModelVersion | None
    waiting: Annotated[int, Field(description="requests that are not answered yet")]
    next_out: Annotated[bool, Field(description="whether it would be evicted next")]
    why: str
    latency_ms: dict[Literal["warm", "cold"], Latencies]
    history: Annotated[list[HistoryEvent], Field(description="the newest first")]


class StrategyResidency(BaseModel):
    """What one strategy holds, and its memory_budget."""

    name: str
    route: str
    loader: str
    options: dict[str, Any]
    budget_bytes: int | None
    resident_bytes: int
    models: list[ModelResidency]


class Memory(BaseModel):
    """Of the server's process and its children; null where the system does not tell."""

    pss_bytes: int | None
    private_bytes: int | None


class Kept(BaseModel):
    """What loads have in common and the process keeps, whichever models are in memory; the latest used stay."""

    kept: int
    most: int
    made: Annotated[int, Field(description="since the start; far above `kept`: more are in use than may be kept")]


class ResidencyAnswer(BaseModel):
    memory: Memory
    kept: Annotated[dict[str, Kept], Field(description="by what it is, such as tokenizers")]
    strategies: list[StrategyResidency]


class Health(BaseModel):
    status: str


class Unavailable(BaseModel):
    """A model that is answered with 503, and why; `strategy` is null where that is so under each."""

    model: str
    strategy: str | None
    reason: str


class Readiness(Health):
    checked: Annotated[
        bool, Field(description="whether each model was probed that could be, also those never asked for")
    ]
    unavailable: list[Unavailable]


class Problem(BaseModel):
    """An error, as in RFC 9457 (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class ProtocolProblem(Problem):
    """The same, for clients of the Open Inference Protocol."""

    error: Annotated[str, Field(description="the detail")]
