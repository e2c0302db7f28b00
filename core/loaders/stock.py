"""Loading a checkpoint by transformers, as `from_pretrained` does it."""

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

from ..checkpoints import checkpoint
from ..checkpoints.cache import recall_or_make
from ..checkpoints.checkpoint import identity
from ..checkpoints.header import read_header
from ..checkpoints.heads import Output, known_heads, read_config, read_heads, read_output
from ..errors import ModelReferenceError
from ..tasks.embed import EMBED
from .probe import LONG, SHORT
from .text_model import TextModel
from .torch_network import Tokenizer, TorchNetwork

__all__ = ["Tokenizer", "import_classes", "load_module", "load_module_and_report", "load_tokenizer", "text_model"]


def _import_losses() -> None:
    """Import transformers' losses without SciPy, which only the losses of object detection use.

    SciPy is installed for the runner's statistics. Importing it would delay the start of each server by 0.2 s.
    """
    if "scipy" in sys.modules:
        return
    is_scipy_available.cache_clear()
    sys.modules["scipy"] = None  # type: ignore[assignment]  # makes `import scipy` raise ImportError
    try:
        importlib.import_module("transformers.loss.loss_utils")
    finally:
        del sys.modules["scipy"]
        is_scipy_available.cache_clear()
    losses: Any = importlib.import_module("transformers.loss.loss_for_object_detection")
    losses.linear_sum_assignment = _assign


def _assign(*arguments: Any, **options: Any) -> Any:
    """Call SciPy's `linear_sum_assignment`, which is imported at the first call."""
    optimize = importlib.import_module("scipy.optimize")
    return optimize.linear_sum_assignment(*arguments, **options)


_import_losses()
logging.disable_progress_bar()
_loading = Lock()  # from_pretrained is reported not to be thread-safe (transformers#41782)
_padding: dict[str, bool] = {}
POOLER = "pooler."
_tokenizers: Any = transformers.AutoTokenizer
_modules: dict[Output, Any] = {
    "logits": transformers.AutoModelForSequenceClassification,
    "last_hidden_state": transformers.AutoModel,
}
_mappings: dict[Output, Any] = {
    "logits": transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "last_hidden_state": transformers.MODEL_MAPPING,
}
KINDS: dict[Output, str] = {"logits": "sequence classifier", "last_hidden_state": "encoder"}


def import_classes(directory: Path) -> None:
    """Import what a checkpoint of this architecture needs. Leaves no model in memory.

    Do not call it during a load: the garbage of an import refers to the frames that it ran in.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        _ = _mappings[read_output(directory)][type(config)]  # the lookup imports the module
    except Exception as error:
        _raise_cause(directory, error)
        raise
    load_tokenizer(directory)
    gc.freeze()  # classes are never freed, and traversing all of them takes the collector 0.3 s


def load_tokenizer(directory: Path) -> Tokenizer:
    """The checkpoint's tokenizer.

    Raises ModelReferenceError, also if a file of the tokenizer is missing: transformers would make an empty tokenizer.
    """
    try:
        tokenizer = _tokenizers.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        _raise_cause(directory, error)
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
    present = {key for key, name in declared.items() if (directory / name).is_file()}
    needed = {"merges_file"} & set(declared) if "vocab_file" in present else set()
    if present and not needed - present:
        return
    missing = declared[min(needed - present)] if present else " or ".join(dict.fromkeys(declared.values()))
    raise ModelReferenceError(f"it has no {missing}, which its tokenizer needs; save the tokenizer beside the model")


def _tokenizer_class(directory: Path) -> Any:
    try:
        return json.loads((directory / "tokenizer_config.json").read_text())["tokenizer_class"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _raise_cause(directory: Path, error: Exception) -> None:
    """Raise ModelReferenceError if config.json, or the text of transformers' `error`, tells its cause."""
    read_heads(directory)
    config = read_config(directory)
    kind = config.get("model_type")
    if isinstance(config.get("quantization_config"), dict):
        raise ModelReferenceError(
            "its weights are quantized (quantization_config), which no loader supports"
        ) from error
    if "trust_remote_code" in str(error):
        raise ModelReferenceError("it needs its own code (trust_remote_code), which is never run") from error
    if kind not in transformers.CONFIG_MAPPING:
        raise ModelReferenceError(
            f"transformers {transformers.__version__} does not know the model_type {kind!r} of its config.json"
        ) from error
    if transformers.CONFIG_MAPPING[kind] not in _mappings[read_output(directory)]:
        what = "text classifier" if read_output(directory) == "logits" else "encoder"
        raise ModelReferenceError(f"transformers has no {what} of the model_type {kind!r}") from error
    try:
        transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as cause:
        raise ModelReferenceError(f"its config.json cannot be used: {_first_line(cause)}") from error
    if "mismatched_sizes" in str(error):
        raise ModelReferenceError("the shapes of its weights differ from those in its config.json") from error


