"""A transformers module as a Network, and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from threading import Lock
from typing import Any

import torch

from ..checkpoints.heads import Output
from ..system.threads import spread_torch
from ..tasks.functions import Floats
from ..tasks.task import Text
from .limits import token_limit
from .text_model import Encoded, Inputs


class Tokenizer:
    """A transformers tokenizer that threads and models of one kind may share."""

    def __init__(self, tokenizer: Any) -> None:
        self.limit: Any = tokenizer.model_max_length
        self.pads_left = tokenizer.padding_side == "left"
        self.pad_id: int | None = tokenizer.pad_token_id
        self._tokenizer = tokenizer
        # Truncation is part of its state. Two threads at a time would raise "Already borrowed".
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any]]:
        return Tokenizer, (self._tokenizer,)

    def __call__(self, items: Sequence[Text], max_tokens: int) -> Encoded:
        are_texts = {isinstance(item, str) for item in items}
        if len(are_texts) > 1:  # texts and pairs are mixed
            each = [self([item], max_tokens) for item in items]
            return {name: [encoded[name][0] for encoded in each] for name in each[0]}
        # As lists, because a single pair whose second text is empty is taken for a text.
        texts = (list(items),) if are_texts == {True} else tuple(map(list, zip(*items, strict=True)))
        with self._lock:
            return dict(self._tokenizer(*texts, truncation=True, max_length=max_tokens))

    def vocabulary(self) -> int:
        """The largest token id that a text can have, plus one. Reads the whole vocabulary."""
        with self._lock:
            ids = [i for i in self._tokenizer.get_vocab().values() if i != self.pad_id]
        return max(ids, default=-1) + 1

    @property
    def stock(self) -> Any:
        """The tokenizer that transformers made."""
        return self._tokenizer


class TorchNetwork:
    """A network over a transformers module, to which it holds the only reference."""

    def __init__(self, module: Any, output: Output, release: Callable[[], None] | None = None) -> None:
        """`output` is the name of the module's output. `close` calls `release` before it drops the module."""
        self.dtype = str(module.dtype).removeprefix("torch.")
        self.nbytes = sum(t.numel() * t.element_size() for t in chain(module.parameters(), module.buffers()))
        self.inputs, self.constants = signature(type(module).forward)
        self.limit = token_limit(module)
        self.pad_id: int | None = getattr(module.config.get_text_config(), "pad_token_id", None)
        self.embeddings = _embeddings(module)
        self.output = output
        self._module: Any = module
        self._release = release

    def forward(self, inputs: Inputs) -> Floats:
        spread_torch()
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            output: torch.Tensor = getattr(self._module(**tensors, **self.constants), self.output)
        as_float32: Floats = output.to(torch.float32).numpy()
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
    """The names of the inputs that a forward takes, and its constant arguments: not to cache keys and values."""
    parameters = inspect.signature(forward).parameters
    inputs = frozenset(parameters) - {"self", "labels"}
    return inputs, {"use_cache": False} if "use_cache" in parameters else {}


def _embeddings(module: Any) -> int | None:
    """The number of the module's token embeddings; None if it does not have one for each token."""
    try:
        embedding = module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return int(embedding.num_embeddings) if isinstance(embedding, torch.nn.Embedding) else None
