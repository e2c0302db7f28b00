"""A plugin for tests: a loader whose models have all tasks, or those that a file `tasks` of the checkpoint names.

There is no neural network: what they answer follows from letters and words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
from numpy.typing import NDArray

SIZE = 1000
ALL = ("classify", "embed", "score")
LETTERS = "abc"


class TaskLoader:
    name = "tasks"

    def size(self, checkpoint: Path) -> int:
        return SIZE

    def tasks(self, checkpoint: Path) -> Sequence[str]:
        file = checkpoint / "tasks"
        return file.read_text().split() if file.exists() else ALL

    def load(self, checkpoint: Path) -> TaskModel:
        return TaskModel(self.tasks(checkpoint))


class TaskModel:
    """Finds a text POSITIVE if it says `good`; its vectors count letters, and its scores common words."""

    nbytes = SIZE

    def __init__(self, tasks: Sequence[str]) -> None:
        self.task = tasks[0]
        self.predict = FUNCTIONS[self.task]
        self.also = {name: FUNCTIONS[name] for name in tasks[1:]}

    def close(self) -> None:
        pass


def classify(items: Sequence[str]) -> list[tuple[str, float]]:
    return [("POSITIVE" if "good" in item else "NEGATIVE", 0.75) for item in items]


def embed(texts: Sequence[str]) -> list[NDArray[np.float32]]:
    return [np.array([1 + text.count(letter) for letter in LETTERS], dtype=np.float32) for text in texts]


def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The share of the words of the first text that the second text has, too."""
    words = [(set(one.split()), set(other.split())) for one, other in pairs]
    return [len(one & other) / max(1, len(one)) for one, other in words]


FUNCTIONS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {"classify": classify, "embed": embed, "score": score}


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[TaskLoader]]:
    return [TaskLoader]
