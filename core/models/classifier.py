"""A sequence classifier in memory: tokenizer and module as one Model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from threading import Lock
from typing import Any

import torch

from ..contracts import Prediction, Reason


class Classifier:
    """`core.contracts.Model` over a transformers tokenizer and module, whose reference it owns."""

    def __init__(self, tokenizer: Any, module: Any, phases: Mapping[str, float]) -> None:
        self.phases = phases
        self.nbytes = sum(t.numel() * t.element_size() for t in chain(module.parameters(), module.buffers()))
        self._tokenizer: Any = tokenizer
        self._module: Any = module
        # A tokenizer's padding and truncation are its state; two threads at it are "Already borrowed".
        self._tokenizing = Lock()
        limits = (tokenizer.model_max_length, getattr(module.config, "max_position_embeddings", None))
        self._max_tokens = int(min(limit for limit in limits if limit is not None and limit > 0))
        if module.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            self._max_tokens -= module.config.pad_token_id + 1  # their positions start behind the padding's

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises RuntimeError after `close`."""
        tokenizer, module = self._tokenizer, self._module
        if tokenizer is None or module is None:
            raise RuntimeError("this model is closed; a strategy must not lend it out any more")
        with self._tokenizing:
            inputs = tokenizer(
                list(texts), padding="longest", truncation=True, max_length=self._max_tokens, return_tensors="pt"
            )
        with torch.inference_mode():
            logits = module(**inputs).logits.to(torch.float32)
        scores, indices = logits.softmax(dim=-1).max(dim=-1)
        names = module.config.id2label
        return [Prediction(names[i], score) for i, score in zip(indices.tolist(), scores.tolist(), strict=True)]

    def close(self, reason: Reason) -> None:
        self._tokenizer = self._module = None
