"""What the outputs of a checkpoint's network mean, for each of its tasks. It is read from its files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelReferenceError
from ..tasks.classify import CLASSIFY
from ..tasks.embed import EMBED
from ..tasks.functions import Floats
from ..tasks.json_file import read_object
from ..tasks.labels import Head, parse_head
from ..tasks.pooling import Pooling, read_pooling
from ..tasks.score import SCORE, parse_scoring
from ..tasks.table import tasks_of

Output = Literal["logits", "last_hidden_state"]


@dataclass(frozen=True)
class Heads:
    """What a network computes, and how that becomes the results of each task."""

    output: Output
    """The output of the network, by its name in transformers: a number for each label, or a vector for each token."""
    results: Mapping[str, Callable[[Floats], list[Any]]]
    """By the name of each task, the main one first, what turns the numbers of items into results."""
    head: Head | None = None
    """The labels of logits; None for a vector."""
    pooling: Pooling | None = None
    """How the vectors of tokens become that of a text; None for logits."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ModelReferenceError unless `shape`, of the numbers of one item, has one for each label."""
        if self.head is not None:
            self.head.check(shape)


def read_config(directory: Path) -> dict[str, Any]:
    """The contents of config.json. Raises ModelReferenceError."""
    return read_object(directory / "config.json")


def read_tasks(directory: Path) -> tuple[str, ...]:
    """The names of the tasks that the checkpoint has, first the main one. Raises ModelReferenceError."""
    return tasks_of(read_config(directory), directory)


def read_output(directory: Path) -> Output:
    """The output of the network that the checkpoint's main task needs. Raises ModelReferenceError."""
    return "last_hidden_state" if read_tasks(directory)[0] == EMBED.name else "logits"


def check_heads(directory: Path) -> None:
    """Raise ModelReferenceError for files that describe a head of which the loaders can make nothing.

    The head of a task that a plugin has added is left to the plugin's loader.
    """
    if read_tasks(directory)[0] in (CLASSIFY.name, EMBED.name, SCORE.name):
        read_heads(directory)


def read_heads(directory: Path) -> Heads:
    """The heads that the checkpoint's files describe. Raises ModelReferenceError if they describe none."""
    config, path = read_config(directory), directory / "config.json"
    tasks = tasks_of(config, directory)
    if tasks[0] == EMBED.name:
        return Heads("last_hidden_state", {EMBED.name: list}, pooling=read_pooling(directory))
    if tasks[0] not in (CLASSIFY.name, SCORE.name):
        raise ModelReferenceError(f"{path} describes a model for the task '{tasks[0]}', which this loader lacks.")
    head = parse_head(config, path)
    results: dict[str, Callable[[Floats], list[Any]]] = {CLASSIFY.name: head.predictions}
    if SCORE.name in tasks and (scoring := parse_scoring(config, path)):
        results[SCORE.name] = scoring.results
    return Heads("logits", {name: results[name] for name in tasks if name in results}, head)


@lru_cache(4096)  # for seven small files, reading them takes as long as a fifth of a load
def known_heads(directory: Path, identity: str) -> Heads:
    """As `read_heads`, but read once for each `identity` of the checkpoint's files."""
    return read_heads(directory)
