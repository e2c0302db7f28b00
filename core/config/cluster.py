"""The `cluster:` section of a server's settings: several nodes, and how requests are spread over them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from .choices import STRICT, Duration, Fraction, Size

MAX_NODES = 256


def _check_header(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not (secret.isascii() and secret.isprintable() and secret == secret.strip()):
        raise ValueError("must be printable ASCII characters, the first and the last no space, as a header carries it")
    return value


Count = Annotated[int, Field(ge=1, le=MAX_NODES)]


class NodeCount(BaseModel):
    """How many nodes there are: a number, or `{min: 2, max: 20}`."""

    model_config = STRICT

    min: Count
    """As many are started."""
    max: Count
    """Ray starts up to so many when requests wait."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _in_order(self) -> NodeCount:
        if self.min > self.max:
            raise ValueError(f"'max' must be at least 'min', {self.min}")
        return self


class Resources(BaseModel):
    """What a node takes of its machine. Only Ray uses it."""

    model_config = STRICT

    num_cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Cores."""
    memory: Annotated[Size, Field(gt=0)] | None = None
    """Memory, such as `8GiB`."""


class Copies(BaseModel):
    """How many homes a model has."""

    model_config = STRICT

    max: Annotated[int, Field(ge=1, le=MAX_NODES)] = 8
    """The most homes of one model."""
    busy: Fraction = 0.35
    """A model that keeps more than this share of a node busy has more homes."""


class ClusterSettings(BaseModel):
    """The keys of `cluster`. The docstrings are the reference in docs/cluster.md."""

    model_config = STRICT | ConfigDict(hide_input_in_errors=True)  # one of them is a secret

    nodes: NodeCount
    """A number of nodes, or `{min: 2, max: 20}`. Only Ray starts more than `min`."""
    resources: Resources = Resources()
    """What a node takes of a Ray cluster: `{num_cpus: 8, memory: 8GiB}`."""
    route_by: Annotated[list[Literal["header", "path", "body"]], Field(min_length=1)] = ["header", "path", "body"]
    """Where the balancer looks for the model's id, in this order: the header `X-Model`, the path, the JSON body."""
    placement: Literal["rate", "hash"] = "rate"
    """`rate`: a placer moves homes by measured request rates and sizes. `hash`: a model's home follows from its id."""
    copies: Copies = Copies()
    """How many homes a model has: `{max: 8, busy: 35%}`."""
    queue: Annotated[int, Field(ge=1)] = 6
    """If each home of a model has so many requests, and twice as many as the other nodes on average, a request goes to
    the next node in the model's order.
    """
    retry: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a request is sent to another node after a broken connection or an empty answer."""
    health: Annotated[Duration, Field(ge=0.1, le=60)] = 0.5
    """The time between two health checks of a node."""
    secret: Annotated[SecretStr, Field(min_length=16), AfterValidator(_check_header)] | None = None
    """What the balancer sends with each request, so that a node refuses all other callers. Nodes on other machines need
    it. Without it, nodes listen on Unix sockets only. At least 16 characters.
    """
