"""`POST /tasks/{task}`: a route for each row of the table of tasks, with its types."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from ...tasks.task import Task
from ..schemas import FirstError
from .dialect import Answered, Asked, Dialect, Path, title


class TaskAnswer(BaseModel):
    """Results in the order of the items."""

    strategy: str
    model: str
    results: list[Any]
    cold: Annotated[bool, Field(description="whether this request waited for a load")]


@cache
def path_of(task: Task) -> Path:
    """The path on which a model with the task is asked for it, by the types of its row."""
    items = Annotated[list[task.item], FirstError(), Field(min_length=1)]  # type: ignore[name-defined]
    body = create_model(f"{title(task)}Request", __base__=Asked, items=(items, ...))
    answer = create_model(f"{title(task)}Answer", __base__=TaskAnswer, results=(list[task.result], ...))  # type: ignore[name-defined]

    def write(asked: Asked, answered: Answered) -> BaseModel:
        return answer.model_construct(
            strategy=answered.strategy, model=answered.model, results=list(answered.results), cold=answered.cold
        )

    dialect = Dialect[Any](task.name, lambda asked: asked.items, write)
    return Path(f"/tasks/{task.name}", f"Ask a model for the task '{task.name}'", body, answer, (dialect,))
