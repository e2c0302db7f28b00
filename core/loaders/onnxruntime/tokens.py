"""A tokenizer made from `tokenizer.json` alone, which gives the same tokens as transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from ...tasks.task import Text
from ..text_model import Encoded
from .facts import TokenizerFacts

OUTPUTS: dict[str, Callable[[Encoding], list[int]]] = {
    "input_ids": lambda encoding: encoding.ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "token_type_ids": lambda encoding: encoding.type_ids,
    "special_tokens_mask": lambda encoding: encoding.special_tokens_mask,
}


class FastTokens:
    """`core.loaders.text_model.Tokens` without transformers. It can be pickled.

    The length for truncation is part of the state of the underlying tokenizer. It is set once, so that threads and
    models can share the object; another length needs another object.
    """

    def __init__(self, file: Path, facts: TokenizerFacts, max_tokens: int) -> None:
        self.limit = facts.limit
        self.pads_left = facts.pads_left
        self._pad_id = facts.pad_id
        self._max_tokens = max_tokens
        self._outputs = facts.inputs
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, direction="left" if facts.truncates_left else "right")

    def __call__(self, items: Sequence[Text], max_tokens: int) -> Encoded:
        """The tokens of the items. Raises ValueError if `max_tokens` is not the length that it was made for."""
        if max_tokens != self._max_tokens:
            raise ValueError(f"this tokenizer truncates texts to {self._max_tokens} tokens, not to {max_tokens}")
        encode = self._tokenizer.encode
        encodings = [encode(item) if isinstance(item, str) else encode(*item) for item in items]
        return {name: [OUTPUTS[name](encoding) for encoding in encodings] for name in self._outputs}

    def vocabulary(self) -> int:
        ids = [i for i in self._tokenizer.get_vocab().values() if i != self._pad_id]
        return max(ids, default=-1) + 1


def canonical(tokenizer_json: str) -> str:
    """A normal form of tokenizer.json without padding and truncation: if two are equal, their tokens are equal."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return json.dumps(json.loads(tokenizer.to_str()), sort_keys=True)
