"""How many tokens a text may have: read from the module's position embeddings, its config, and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeGuard

UNLIMITED = 1e9  # tokens and more are what tokenizers and configs say that know of no limit (1e30, 1e20)
WITHOUT_LIMIT = 4096  # for a model that has none, since attention takes memory in the square of the tokens
NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")  # in a config
POSITIONS = re.compile(r"(^|\.)(embed_positions?|positions?_embed(ding)?s?|pos_emb(ed(ding)?s?)?|wpe)$")


def limit_of(module: Any) -> int | None:
    """The most tokens of a text that the module computes; None where neither its tables nor its config say."""
    config = module.config.get_text_config()
    limits = [*(getattr(config, name, None) for name in NAMES), *_tables(module)]
    return min((int(limit) for limit in limits if is_limit(limit)), default=None)


def shortest(of_network: int | None, of_tokenizer: Any) -> int:
    """How many tokens a text may have; longer texts are truncated.

    `of_tokenizer` is the tokenizer's `model_max_length`: null, −1 and very large numbers mean no limit.
    """
    limits = (int(limit) for limit in (of_network, of_tokenizer) if is_limit(limit))
    return min(limits, default=WITHOUT_LIMIT)


def is_limit(value: Any) -> TypeGuard[float]:
    """Whether a number of tokens is meant: null, −1 and very large numbers mean that there is no limit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < UNLIMITED


def _tables(module: Any) -> Iterator[int]:
    """The positions for which each table of absolute positions has an embedding.

    RoBERTa and its relatives count positions from behind the padding's, BART and its from an `offset`.
    """
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if weight is None or getattr(weight, "ndim", 0) != 2 or not POSITIONS.search(name):
            continue
        padding = getattr(part, "padding_idx", None)
        yield int(weight.shape[0]) - int(getattr(part, "offset", 0) or (0 if padding is None else padding + 1))
