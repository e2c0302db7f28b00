"""The wire format: what a request and an answer look like in JSON."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

REQUEST_EXAMPLES: dict[str, Any] = {
    "one text": {"value": {"text": "I absolutely love this product."}},
    "several texts": {"value": {"texts": ["The room was spotless.", "Never again."]}},
    "a named model": {"value": {"text": "The update broke everything.", "model": "embedded"}},
}
ANSWER_EXAMPLE: dict[str, Any] = {
    "strategy": "persistent",
    "model": "embedded",
    "predictions": [{"label": "POSITIVE", "score": 0.998}],
    "cold": False,
}


class PredictRequest(BaseModel):
    """One text, or several, for one model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    model: Annotated[str, Field(description="a model id; the first model when left out")] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either 'text' or 'texts'")
        return self

    def all_texts(self) -> list[str]:
        return self.texts if self.texts is not None else [self.text or ""]


class LabelScore(BaseModel):
    """The most probable label of one text."""

    label: str
    score: Annotated[float, Field(ge=0, le=1, description="the label's probability")]


class PredictAnswer(BaseModel):
    """Predictions in the order of the texts."""

    model_config = ConfigDict(json_schema_extra={"example": ANSWER_EXAMPLE})

    strategy: str
    model: str
    predictions: list[LabelScore]
    cold: Annotated[bool, Field(description="whether this request waited for a load")]


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
    crashes: Annotated[int, Field(description="loads that a model's crashed process made necessary")]
    resident: list[ResidentModel]


class StrategiesAnswer(BaseModel):
    strategies: list[StrategyStatus]


class Health(BaseModel):
    status: str


class Problem(BaseModel):
    """An error, as in RFC 9457 (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class ProtocolProblem(Problem):
    """The same, for clients of the Open Inference Protocol."""

    error: Annotated[str, Field(description="the detail")]
