"""A plugin for tests: the default loader, with a delay added to each load."""

from __future__ import annotations

import time
from pathlib import Path

import pluggy

from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.text_model import TextModel

SPUN = 3e-4  # seconds at the end of a delay that are not slept, because a sleep ends late


class DelayedLoader(OnnxRuntimeLoader):
    """Loads later than it could."""

    name = "delayed"

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__()
        self._seconds = seconds

    def load(self, checkpoint: Path) -> TextModel:
        end = time.perf_counter() + self._seconds
        time.sleep(max(0.0, self._seconds - SPUN))
        while time.perf_counter() < end:
            pass
        return super().load(checkpoint)


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[DelayedLoader]]:
    return [DelayedLoader]
