"""A plugin for tests: a loader that keeps the contract without a neural network.

What a load does is told by files in the checkpoint directory: `broken` makes it fail, and it waits
until the FIFO `gate` is opened for writing, as a load from a disk that hangs would.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import ClassVar

import pluggy

SIZE = 1000
MISUSES = logging.getLogger("tests.misuses")  # what a test fails for (tests/conftest.py)


class FakeModel:
    """Finds a text POSITIVE when it says `good`."""

    nbytes = SIZE
    phases: ClassVar = {"weights": 0.0}  # seconds

    def __init__(self, loader: FakeLoader, checkpoint: Path) -> None:
        self._loader = loader
        self._checkpoint = checkpoint
        self._closed = False

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        if self._closed:
            raise RuntimeError("predict after close")
        if self._loader.predict is not None:
            return self._loader.predict(texts)
        return [("POSITIVE" if "good" in text else "NEGATIVE", 0.75) for text in texts]

    def close(self) -> None:
        if self._closed:
            MISUSES.error("%s was closed twice", self._checkpoint.name)
            return  # which does nothing, as the contract says
        self._closed = True
        self._loader.count(self._checkpoint, -1)


class FakeLoader:
    """Counts the bytes that its models hold, the most that they ever held, and the most copies of one."""

    name = "fake"

    def __init__(self) -> None:
        self.predict: Callable[[Sequence[str]], list[tuple[str, float]]] | None = None  # in place of its models
        self._lock = Lock()
        self.held = 0
        self.most = 0
        self.loads = 0
        self.copies: Counter[Path] = Counter()
        self.most_copies = 0

    def size(self, checkpoint: Path) -> int:
        return SIZE

    def load(self, checkpoint: Path) -> FakeModel:
        with self._lock:
            self.loads += 1
        with suppress(FileNotFoundError):
            (checkpoint / "gate").read_bytes()
        if (checkpoint / "broken").exists():
            raise OSError(f"cannot read {checkpoint}/model.safetensors: disk error")
        self.count(checkpoint, 1)
        return FakeModel(self, checkpoint)

    def count(self, checkpoint: Path, change: int) -> None:
        with self._lock:
            self.copies[checkpoint] += change
            self.most_copies = max(self.most_copies, self.copies[checkpoint])
            self.held += change * SIZE
            self.most = max(self.most, self.held)


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[FakeLoader]]:
    return [FakeLoader]
