"""What transformers does when it is asked to load a sequence classifier, and nothing else."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import transformers
from transformers.utils import logging

from .classifier import Classifier, Tokenizer

__all__ = ["Classifier", "Tokenizer", "import_classes", "load_module", "load_module_and_report", "load_tokenizer"]

logging.disable_progress_bar()
_loading = Lock()  # from_pretrained is reported not to be thread-safe (transformers#41782)
_tokenizers: Any = transformers.AutoTokenizer
_modules: Any = transformers.AutoModelForSequenceClassification


def import_classes(directory: Path) -> None:
    """Import what a checkpoint of this architecture needs; loads nothing that stays."""
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    _ = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]  # imports its module
    load_tokenizer(directory)


def load_tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer(_tokenizers.from_pretrained(directory, local_files_only=True, trust_remote_code=False))


def load_module(directory: Path, dtype: str) -> Any:
    """Raises ValueError when the checkpoint lacks a trained classification head."""
    return load_module_and_report(directory, dtype)[0]


def load_module_and_report(directory: Path, dtype: str) -> tuple[Any, list[str]]:
    """The module, and the names of the file's tensors that it has no use for. Raises as `load_module`."""
    with _loading:
        module, info = _modules.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"the checkpoint does not hold {missing[0]}: it is no trained sequence classifier")
    return module.eval(), list(info["unexpected_keys"])
