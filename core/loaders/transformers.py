"""The loader `transformers`: loads by `from_pretrained`, as most applications do."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import pluggy
from pydantic import Field

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import BYTES, DTYPE, Dtype, convert_dtype, supported_dtype
from ..checkpoints.heads import read_output

if TYPE_CHECKING:
    from .text_model import TextModel


class TransformersLoader:
    """Loads by `from_pretrained`, including the tokenizer at every load: the baseline."""

    name = "transformers"

    def __init__(self, *, dtype: Annotated[Dtype, Field(description=DTYPE)] = "float32") -> None:
        # Imported here, because listing loaders and their options must not import torch.
        from . import stock

        self._dtype = supported_dtype(dtype)
        self._stock = stock

    def size(self, directory: Path) -> int:
        """The bytes of all weights in the loader\'s dtype."""
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Import the architecture's classes, which takes longer than a load."""
        self._stock.import_classes(directory)

    def load(self, directory: Path) -> TextModel:
        """Load the model.

        Raises ModelReferenceError for a broken checkpoint, and if it lacks weights that its task needs.
        """
        checkpoint.check(directory)
        started = perf_counter()
        tokenizer = self._stock.load_tokenizer(directory)
        tokenized = perf_counter()
        module = self._stock.load_module(convert_dtype(directory, self._dtype), self._dtype, read_output(directory))
        phases = {"tokenizer": tokenized - started, "weights": perf_counter() - tokenized}
        return self._stock.text_model(directory, tokenizer, module, phases, loaded_by=self.name)


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[TransformersLoader]]:
    return [TransformersLoader]
