"""The settings of an engine: how to start it, when it is ready, and how much memory it takes."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from .choices import STRICT, Duration, Reference, Size, matching
from .quantities import parse_size

HAS_PORT = re.compile(r"(?<!\$)\$\{port\}")  # `$${port}` stands for the text `${port}`
Variable = Annotated[str, matching(r"[^=\0]+", "the name of a variable")]
Value = Annotated[str, matching(r"[^\0]*", "text without a zero byte")]
Alias = Annotated[str, Field(min_length=1, max_length=200)]


class FixedMemory(BaseModel):
    """A size that is believed, such as that of a container, which is no child of the server: `{fixed: 3GiB}`."""

    model_config = STRICT

    fixed: Size


def _parse_memory(value: Any) -> Any:
    if isinstance(value, dict | FixedMemory):
        return value
    if value is None or isinstance(value, bool | list):
        raise ValueError("must be a size such as 1.5GiB, or a mapping such as {fixed: 3GiB}")
    return parse_size(value)


# With discriminators, an error is that of the form that was meant, not those of both.
Memory = Annotated[
    Annotated[ByteSize, Field(gt=0), Tag("size")] | Annotated[FixedMemory, Tag("fixed_size")],
    Discriminator(lambda value: "fixed_size" if isinstance(value, dict | FixedMemory) else "size"),
    BeforeValidator(_parse_memory),
]


class EngineChoice(BaseModel):
    """An engine: a model that is a server of its own, started and ended as its strategy decides."""

    model_config = STRICT

    run: Annotated[str, Field(min_length=1, max_length=10_000)]
    """The command that starts it. `${port}`, `${model}` and `${NAME}`, a variable of its environment, are replaced.
    `$${` stands for `${`.
    """
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """The port on which it listens, if `run` has no `${port}`. With `${port}`, a free one is chosen for each start."""
    ready: Annotated[str, matching(r"/[!-~]{0,999}", "a path such as /health")] = "/health"
    """The path that is asked until it answers 200."""
    within: Annotated[Duration, Field(gt=0, le=3600)] = 120.0
    """The load fails if it is not ready within this time."""
    environment: dict[Variable, Value] = {}
    """Variables of its environment, in addition to those of the server."""
    aliases: list[Alias] = []
    """Other names of the model in requests, of any characters, such as `qwen3:4b`."""
    memory: Memory | None = None
    """Its memory until it is measured; or `{fixed: 3GiB}`, which is believed and never measured."""
    parallel: Annotated[int, Field(ge=1, le=10_000)] = 10
    """The most requests that are forwarded at a time; more wait in the queue."""
    stop: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """The command that stops it. Without one, it gets SIGTERM, and SIGKILL if it has not ended 10 s later."""

    @field_validator("run", "stop")
    @classmethod
    def _can_be_split(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if "\0" in value:
            raise ValueError("must be a command without a zero byte")
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise ValueError("must be a command whose quotes are all closed, as in 'serve --name \"a b\"'") from error
        if not words:
            raise ValueError("must be a command, such as 'llama-server --port ${port} -m model.gguf'")
        return value

    @model_validator(mode="after")
    def _has_a_port(self) -> EngineChoice:
        if self.port is None and HAS_PORT.search(self.run) is None:
            raise ValueError("'run' must contain ${port}, or 'port' must say on which port it listens")
        return self

    @property
    def identity(self) -> str:
        """A short text that changes with any setting that a running server depends on."""
        others = {"aliases", "parallel"} if self.fixed_bytes is not None else {"aliases", "parallel", "memory"}
        settings = self.model_dump_json(exclude=others)
        return hashlib.sha256(settings.encode()).hexdigest()[:24]

    @property
    def declared_bytes(self) -> int | None:
        """The bytes of `memory`, or None without it."""
        return self.memory.fixed if isinstance(self.memory, FixedMemory) else self.memory

    @property
    def fixed_bytes(self) -> int | None:
        """The bytes that are believed, or None if the server's memory is measured."""
        return self.memory.fixed if isinstance(self.memory, FixedMemory) else None

    def __str__(self) -> str:
        return f"run: {self.run}"


def _reference_or_engine(value: Any) -> Any:
    if not isinstance(value, str | dict | EngineChoice):
        raise ValueError("must be a reference such as 'embedded', or a mapping with 'run'")
    return value


ModelChoice = Annotated[
    Annotated[Reference, Tag("reference")] | Annotated[EngineChoice, Tag("engine")],
    Discriminator(lambda value: "reference" if isinstance(value, str) else "engine"),
    BeforeValidator(_reference_or_engine),
]
"""What a model id stands for: a reference to a checkpoint, or the settings of an engine."""
