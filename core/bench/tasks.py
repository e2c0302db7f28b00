"""The task that a trial asks a model for, when it asks with texts."""

from __future__ import annotations

import json
from pathlib import Path

from ..config.choices import LoaderChoice
from ..plugins import Plugins
from ..tasks.classify import CLASSIFY
from ..tasks.table import tasks_of
from ..tasks.task import Task


def task_of(plugins: Plugins, choice: LoaderChoice, directory: Path) -> Task:
    """`classify` if the loader's model of this checkpoint has that task, else its main task."""
    entry = plugins.loader(choice.name)
    if hasattr(entry.cls, "tasks"):
        names = tuple(entry.cls(**entry.validate(choice.options)).tasks(directory))
    else:
        names = tasks_of(json.loads((directory / "config.json").read_text(encoding="utf-8")), directory)
    return CLASSIFY if CLASSIFY.name in names else plugins.tasks[names[0]]
