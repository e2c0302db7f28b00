"""The `requests:` of an experiment, in place of texts: paths with JSON bodies, or prompts for a chat model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, JsonValue, model_validator

from ..config.choices import STRICT
from .texts import MAX_TEXTS, Text

CHAT = "/v1/chat/completions"


class Message(NamedTuple):
    """A request without its model: the path, the JSON body, and whether answers to it are compared."""

    path: str
    body: dict[str, JsonValue]
    agree: bool

    def body_for(self, model: str) -> bytes:
        """The body that names the model."""
        return json.dumps({**self.body, "model": model}, ensure_ascii=False).encode()


class OneRequest(BaseModel):
    """A path with a body."""

    model_config = STRICT

    path: Annotated[str, Field(pattern=r"^/\S*$")]
    """The path, such as `/v1/embeddings`."""
    body: dict[str, JsonValue]
    """The JSON body. Its `model` is filled in."""
    agree: bool = True
    """Whether all answers to it must agree. `false`: only their status counts, as for answers that are drawn at random.
    """


class Chat(BaseModel):
    """Prompts for chat models."""

    model_config = STRICT

    chat: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    """The prompts. Each is a request to `/v1/chat/completions`."""
    max_tokens: Annotated[int, Field(ge=1)] = 64
    """The most tokens of an answer."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Above 0, answers are drawn at random."""
    stream: bool = True
    """Whether answers come token by token, which is needed to measure the time between them."""
    agree: bool | None = None
    """Whether all answers to a prompt must be equal. By default they must if the temperature is 0."""

    def message(self, prompt: str) -> Message:
        """The request with that prompt."""
        body: dict[str, JsonValue] = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Message(CHAT, body, self.temperature == 0 if self.agree is None else self.agree)


class Requests(BaseModel):
    """A list of `{path, body}`, or `{chat: [prompts]}`."""

    model_config = STRICT

    listed: Annotated[list[OneRequest], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    prompts: Chat | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"listed": value}
        if isinstance(value, dict) and "chat" in value:
            return {"prompts": value}
        raise ValueError("must be a list of {path, body}, or {chat: [prompts]}")

    @property
    def messages(self) -> tuple[Message, ...]:
        """The requests in their order."""
        if self.prompts:
            return tuple(map(self.prompts.message, self.prompts.chat))
        return tuple(Message(each.path, each.body, each.agree) for each in self.listed or ())

    @property
    def written(self) -> JsonValue:
        """The section of an experiment."""
        chosen: Sequence[BaseModel] | BaseModel | None = self.prompts or self.listed
        if isinstance(chosen, BaseModel):
            return chosen.model_dump(mode="json", exclude_defaults=True)
        return [each.model_dump(mode="json", exclude_defaults=True) for each in chosen or ()]
