"""Texts of several requests, computed together: which ones, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..choices import Batching

CHARACTERS_PER_TOKEN = 4  # of English, roughly; nobody tokenizes twice to know it better
SPECIAL_TOKENS = 2  # around every text


def tokens(text: str) -> int:
    """An estimate that costs nothing."""
    return len(text) // CHARACTERS_PER_TOKEN + SPECIAL_TOKENS


def chunks(texts: Sequence[str], limits: Batching) -> Iterator[list[int]]:
    """Indices of the texts, the short ones first, in parts that are padded to a common length each.

    A part holds at most `max_batch_size` texts and `max_batch_tokens` tokens, padding included, or one text.
    """
    part: list[int] = []
    for index in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        padded = (len(part) + 1) * tokens(texts[index])  # this one is the longest so far
        if part and (len(part) == limits.max_batch_size or padded > limits.max_batch_tokens):
            yield part
            part = []
        part.append(index)
    yield part