def _first_line(error: Exception) -> str:
    """The first line of the error's message, with the next line if the first ends with a colon."""
    line, _, rest = str(error).strip().partition("\n")
    return f"{line} {rest.strip().partition(chr(10))[0]}" if line.endswith(":") else line or type(error).__name__


def text_model(
    directory: Path,
    tokenizer: Tokenizer,
    module: Any,
    phases: Mapping[str, float],
    *,
    loaded_by: str,
    release: Callable[[], None] | None = None,
    state: str | None = None,
) -> TextModel:
    """The model made from these parts of the checkpoint; see `TextModel`. Raises ModelReferenceError.

    `state` is the identity of its files, if it is known already.
    """
    state = state or identity(directory)
    heads = known_heads(directory, state)
    network = TorchNetwork(module, heads.output, release)
    model = TextModel(tokenizer, network, heads, phases, loaded_by=loaded_by)
    model.pads = _can_pad(model, state)
    return model


def _can_pad(model: TextModel, state: str) -> bool:
    """Whether padding shorter texts leaves their answers unchanged. Measured once for each checkpoint, and remembered.

    Some architectures ignore the attention mask, and compute with the padding (convolutions, pooling, Fourier
    transforms), or need it on the other side.
    """
    made_of = f"{state} {transformers.__version__} {torch.__version__} {model.dtype}"
    key = f"padding-{sha256(made_of.encode()).hexdigest()[:24]}"
    if key not in _padding:
        try:
            _padding[key] = recall_or_make(key, lambda: str(_answers_alike_padded(model))) == "True"
        except Exception:  # the probe reports a model that cannot answer at all
            return True
    return _padding[key]


def _answers_alike_padded(model: TextModel) -> bool:
    alone = np.concatenate([model.numbers([text]) for text in (SHORT, LONG)])
    tolerance = 1e-4 if model.dtype == "float32" else 5e-2
    # The numbers of a vector may all be small, those of logits may be small by chance.
    size = 1.0 if model.task != EMBED.name else float(np.abs(alone).max())
    return np.allclose(model.numbers([SHORT, LONG]), alone, rtol=tolerance, atol=tolerance * size, equal_nan=True)


def load_module(directory: Path, dtype: str, output: Output = "logits") -> Any:
    """The module in evaluation mode. Raises ModelReferenceError, also if it has no trained classification head."""
    return load_module_and_report(directory, dtype, output)[0]


def load_module_and_report(directory: Path, dtype: str, output: Output = "logits") -> tuple[Any, list[str]]:
    """The module, and the names of the file's tensors that it does not use. Raises as `load_module` does."""
    try:
        with _loading:
            module, info = _modules[output].from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        _raise_cause(directory, error)
        raise ModelReferenceError(
            f"transformers cannot build it: {type(error).__name__}: {_first_line(error)}"
        ) from error
    missing, unexpected = sorted(info["missing_keys"]), list(info["unexpected_keys"])
    if output == "last_hidden_state":
        unexpected += _drop_pooler(module, directory)
        missing = [name for name in missing if not name.startswith(POOLER)]
    if missing:
        raise ModelReferenceError(f"it does not contain {missing[0]}: it is not a trained {KINDS[output]}")
    return module.eval(), unexpected


def _drop_pooler(module: Any, directory: Path) -> list[str]:
    """Drop the layer behind the last hidden state, which nothing reads, and return the names of its tensors.

    Many checkpoints of encoders have no weights for it.
    """
    if not isinstance(getattr(module, "pooler", None), torch.nn.Module):
        return []
    module.pooler = torch.nn.Identity()
    names = (name for file in checkpoint.weights(directory) for name in read_header(file))
    return [name for name in names if name.removeprefix(f"{module.base_model_prefix}.").startswith(POOLER)]
