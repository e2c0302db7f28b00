"""The number of tokens that a text may have, by a module's position embeddings, its config and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeGuard

UNLIMITED = 1e9  # this many tokens or more mean no limit; tokenizers and configs use 1e30 and 1e20
WITHOUT_LIMIT = 4096  # tokens for a model without a limit, because attention takes memory in the square of the tokens
NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")  # keys of a config
POSITIONS = re.compile(r"(^|\.)(embed_positions?|positions?_embed(ding)?s?|pos_emb(ed(ding)?s?)?|wpe)$")


def token_limit(module: Any) -> int | None:
    """The most tokens of a text that the module can compute; None if neither its embeddings nor its config say."""
    config = module.config.get_text_config()
    limits = [*(getattr(config, name, None) for name in NAMES), *_position_counts(module)]
    return min((int(limit) for limit in limits if is_limit(limit)), default=None)


def shortest_limit(*limits: Any) -> int:
    """The lowest of the limits, such as of the network and of the tokenizer, to which longer texts are truncated.

    null, −1 and very large numbers mean no limit, as in `model_max_length` of a tokenizer.
    """
    return min((int(limit) for limit in limits if is_limit(limit)), default=WITHOUT_LIMIT)


def is_limit(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number of tokens. null, −1 and very large numbers mean that there is no limit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < UNLIMITED


def _position_counts(module: Any) -> Iterator[int]:
    """The number of usable positions of each table of absolute position embeddings.

    Models like RoBERTa count positions from after `padding_idx`, models like BART from an `offset`.
    """
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if weight is None or getattr(weight, "ndim", 0) != 2 or not POSITIONS.search(name):
            continue
        padding = getattr(part, "padding_idx", None)
        yield int(weight.shape[0]) - int(getattr(part, "offset", 0) or (0 if padding is None else padding + 1))
