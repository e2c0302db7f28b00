"""A sequence classifier in memory: tokenizer and module as one Model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from threading import Lock
from typing import Any

import torch

from ..contracts import Prediction, Reason
from ..errors import ModelReferenceError, NoTokens, UnknownToken
from .heads import Head
from .limits import token_limit

Encoded = dict[str, list[list[int]]]  # by the name of a model's input, a list of integers for each text
SHORT = 8  # tokens, the special ones included
PADDING = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}  # what fills up a shorter text


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
        """The texts' tokens, each text cut to `max_tokens`. Raises NoTokens for a text that has none."""
        with self._lock:
            encoded: Encoded = dict(self._tokenizer(list(texts), truncation=True, max_length=max_tokens))
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            if not ids:
                raise NoTokens(f"The text {text[:40]!r} gives no tokens; this model has nothing to compute for it.")
        return encoded

    def vocabulary(self) -> int:
        """One more than the largest token id that a text can have; reads the whole vocabulary."""
        with self._lock:
            ids = [i for i in self._tokenizer.get_vocab().values() if i != self.pad_id]
        return max(ids, default=-1) + 1


class Classifier:
    """`core.contracts.Model` over a tokenizer and a transformers module, whose only reference it holds."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        module: Any,
        head: Head,
        phases: Mapping[str, float],
        *,
        loaded_by: str,
        release: Callable[[], None] | None = None,
    ) -> None:
        """`loaded_by` is the name of the loader whose way was used; `release` is called by `close`, before the module's
        last reference goes. Texts are filled up to a common length until `pads` is set to False.
        """
        self.pads = True
        self.phases = phases
        self.loaded_by = loaded_by
        self.dtype = str(module.dtype).removeprefix("torch.")
        self.nbytes = sum(t.numel() * t.element_size() for t in chain(module.parameters(), module.buffers()))
        self._release = release
        self._tokenizer: Tokenizer | None = tokenizer
        self._module: Any = module
        self.labels = head.labels
        self._head = head
        self._max_tokens = token_limit(module, tokenizer.limit)
        self._inputs, self._constants = _signature(type(module).forward)
        self._pad_id = getattr(module.config.get_text_config(), "pad_token_id", None)
        self._embeddings = _embeddings(module)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises RuntimeError after `close`, NoTokens, UnknownToken, and NoFiniteScore."""
        return self._head.predictions(self.logits(texts).numpy())

    def logits(self, texts: Sequence[str]) -> torch.Tensor:
        """Of (texts, labels), in float32. Raises as `predict`, but for NoFiniteScore."""
        tokenizer, module = self._tokenizer, self._module
        if tokenizer is None or module is None:
            raise RuntimeError("this model is closed; a strategy must not lend it out any more")
        encoded = tokenizer(texts, self._max_tokens)
        parts = [self._tensors(part, tokenizer) for part in self._parts(encoded)]
        with torch.inference_mode():
            return torch.cat([self._forward(module, part) for part in parts])

    def _forward(self, module: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        try:
            logits: torch.Tensor = module(**inputs, **self._constants).logits
        except (RuntimeError, IndexError) as error:  # some reduce their input by pooling, to nothing
            texts, tokens = inputs["input_ids"].shape
            if texts == 1 and tokens <= SHORT:
                raise NoTokens(f"A text of {tokens} tokens is too short for this model.") from error
            raise
        return logits.to(torch.float32)

    def check(self) -> None:
        """Raise ModelReferenceError where some texts could not be answered, whatever those are that it is probed with:
        a weight is no number, or a text can have a token for which there is no embedding.
        """
        assert self._tokenizer is not None
        for name, parameter in self._module.named_parameters():
            if parameter.is_floating_point() and bool(parameter.isnan().any()):
                raise ModelReferenceError(f"its weights hold values that are not numbers ({name})")
        vocabulary = self._tokenizer.vocabulary()
        if self._embeddings is not None and vocabulary > self._embeddings:
            raise ModelReferenceError(
                f"the tokenizer has {vocabulary} tokens, but the model has embeddings for {self._embeddings}: they do"
                " not belong together"
            )

    def close(self, reason: Reason) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
        self._tokenizer = self._module = None

    def _parts(self, encoded: Encoded) -> Iterator[Encoded]:
        """What is computed together: all, or, where shorter texts cannot be filled up, each text by itself.

        Decoders find a text's last token by the padding's id, and refuse several texts where there is none.
        """
        lengths = {len(ids) for ids in encoded["input_ids"]}
        count = len(encoded["input_ids"])
        can_pad = self.pads and self._pad_id is not None and set(encoded) & self._inputs <= {"input_ids", *PADDING}
        if count == 1 or (can_pad and (len(lengths) == 1 or "attention_mask" in self._inputs)):
            yield encoded
            return
        for index in range(count):
            yield {name: [rows[index]] for name, rows in encoded.items()}

    def _tensors(self, encoded: Encoded, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
        """The module's inputs, of one length: shorter texts are filled up at the tokenizer's side."""
        longest = max(len(ids) for ids in encoded["input_ids"])
        tensors = {}
        for name, rows in encoded.items():
            if name not in self._inputs:
                continue
            filler = PADDING.get(name, self._pad_id or 0)
            if any(len(row) < longest for row in rows):
                fill = [[filler] * (longest - len(row)) for row in rows]
                rows = [f + r if tokenizer.pads_left else r + f for f, r in zip(fill, rows, strict=True)]
            tensors[name] = torch.tensor(rows)
        if self._embeddings is not None and (largest := int(tensors["input_ids"].max())) >= self._embeddings:
            raise UnknownToken(f"A text holds the token {largest}, for which this model has no embedding.")
        return tensors


@cache
def _signature(forward: Callable[..., Any]) -> tuple[frozenset[str], dict[str, Any]]:
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
