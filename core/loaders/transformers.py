"""The stock path that everyone uses: `from_pretrained`, tokenizer included in every load."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pluggy

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import (
    BYTES,
    Dtype,
    computable,
    in_dtype,
)

if TYPE_CHECKING:
    from .classifier import Classifier


class TransformersLoader:
    """Stock `from_pretrained`, tokenizer included in every load: the baseline that users know."""

    name = "transformers"

    def __init__(self, *, dtype: Dtype = "float32") -> None:
        # Imported when a server constructs its loaders: to list a loader and its options needs no torch.
        from . import stock

        self._dtype = computable(dtype)
        self._stock = stock

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Import the architecture's classes, which takes longer than a load."""
        self._stock.import_classes(directory)

    def load(self, directory: Path) -> Classifier:
        """Raises ModelReferenceError for what is no checkpoint, or lacks a trained classification head."""
        checkpoint.check(directory)
        started = perf_counter()
        tokenizer = self._stock.load_tokenizer(directory)
        tokenized = perf_counter()
        module = self._stock.load_module(in_dtype(directory, self._dtype), self._dtype)
        phases = {"tokenizer": tokenized - started, "weights": perf_counter() - tokenized}
        return self._stock.classifier(directory, tokenizer, module, phases, loaded_by=self.name)


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[TransformersLoader]]:
    return [TransformersLoader]
