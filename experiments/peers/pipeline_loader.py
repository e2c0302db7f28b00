"""A plugin: the loader `pipeline`, which loads by transformers' `pipeline()`, as most people write it.

plugins: [experiments/peers/pipeline_loader.py]
strategies: [{strategy: lru-cached, options: {capacity: 3}, loader: pipeline}]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pluggy

from core.checkpoints import checkpoint
from core.contracts import Prediction


class PipelineLoader:
    """Loads by `pipeline("text-classification")`, which is all that happens at a load."""

    name = "pipeline"

    def size(self, directory: Path) -> int:
        """The bytes of all weights."""
        return checkpoint.size(directory, float_bytes=4)

    def load(self, directory: Path) -> PipelineModel:
        """Load the model."""
        from transformers import pipeline
        from transformers.utils import logging

        logging.disable_progress_bar()  # in the log of every load
        return PipelineModel(pipeline("text-classification", model=str(directory)))


class PipelineModel:
    """A pipeline in memory."""

    dtype = "float32"

    def __init__(self, pipe: Any) -> None:
        self.nbytes = sum(weights.nbytes for weights in pipe.model.parameters())
        self._pipe = pipe
        self._labels = list(pipe.model.config.id2label.values())

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction for each text."""
        return [self._prediction(found) for found in self._pipe(list(texts), top_k=None, truncation=True)]

    def _prediction(self, found: Sequence[dict[str, Any]]) -> Prediction:
        scores = {each["label"]: float(each["score"]) for each in found}  # the best first
        best = next(iter(scores))
        return Prediction(best, scores[best], [(label, scores[label]) for label in self._labels])

    def close(self) -> None:
        """Free the memory."""
        self._pipe = None


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[PipelineLoader]]:
    return [PipelineLoader]
