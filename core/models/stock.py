"""What transformers does when it is asked to load a sequence classifier, and nothing else."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import transformers
from transformers.utils import is_scipy_available, logging

from .classifier import Classifier, Tokenizer

__all__ = ["Classifier", "Tokenizer", "import_classes", "load_module", "load_module_and_report", "load_tokenizer"]


def _import_losses() -> None:
    """Import transformers' losses without SciPy, which only those of object detection use.

    It is here for the runner's statistics, and would cost every server a fifth of a second of its start.
    """
    if "scipy" in sys.modules:
        return
    is_scipy_available.cache_clear()
    sys.modules["scipy"] = None  # type: ignore[assignment]  # what importlib takes for "not to be imported"
    try:
        importlib.import_module("transformers.loss.loss_utils")
    finally:
        del sys.modules["scipy"]
        is_scipy_available.cache_clear()
    losses: Any = importlib.import_module("transformers.loss.loss_for_object_detection")
    losses.linear_sum_assignment = _assign


def _assign(*arguments: Any, **options: Any) -> Any:
    """SciPy's `linear_sum_assignment`, imported when it is used."""
    optimize = importlib.import_module("scipy.optimize")
    return optimize.linear_sum_assignment(*arguments, **options)


_import_losses()
logging.disable_progress_bar()
_loading = Lock()  # from_pretrained is reported not to be thread-safe (transformers#41782)
_tokenizers: Any = transformers.AutoTokenizer
_modules: Any = transformers.AutoModelForSequenceClassification


def import_classes(directory: Path) -> None:
    """Import what a checkpoint of this architecture needs; loads nothing that stays.

    Not while anything is loaded: the garbage of an import holds the frames that it ran in.
    """
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    _ = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]  # imports its module
    load_tokenizer(directory)
    gc.freeze()  # classes stay for good, and a look at all of them takes the collector 0.3 s


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
