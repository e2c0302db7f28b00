"""The table of tasks: those of this package, and those that plugins add; and the tasks that a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .classify import CLASSIFY
from .embed import EMBED, MODULES
from .score import SCORE
from .task import Task

BUILT_IN = (CLASSIFY, EMBED, SCORE)
TASKS: dict[str, Task] = {task.name: task for task in BUILT_IN}
"""The rows by name. `core.plugins` adds those of plugins."""


def tasks_of(config: Mapping[str, Any], directory: Path) -> tuple[str, ...]:
    """The names of the tasks that a checkpoint has, first the main one, by the contents of config.json and its files.

    Without `architectures`, or if no row names its head, it is taken for a classifier: loading it then says what it
    lacks.
    """
    named = config.get("architectures")
    heads = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    if not heads and not (directory / MODULES).is_file():
        heads = list(CLASSIFY.heads)
    found = [
        task
        for task in TASKS.values()
        if any(name.endswith(task.heads) for name in heads) and task.is_of(config, directory)
    ]
    if found:
        return tuple(task.name for task in sorted(found, key=lambda task: not task.leads(config, directory)))
    return (EMBED.name,) if (directory / MODULES).is_file() else (CLASSIFY.name,)
