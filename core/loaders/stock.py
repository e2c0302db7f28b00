"""What transformers does when it is asked to load a sequence classifier, and nothing else."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import transformers
from transformers.utils import is_scipy_available, logging

from ..checkpoints.cache import remembered
from ..checkpoints.checkpoint import identity
from ..checkpoints.heads import read_config, read_head
from ..errors import ModelReferenceError
from .classifier import Classifier
from .probe import LONG, SHORT
from .torch_network import Tokenizer, TorchNetwork

__all__ = ["Tokenizer", "classifier", "import_classes", "load_module", "load_module_and_report", "load_tokenizer"]


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
_padding: dict[str, bool] = {}
_tokenizers: Any = transformers.AutoTokenizer
_modules: Any = transformers.AutoModelForSequenceClassification


def import_classes(directory: Path) -> None:
    """Import what a checkpoint of this architecture needs; loads nothing that stays.

    Not while anything is loaded: the garbage of an import holds the frames that it ran in.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        _ = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]  # imports its module
    except Exception as error:
        _explain(directory, error)
        raise
    load_tokenizer(directory)
    gc.freeze()  # classes stay for good, and a look at all of them takes the collector 0.3 s


def load_tokenizer(directory: Path) -> Tokenizer:
    """Raises ModelReferenceError, also where a file is missing that the tokenizer is made of: transformers would make
    an empty one.
    """
    try:
        tokenizer = _tokenizers.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        _explain(directory, error)
        _check_tokenizer_files(directory, getattr(transformers, str(_tokenizer_class(directory)), None))
        for file in sorted(directory.glob("*.json")):
            with suppress(OSError):
                try:
                    json.loads(file.read_text(encoding="utf-8"))
                except ValueError as wrong:
                    raise ModelReferenceError(f"{file} is not valid JSON: {wrong}") from error
        raise ModelReferenceError(f"its tokenizer cannot be loaded: {_first_line(error)}") from error
    _check_tokenizer_files(directory, type(tokenizer))
    return Tokenizer(tokenizer)


def _check_tokenizer_files(directory: Path, cls: type[Any] | None) -> None:
    declared: dict[str, str] = getattr(cls, "vocab_files_names", {})
    if not declared or (directory / "tokenizer.json").is_file():
        return
    there = {key for key, name in declared.items() if (directory / name).is_file()}
    needed = {"merges_file"} & set(declared) if "vocab_file" in there else set()
    if there and not needed - there:
        return
    lacking = declared[min(needed - there)] if there else " or ".join(dict.fromkeys(declared.values()))
    raise ModelReferenceError(
        f"it has no {lacking}, of which its tokenizer is made; save the tokenizer beside the model"
    )


def _tokenizer_class(directory: Path) -> Any:
    try:
        return json.loads((directory / "tokenizer_config.json").read_text())["tokenizer_class"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _explain(directory: Path, error: Exception) -> None:
    """Raise ModelReferenceError where transformers' `error` has a cause that config.json tells."""
    read_head(directory)
    config = read_config(directory)
    kind = config.get("model_type")
    if isinstance(config.get("quantization_config"), dict):
        raise ModelReferenceError(
            "its weights are quantized (quantization_config), which no loader here reads"
        ) from error
    if "trust_remote_code" in str(error):
        raise ModelReferenceError("it comes with code of its own, which is never run here") from error
    if kind not in transformers.CONFIG_MAPPING:
        raise ModelReferenceError(
            f"transformers {transformers.__version__} knows no model_type {kind!r}, which its config.json names"
        ) from error
    if transformers.CONFIG_MAPPING[kind] not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelReferenceError(f"transformers has no text classifier of the model_type {kind!r}") from error
    try:
        transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as cause:
        raise ModelReferenceError(f"its config.json cannot be used: {_first_line(cause)}") from error
    if "mismatched_sizes" in str(error):
        raise ModelReferenceError("the shapes of its weights are not those that its config.json describes") from error


def _first_line(error: Exception) -> str:
    """Of what it says; with the next one where that only introduces it."""
    line, _, rest = str(error).strip().partition("\n")
    return f"{line} {rest.strip().partition(chr(10))[0]}" if line.endswith(":") else line or type(error).__name__


def classifier(
    directory: Path,
    tokenizer: Tokenizer,
    module: Any,
    phases: Mapping[str, float],
    *,
    loaded_by: str,
    release: Callable[[], None] | None = None,
    state: str | None = None,
) -> Classifier:
    """The model made of these parts of the checkpoint; see `Classifier`. Raises ModelReferenceError.

    `state` is the identity of its files, for whoever knows it already.
    """
    network = TorchNetwork(module, release)
    model = Classifier(tokenizer, network, read_head(directory), phases, loaded_by=loaded_by)
    model.pads = _can_pad(model, state or identity(directory))
    return model


def _can_pad(model: Classifier, state: str) -> bool:
    """Whether shorter texts can be filled up beside longer ones; found out once for each checkpoint, and remembered.

    Some architectures see the padding whatever the attention mask says (convolutions, pooling, Fourier transforms),
    or want it at the other side.
    """
    made_of = f"{state} {transformers.__version__} {torch.__version__} {model.dtype}"
    key = f"padding-{sha256(made_of.encode()).hexdigest()[:24]}"
    if key not in _padding:
        try:
            _padding[key] = remembered(key, lambda: str(_is_alike_padded(model))) == "True"
        except Exception:  # a model that cannot answer at all is told when it is probed
            return True
    return _padding[key]


def _is_alike_padded(model: Classifier) -> bool:
    alone = np.concatenate([model.logits([text]) for text in (SHORT, LONG)])
    tolerance = 1e-4 if model.dtype == "float32" else 5e-2
    return np.allclose(model.logits([SHORT, LONG]), alone, rtol=tolerance, atol=tolerance, equal_nan=True)


def load_module(directory: Path, dtype: str) -> Any:
    """Raises ModelReferenceError when the checkpoint lacks a trained classification head."""
    return load_module_and_report(directory, dtype)[0]


def load_module_and_report(directory: Path, dtype: str) -> tuple[Any, list[str]]:
    """The module, and the names of the file's tensors that it has no use for. Raises as `load_module`."""
    try:
        with _loading:
            module, info = _modules.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        _explain(directory, error)
        raise ModelReferenceError(
            f"transformers cannot build it: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelReferenceError(f"it does not hold {missing[0]}: it is no trained sequence classifier")
    return module.eval(), list(info["unexpected_keys"])
