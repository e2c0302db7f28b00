"""The sections that settings of a server and experiments have in common."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, model_validator

from .quantities import DURATION_SUCH_AS, parse_seconds, parse_size

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


def matching(pattern: str, words: str) -> AfterValidator:
    """A validator of texts that match `pattern`. `words` follow "must be" in its error."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {words}, not {value[:40]!r}")
        return value

    return AfterValidator(check)


# Model ids appear in URLs, labels and file names.
ModelId = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "a name such as sst2 or my-model: letters, digits, '.', '_' and '-', at most 64, the first a letter or a digit",
    ),
]
Reference = Annotated[str, Field(min_length=1, max_length=1000)]  # `resolve_reference` checks it
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?) ?%")


def parse_duration(value: Any) -> Any:
    """The seconds of a duration or a number. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {DURATION_SUCH_AS}, not {str(value)[:40]}")
    return parse_seconds(value)


def _milliseconds(value: Any) -> Any:
    """The milliseconds of a duration; a plain number is returned unchanged."""
    parsed = parse_seconds(value)
    return parsed * 1e3 if isinstance(value, str) and isinstance(parsed, float) else parsed


# Seconds, as a float; in YAML `200ms`, `30s`, `10min`, `1h30min`, or a plain number of seconds.
Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
# Bytes; in YAML `512MiB`, `1.5GB`, or a whole number.
Size = Annotated[ByteSize, BeforeValidator(parse_size)]


def parse_fraction(value: Any) -> Any:
    """The fraction of a percentage: 0.05 for `5%`. A value that is not text is returned unchanged.

    Raises ValueError for a text that is not a percentage.
    """
    if not isinstance(value, str):
        return value
    if not (match := _PERCENTAGE.fullmatch(value)):
        raise ValueError(f"must be a percentage such as 5%, or a fraction such as 0.05, not {value[:40]!r}")
    return float(match[1]) / 100


def _check_fraction(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"must be more than 0% and less than 100%, such as 5% (got {value:.12g})")
    return value


# In YAML `5%`, or 0.05.
Fraction = Annotated[float, BeforeValidator(parse_fraction), AfterValidator(_check_fraction)]


class LoaderChoice(BaseModel):
    """A loader and its options: a name, or `{name: …, <option>: …}`."""

    model_config = STRICT

    name: str = "onnxruntime"
    """The loader."""
    options: dict[str, Any] = {}
    """Its options, which may also stand beside `name`."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            name = {key: value[key] for key in ("name",) if key in value}
            return name | {"options": {key: option for key, option in value.items() if key != "name"}}
        return value


class Batching(BaseModel):
    """How requests that wait for the same model are computed together. YAML may also say `on` or `off`."""

    model_config = STRICT

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """The most texts that are computed together."""
    max_batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """The most tokens in a batch, padding included. Four characters count as one token."""
    max_wait_ms: Annotated[float, BeforeValidator(_milliseconds), Field(ge=0, le=60_000)] = 0.0
    """Milliseconds that a request waits for others to arrive."""


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BilledSize(BaseModel):
    """A size of a task or a machine, and the price of an hour of it."""

    model_config = STRICT

    memory: Annotated[Size, Field(gt=0)]
    """Its memory, such as `512MiB`."""
    cpu: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Its cores."""
    hour: Price
    """The price of an hour, memory and CPU included."""


class Cost(BaseModel):
    """The prices of a deployment, in one currency.

    The defaults are AWS Fargate's unit prices (Linux on x86, us-east-1, on demand: aws.amazon.com/fargate/pricing), as
    if only what is used were billed. Fargate itself bills a task's configured size, as `billing: size` does.
    `latency_hour`, what an hour of a caller's waiting is worth, depends on the service, so its default is 0.
    """

    model_config = STRICT

    memory_gib_hour: Price = 0.004445
    """The price of a GiB of memory for an hour."""
    cpu_hour: Price = 0.04048
    """The price of one core for an hour."""
    latency_hour: Price = 0.0
    """What an hour of your callers' waiting is worth. Only you can say; by default nothing."""
    charge: Literal["pss", "private"] = "pss"
    """Which memory is paid for: `pss` or `private`."""
    billing: Literal["average", "peak", "size"] = "average"
    """When memory is paid for. `average`: as it is held. `peak`: the most that was ever held, all the time. `size`: the
    smallest of `sizes` that holds it.
    """
    sizes: list[BilledSize] = []
    """For `billing: size`: a list of sizes with their prices, from the smallest."""
    trifle: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """An amount of money. Savings of less than this a month are ignored."""

    @model_validator(mode="before")
    @classmethod
    def _without_unit_prices(cls, value: Any) -> Any:
        """Set the prices of memory and CPU time to 0 if sizes are billed, because a size's price includes both."""
        if not isinstance(value, dict) or value.get("billing") != "size":
            return value
        if priced := [key for key in ("memory_gib_hour", "cpu_hour") if value.get(key)]:
            raise ValueError(f"'{priced[0]}' is included in the price of a size; with 'billing: size' leave it out")
        return value | {"memory_gib_hour": 0.0, "cpu_hour": 0.0}

    @model_validator(mode="after")
    def _check_sizes(self) -> Cost:
        if self.billing == "size" and not self.sizes:
            raise ValueError("'billing: size' needs 'sizes', such as [{memory: 512MiB, cpu: 0.25, hour: 0.0123}]")
        if self.sizes and self.billing != "size":
            raise ValueError(f"'sizes' needs 'billing: size', not 'billing: {self.billing}'")
        for one, other in pairwise(self.sizes):
            if one.memory >= other.memory or one.hour > other.hour:
                raise ValueError(
                    "'sizes' must be in order of 'memory', the smallest first, and a larger one must not cost less"
                )
        return self


def _parse_batching(value: Any) -> Any:
    return {"on": {}, "off": None}.get(value, value) if isinstance(value, str) else value


BatchingChoice = Annotated[Batching | None, BeforeValidator(_parse_batching)]


Label = Annotated[
    str,
    matching(r"[^\x00-\x1f\x7f-\x9f|]{1,60}", "a label such as 'room for one': 1 to 60 printable characters, no '|'"),
]


class StrategyChoice(BaseModel):
    """A strategy: a name, or a mapping with its options, its loader, and a label for the results."""

    model_config = STRICT

    strategy: str
    """The strategy's name."""
    options: dict[str, Any] = {}
    """Its options."""
    loader: LoaderChoice = LoaderChoice()
    """The name of a loader, or a mapping with its `name` and its options: `{name: onnxruntime, dtype: int8}`."""
    label: Label | None = None
    """The name in the table of an experiment: 1 to 60 printable characters, no `|`."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    def trial_label(self, dtype: str, *, several_loaders: bool) -> str:
        """The label, or the strategy's name if there is none.

        The loader follows the strategy if it is not the default, or if there are several; `dtype` follows the loader if
        it is not float32.
        """
        plain = self.loader == LoaderChoice() and dtype == "float32" and not several_loaders
        loader = self.loader.name if dtype == "float32" else f"{self.loader.name} {dtype}"
        return self.label or (self.strategy if plain else f"{self.strategy}, {loader}")
