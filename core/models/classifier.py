"""A sequence classifier in memory: tokenizer and module as one Model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from threading import Lock
from typing import Any

import torch

from ..contracts import Prediction, Reason


class Tokenizer:
    """A transformers tokenizer that threads, and models of one kind, may share."""

    def __init__(self, tokenizer: Any) -> None:
        self.limit = int(tokenizer.model_max_length)
        self._tokenizer = tokenizer
        # Its padding and truncation are its state; two threads at it are "Already borrowed".
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any]]:
        return Tokenizer, (self._tokenizer,)

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Any:
        with self._lock:
            return self._tokenizer(
                list(texts), padding="longest", truncation=True, max_length=max_tokens, return_tensors="pt"
            )


class Classifier:
    """`core.contracts.Model` over a tokenizer and a transformers module, whose only reference it holds."""

    def __init__(
        self, tokenizer: Tokenizer, module: Any, phases: Mapping[str, float], release: Callable[[], None] | None = None
    ) -> None:
        """`release` is called by `close`, before the module's last reference goes."""
        self.phases = phases
        self._release = release
        self.nbytes = sum(t.numel() * t.element_size() for t in chain(module.parameters(), module.buffers()))
        self._tokenizer: Tokenizer | None = tokenizer
        self._module: Any = module
        self._max_tokens = min(tokenizer.limit, _positions(module.config))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises RuntimeError after `close`."""
        tokenizer, module = self._tokenizer, self._module
        if tokenizer is None or module is None:
            raise RuntimeError("this model is closed; a strategy must not lend it out any more")
        inputs = tokenizer(texts, self._max_tokens)
        with torch.inference_mode():
            logits = module(**inputs).logits.to(torch.float32)
        scores, indices = logits.softmax(dim=-1).max(dim=-1)
        names = module.config.id2label
        return [Prediction(names[i], score) for i, score in zip(indices.tolist(), scores.tolist(), strict=True)]

    def close(self, reason: Reason) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
        self._tokenizer = self._module = None


def _positions(config: Any) -> int:
    """The tokens that a model has positions for; RoBERTa and its kin start theirs behind the padding's."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1
    return int(positions)
