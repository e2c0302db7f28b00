"""What a dialect is: how the body of a path becomes items of a task, and how results become an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...tasks.task import Task
from ..schemas import FirstError

MODEL = "a model id or an alias; required unless the header X-Model names one, or the server has one model or a default"


class Body(BaseModel):
    """A body. Clients send keys of their own, which are passed over."""

    model_config = ConfigDict(strict=True)


class Asked(Body):
    """A body that names a model."""

    model: Annotated[str, Field(description=MODEL)] | None = None


class Answered(NamedTuple):
    """What a dialect writes an answer from."""

    strategy: str
    model: str
    results: Sequence[Any]
    cold: bool
    tokens: int
    """Of all items, estimated from their characters."""


def _refuse(value: Any) -> None:
    if value is not None:
        raise ValueError("is not supported; leave it out")


Texts = Annotated[list[str], FirstError(), Field(min_length=1)]
Unsupported = Annotated[None, BeforeValidator(_refuse)]
"""A key that would change the results, and that this server does not support."""
AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True)
class Dialect(Generic[AnyBody]):
    """How the bodies of a path ask for one task, and how they are answered."""

    task: str
    items: Callable[[AnyBody], Sequence[Any]]
    """Returns the items that a body asks for, at least one."""
    write: Callable[[AnyBody, Answered], BaseModel]
    """Returns the answer, of which the fields that were set are sent."""
    fits: Callable[[AnyBody], bool] = lambda body: True
    """Returns whether a body has this form, on a path that takes several."""


@dataclass(frozen=True)
class Path:
    """A row of the table of paths: a model answers it by its task, and an engine gets it forwarded."""

    path: str
    summary: str = ""
    body: type[Body] | None = None
    """None for a path that only engines answer."""
    answer: Any = None
    dialects: tuple[Dialect[Any], ...] = ()
    methods: tuple[str, ...] = ("POST",)
    forwarded: str = ""
    """The path at an engine, if that differs."""

    def serves(self, tasks: Sequence[str]) -> bool:
        """Whether a model with these tasks answers here."""
        return any(dialect.task in tasks for dialect in self.dialects)

    def dialect_for(self, body: Body, tasks: Sequence[str]) -> Dialect[Any] | None:
        """The dialect of the body that a model with these tasks answers, its main task first."""
        fitting = [dialect for dialect in self.dialects if dialect.fits(body)]
        return next((dialect for task in tasks for dialect in fitting if dialect.task == task), None)


def as_list(texts: str | list[str]) -> list[str]:
    """The texts of a key that holds one or several."""
    return [texts] if isinstance(texts, str) else texts


def to_array(vector: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The vector in single precision, which is what models compute with."""
    return np.asarray(vector, dtype="<f4")


def normalized(vector: Sequence[float]) -> list[float]:
    """The vector, divided by its length."""
    array = to_array(vector)
    listed: list[float] = (array / max(float(np.linalg.norm(array)), 1e-12)).tolist()
    return listed


def to_list(vector: Sequence[float]) -> list[float]:
    """The vector as JSON can hold it."""
    listed: list[float] = to_array(vector).tolist()
    return listed


def title(task: Task) -> str:
    """The beginning of the names of the task's schemas."""
    return "".join(word.capitalize() for word in task.name.replace("_", "-").split("-"))
