"""Checkpoints that are converted before anything is served or measured."""

from __future__ import annotations

from ..models.onnx.conversion import converted as conversion_of
from ..models.references import resolve


def converted(reference: str) -> str:
    """Where the checkpoint's graph and tokenizer are, in words; made now, unless they are there.

    Raises ModelReferenceError for what leads nowhere, or cannot be converted.
    """
    found = conversion_of(resolve(reference))
    return f"its graph is {found.graph.directory}, its tokenizer {found.tokenizer.directory}"
