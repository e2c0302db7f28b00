"""The stock path that everyone uses: `from_pretrained`, tokenizer included in every load."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from . import checkpoint

if TYPE_CHECKING:
    from .classifier import Classifier

BYTES = {"float32": 4, "bfloat16": 2}


class TransformersLoader:
    """Stock `from_pretrained`, tokenizer included in every load: the baseline that users know."""

    name = "transformers"
    _loading = Lock()  # from_pretrained is reported not to be thread-safe (transformers#41782)

    def __init__(self, *, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
        # Imported when a server constructs its loaders: to list a loader and its options needs no torch.
        import transformers
        from transformers.utils import logging

        from .classifier import Classifier

        logging.disable_progress_bar()
        self._dtype = dtype
        self._classifier = Classifier
        self._tokenizers: Any = transformers.AutoTokenizer
        self._modules: Any = transformers.AutoModelForSequenceClassification

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def load(self, directory: Path) -> Classifier:
        """Raises ValueError when the checkpoint lacks a trained classification head."""
        started = perf_counter()
        tokenizer = self._tokenizers.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        tokenized = perf_counter()
        with self._loading:
            module, info = self._modules.from_pretrained(
                directory,
                dtype=self._dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"the checkpoint does not hold {missing[0]}: it is no trained sequence classifier")
        module.eval()
        phases = {"tokenizer": tokenized - started, "weights": perf_counter() - tokenized}
        return self._classifier(tokenizer, module, phases)


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[TransformersLoader]]:
    return [TransformersLoader]
