"""What a user chooses in YAML, for a served app and for an experiment alike."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
# A model id stands in URLs, labels and file names.
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Reference = Annotated[str, Field(min_length=1, max_length=1000)]  # checked where it is anchored


class LoaderChoice(BaseModel):
    """A loader's name, or `{name: …, <option>: …}`."""

    model_config = STRICT

    name: str = "transformers"
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            named = {key: value[key] for key in ("name",) if key in value}
            return named | {"options": {key: option for key, option in value.items() if key != "name"}}
        return value


class Batching(BaseModel):
    """How requests that wait for the same model are computed together. In YAML also `on` and `off`."""

    model_config = STRICT

    max_batch_size: Annotated[int, Field(ge=1, le=4096, description="texts")] = 32
    max_batch_tokens: Annotated[int, Field(ge=1, description="of a padded batch, estimated")] = 2048
    max_wait_ms: Annotated[float, Field(ge=0, le=60_000, description="for a batch to fill")] = 0.0


def _batching(value: Any) -> Any:
    return {"on": {}, "off": None}.get(value, value) if isinstance(value, str) else value


BatchingChoice = Annotated[Batching | None, BeforeValidator(_batching)]


class StrategyChoice(BaseModel):
    """A strategy's name, or a mapping with its options, its loader and a label for the table."""

    model_config = STRICT

    strategy: str
    options: dict[str, Any] = {}
    loader: LoaderChoice = LoaderChoice()
    label: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f|]{1,60}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    @property
    def shown_as(self) -> str:
        """The label; without one the strategy, and the loader where it is not the stock one."""
        stock = self.loader == LoaderChoice()
        return self.label or (self.strategy if stock else f"{self.strategy}, {self.loader.name}")
