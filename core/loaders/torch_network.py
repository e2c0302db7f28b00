"""A transformers module as a Network, and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from threading import Lock
from typing import Any

import torch

from ..checkpoints.heads import Floats
from ..system.threads import spread_torch
from .classifier import Encoded, Inputs
from .limits import limit_of


class Tokenizer:
    """A transformers tokenizer that threads, and models of one kind, may share."""

    def __init__(self, tokenizer: Any) -> None:
        self.limit: Any = tokenizer.model_max_length
        self.pads_left = tokenizer.padding_side == "left"
        self.pad_id: int | None = tokenizer.pad_token_id
        self._tokenizer = tokenizer
        # Truncation is its state; two threads at it are "Already borrowed".
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any]]:
        return Tokenizer, (self._tokenizer,)

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Encoded:
        with self._lock:
            return dict(self._tokenizer(list(texts), truncation=True, max_length=max_tokens))

    def vocabulary(self) -> int:
        """One more than the largest token id that a text can have; reads the whole vocabulary."""
        with self._lock:
            ids = [i for i in self._tokenizer.get_vocab().values() if i != self.pad_id]
        return max(ids, default=-1) + 1

    @property
    def stock(self) -> Any:
        """What transformers made."""
        return self._tokenizer


class TorchNetwork:
    """A module whose only reference it holds."""

    def __init__(self, module: Any, release: Callable[[], None] | None = None) -> None:
        """`release` is called by `close`, before the module's last reference goes."""
        self.dtype = str(module.dtype).removeprefix("torch.")
        self.nbytes = sum(t.numel() * t.element_size() for t in chain(module.parameters(), module.buffers()))
        self.inputs, self.constants = signature(type(module).forward)
        self.limit = limit_of(module)
        self.pad_id: int | None = getattr(module.config.get_text_config(), "pad_token_id", None)
        self.embeddings = _embeddings(module)
        self._module: Any = module
        self._release = release

    def forward(self, inputs: Inputs) -> Floats:
        spread_torch()
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            logits: torch.Tensor = self._module(**tensors, **self.constants).logits
        as_float32: Floats = logits.to(torch.float32).numpy()
        return as_float32

    def first_nan(self) -> str | None:
        floats = ((name, each) for name, each in self._module.named_parameters() if each.is_floating_point())
        return next((name for name, parameter in floats if bool(parameter.isnan().any())), None)

    def close(self) -> None:
        if self._release is not None:
            self._release()
        self._module = self._release = None


@cache
def signature(forward: Callable[..., Any]) -> tuple[frozenset[str], dict[str, Any]]:
    """Which of a tokenizer's outputs a module takes, and what it is told besides: to keep no keys and values."""
    parameters = inspect.signature(forward).parameters
    inputs = frozenset(parameters) - {"self", "labels"}
    return inputs, {"use_cache": False} if "use_cache" in parameters else {}


def _embeddings(module: Any) -> int | None:
    """For how many tokens the module has an embedding; None where it has none for each token."""
    try:
        embedding = module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return int(embedding.num_embeddings) if isinstance(embedding, torch.nn.Embedding) else None
