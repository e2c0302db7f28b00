"""A sequence classifier in memory: tokenizer and network as one Model. Knows no engine; imports none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.heads import Floats, Head
from ..contracts import Prediction
from ..errors import ModelReferenceError, NoTokens, UnknownToken
from .limits import shortest

Encoded = dict[str, list[list[int]]]  # by the name of a model's input, a list of integers for each text
Inputs = dict[str, NDArray[np.int64]]  # the same, filled up: arrays of (texts, tokens)
SHORT = 8  # tokens, the special ones included
CLOSED = "this model is closed; nobody may use it any more"
PADDING = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}  # what fills up a shorter text


class Tokens(Protocol):
    """Makes tokens of texts; threads, and models of one kind, may share it."""

    limit: Any  # of a text's tokens; null, −1 and very large numbers mean none
    pads_left: bool

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Encoded:
        """The texts' tokens, each text cut to `max_tokens`."""

    def vocabulary(self) -> int:
        """One more than the largest token id that a text can have."""


class Network(Protocol):
    """Weights in memory, and the forward over them in some engine."""

    dtype: str
    nbytes: int
    inputs: frozenset[str]  # of a tokenizer's outputs those that the forward takes
    limit: int | None  # tokens of a text; None where it has no limit
    pad_id: int | None  # of the token that fills up a shorter text
    embeddings: int | None  # for how many tokens it has an embedding; None where it has none for each token

    def forward(self, inputs: Inputs) -> Floats:
        """Logits of (texts, labels), in float32. Raises RuntimeError or IndexError for what it cannot compute."""

    def first_nan(self) -> str | None:
        """The name of a weight that holds a value which is not a number, if there is one."""

    def close(self) -> None:
        """Give the memory back; called once, when no forward runs."""


class Classifier:
    """`core.contracts.Model` over a tokenizer and a network, whose only reference it holds."""

    def __init__(
        self, tokenizer: Tokens, network: Network, head: Head, phases: Mapping[str, float], *, loaded_by: str
    ) -> None:
        """`loaded_by` is the name of the loader whose way was used. Texts are filled up to a common length until `pads`
        is set to False.
        """
        self.pads = True
        self.phases = phases
        self.loaded_by = loaded_by
        self.dtype = network.dtype
        self.nbytes = network.nbytes
        self.labels = head.labels
        self._tokenizer: Tokens | None = tokenizer
        self._network: Network | None = network
        self._head = head
        self._max_tokens = shortest(network.limit, tokenizer.limit)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises RuntimeError after `close`, NoTokens, UnknownToken, and NoFiniteScore."""
        return self._head.predictions(self.logits(texts))

    def logits(self, texts: Sequence[str]) -> Floats:
        """Of (texts, labels), in float32. Raises as `predict`, but for NoFiniteScore."""
        parts, network = self.inputs(texts), self._network
        if network is None:
            raise RuntimeError(CLOSED)
        logits = [self._forward(network, part) for part in parts]
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def inputs(self, texts: Sequence[str]) -> list[Inputs]:
        """What the network is given for the texts: in one part, or each by itself where it cannot be filled up."""
        tokenizer, network = self._tokenizer, self._network
        if tokenizer is None or network is None:
            raise RuntimeError(CLOSED)
        encoded = tokenizer(texts, self._max_tokens)
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            if not ids:
                raise NoTokens(f"The text {text[:40]!r} gives no tokens; this model has nothing to compute for it.")
        return [self._filled(part, tokenizer, network) for part in self._parts(encoded, network)]

    def _forward(self, network: Network, inputs: Inputs) -> Floats:
        try:
            return network.forward(inputs)
        except (RuntimeError, IndexError) as error:  # some reduce their input by pooling, to nothing
            texts, tokens = inputs["input_ids"].shape
            if texts == 1 and tokens <= SHORT:
                raise NoTokens(f"A text of {tokens} tokens is too short for this model.") from error
            raise

    def check(self) -> None:
        """Raise ModelReferenceError where some texts could not be answered, whatever those are that it is probed with:
        a weight is no number, or a text can have a token for which there is no embedding.
        """
        assert self._tokenizer is not None
        assert self._network is not None
        if name := self._network.first_nan():
            raise ModelReferenceError(f"its weights hold values that are not numbers ({name})")
        vocabulary, embeddings = self._tokenizer.vocabulary(), self._network.embeddings
        if embeddings is not None and vocabulary > embeddings:
            raise ModelReferenceError(
                f"the tokenizer has {vocabulary} tokens, but the model has embeddings for {embeddings}: they do"
                " not belong together"
            )

    def close(self) -> None:
        network, self._network, self._tokenizer = self._network, None, None
        if network is not None:
            network.close()

    def _parts(self, encoded: Encoded, network: Network) -> Iterator[Encoded]:
        """What is computed together: all, or, where shorter texts cannot be filled up, each text by itself.

        Decoders find a text's last token by the padding's id, and refuse several texts where there is none.
        """
        lengths = {len(ids) for ids in encoded["input_ids"]}
        count = len(encoded["input_ids"])
        fillable = set(encoded) & network.inputs <= {"input_ids", *PADDING}
        can_pad = self.pads and network.pad_id is not None and fillable
        if count == 1 or (can_pad and (len(lengths) == 1 or "attention_mask" in network.inputs)):
            yield encoded
            return
        for index in range(count):
            yield {name: [rows[index]] for name, rows in encoded.items()}

    def _filled(self, encoded: Encoded, tokenizer: Tokens, network: Network) -> Inputs:
        """The network's inputs, of one length: shorter texts are filled up at the tokenizer's side."""
        longest = max(len(ids) for ids in encoded["input_ids"])
        arrays = {}
        for name, rows in encoded.items():
            if name not in network.inputs:
                continue
            filler = PADDING.get(name, network.pad_id or 0)
            if any(len(row) < longest for row in rows):
                fill = [[filler] * (longest - len(row)) for row in rows]
                rows = [f + r if tokenizer.pads_left else r + f for f, r in zip(fill, rows, strict=True)]
            arrays[name] = np.array(rows, dtype=np.int64)
        largest, known = int(arrays["input_ids"].max()), network.embeddings
        if known is not None and largest >= known:
            raise UnknownToken(f"A text holds the token {largest}, for which this model has no embedding.")
        return arrays
