"""A checkpoint in memory: a tokenizer, a network and what its outputs mean, as one Model. Imports no runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.heads import Heads
from ..errors import ModelReferenceError, NoTokens, UnknownToken
from ..tasks.functions import Floats
from ..tasks.task import Text
from .limits import shortest_limit

Encoded = dict[str, list[list[int]]]  # by the name of a model's input: a list of integers for each text
Inputs = dict[str, NDArray[np.int64]]  # the same, padded: arrays of (texts, tokens)
SHORT = 8  # tokens, including special tokens
CLOSED = "this model is closed and cannot be used any more"
PADDING = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}  # the value that pads shorter texts


class Tokens(Protocol):
    """Turns texts, and pairs of texts, into tokens. Threads and models of one kind may share it."""

    limit: Any  # tokens of a text; null, −1 and very large numbers mean that there is no limit
    pads_left: bool

    def __call__(self, items: Sequence[Text], max_tokens: int) -> Encoded:
        """The tokens of the items, each truncated to `max_tokens`; of a pair, the longer text loses tokens first."""

    def vocabulary(self) -> int:
        """The largest token id that a text can have, plus one."""


class Network(Protocol):
    """Weights in memory, and a forward over them."""

    dtype: str
    nbytes: int
    inputs: frozenset[str]  # the outputs of a tokenizer that the forward takes
    limit: int | None  # tokens of a text; None if there is no limit
    pad_id: int | None  # the id of the padding token
    embeddings: int | None  # the number of token embeddings; None if it does not have one for each token

    def forward(self, inputs: Inputs) -> Floats:
        """The output in float32: logits of (texts, labels), or a vector for each of (texts, tokens).

        Raises RuntimeError or IndexError if it cannot compute it.
        """

    def first_nan(self) -> str | None:
        """The name of a weight that contains a value which is not a number; None if there is none."""

    def close(self) -> None:
        """Free the memory. Called once, when no forward runs."""


class TextModel:
    """`core.contracts.Model` over a tokenizer and a network. It holds the only reference to the network."""

    def __init__(
        self, tokenizer: Tokens, network: Network, heads: Heads, phases: Mapping[str, float], *, loaded_by: str
    ) -> None:
        """`loaded_by` is the name of the loader that loaded the network. Set `pads` to False to compute texts of
        different lengths one by one, without padding.
        """
        self.pads = True
        self.phases = phases
        self.loaded_by = loaded_by
        self.dtype = network.dtype
        self.nbytes = network.nbytes
        self.task = next(iter(heads.results))
        self._tokenizer: Tokens | None = tokenizer
        self._network: Network | None = network
        self._heads = heads
        self._max_tokens = longest_text(network.limit, tokenizer.limit, heads)
        self._skipped: int | None = None  # tokens of the prompt; None until they are counted

    @property
    def also(self) -> dict[str, Callable[[Sequence[Text]], list[Any]]]:
        """The further tasks by name. Made anew, so that the model does not refer to itself."""
        return {name: partial(self.results, name) for name in self._heads.results if name != self.task}

    def predict(self, items: Sequence[Text]) -> list[Any]:
        """One result of the main task for each item.

        Raises NoTokens, UnknownToken, NoFiniteScore, and RuntimeError after `close`.
        """
        return self.results(self.task, items)

    def results(self, task: str, items: Sequence[Text]) -> list[Any]:
        """One result of the task for each item. Raises what `predict` raises."""
        return self._heads.results[task](self.numbers(items))

    def numbers(self, items: Sequence[Text]) -> Floats:
        """What results are made from, in float32: an array of (items, labels), or of (items, numbers of a vector).

        Raises NoTokens, UnknownToken, and RuntimeError after `close`; NoFiniteScore for a vector.
        """
        parts, network = self.inputs(items), self._network
        if network is None:
            raise RuntimeError(CLOSED)
        numbers = [self._pool(self._forward(network, part), part) for part in parts]
        whole = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        self._heads.check(whole.shape[1:])
        return whole

    def inputs(self, items: Sequence[Text]) -> list[Inputs]:
        """The network's inputs for the items: one part, or one for each item if they cannot be padded."""
        tokenizer, network, pooling = self._tokenizer, self._network, self._heads.pooling
        if tokenizer is None or network is None:
            raise RuntimeError(CLOSED)
        if pooling is not None:
            items = [pooling.text(item) if isinstance(item, str) else item for item in items]
            if pooling.skips_prompt and pooling.prompt and self._skipped is None:
                # As sentence-transformers counts: without the token that ends a text.
                self._skipped = len(tokenizer([pooling.text("")], self._max_tokens)["input_ids"][0]) - 1
        encoded = tokenizer(items, self._max_tokens)
        for item, ids in zip(items, encoded["input_ids"], strict=True):
            if not ids:
                text = item if isinstance(item, str) else item[0]
                raise NoTokens(f"The text {text[:40]!r} has no tokens, so this model has nothing to compute.")
        return [self._pad(part, tokenizer, network) for part in self._split(encoded, network)]

    def _pool(self, output: Floats, inputs: Inputs) -> Floats:
        pooling = self._heads.pooling
        if pooling is None:
            return output
        return pooling.vectors(output, inputs.get("attention_mask"), self._skipped or 0)

    def _forward(self, network: Network, inputs: Inputs) -> Floats:
        try:
            return network.forward(inputs)
        except (RuntimeError, IndexError) as error:  # some models pool their input, which leaves nothing of a short one
            texts, tokens = inputs["input_ids"].shape
            if texts == 1 and tokens <= SHORT:
                raise NoTokens(f"A text of {tokens} tokens is too short for this model.") from error
            raise

    def check(self) -> None:
        """Raise ModelReferenceError if a weight is not a number, or if a text can have a token without an embedding.

        Such a model may answer the texts of a probe, and still fail for others.
        """
        assert self._tokenizer is not None
        assert self._network is not None
        if name := self._network.first_nan():
            raise ModelReferenceError(f"its weights contain values that are not numbers ({name})")
        vocabulary, embeddings = self._tokenizer.vocabulary(), self._network.embeddings
        if embeddings is not None and vocabulary > embeddings:
            raise ModelReferenceError(
                f"the tokenizer has {vocabulary} tokens, but the model has embeddings for {embeddings}: they do"
                " not belong together"
            )

    def close(self) -> None:
        """Free the memory. May be called again."""
        network, self._network, self._tokenizer = self._network, None, None
        if network is not None:
            network.close()

    def _split(self, encoded: Encoded, network: Network) -> Iterator[Encoded]:
        """The parts that are computed separately: all texts together, or each by itself if they cannot be padded.

        Decoders find a text's last token by the id of the padding token, and refuse several texts if there is none.
        """
        lengths = {len(ids) for ids in encoded["input_ids"]}
        count = len(encoded["input_ids"])
        has_padding = set(encoded) & network.inputs <= {"input_ids", *PADDING}
        can_pad = self.pads and network.pad_id is not None and has_padding
        if count == 1 or (can_pad and (len(lengths) == 1 or "attention_mask" in network.inputs)):
            yield encoded
            return
        for index in range(count):
            yield {name: [rows[index]] for name, rows in encoded.items()}

    def _pad(self, encoded: Encoded, tokenizer: Tokens, network: Network) -> Inputs:
        """The network's inputs as arrays. Shorter texts are padded on the side that the tokenizer pads.

        Raises UnknownToken.
        """
        longest = max(len(ids) for ids in encoded["input_ids"])
        arrays = {}
        for name, rows in encoded.items():
            if name not in network.inputs:
                continue
            value = PADDING.get(name, network.pad_id or 0)
            if any(len(row) < longest for row in rows):
                padding = [[value] * (longest - len(row)) for row in rows]
                rows = [p + r if tokenizer.pads_left else r + p for p, r in zip(padding, rows, strict=True)]
            arrays[name] = np.array(rows, dtype=np.int64)
        largest, embeddings = int(arrays["input_ids"].max()), network.embeddings
        if embeddings is not None and largest >= embeddings:
            raise UnknownToken(f"A text contains the token {largest}, for which this model has no embedding.")
        return arrays


def longest_text(of_network: int | None, of_tokenizer: Any, heads: Heads) -> int:
    """The number of tokens to which longer texts are truncated."""
    return shortest_limit(of_network, of_tokenizer, None if heads.pooling is None else heads.pooling.limit)
