"""What the loaders of ONNX graphs, `onnxruntime` and `openvino`, share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...checkpoints.heads import Heads
from ...errors import ModelReferenceError
from ..shared_cache import SharedCache
from ..text_model import Network, TextModel, Tokens, longest_text
from . import conversion, facts
from .conversion import Converted
from .facts import CannotConvert, GraphFacts

tokenizers: SharedCache[tuple[Path, int], Tokens] = SharedCache("tokenizers", 64)


class GraphNetwork:
    """The members of `core.loaders.text_model.Network` that do not depend on the runtime."""

    def __init__(self, facts: GraphFacts, dtype: str, nbytes: int) -> None:
        self.dtype = dtype
        self.nbytes = nbytes
        self.inputs = frozenset(facts.inputs)
        self.limit = facts.limit
        self.pad_id = facts.pad_id
        self.embeddings = facts.embeddings
        self.facts = facts

    def first_nan(self) -> str | None:
        """None. A runtime whose weights were not checked before overrides this."""
        return None


def try_convert(directory: Path) -> Converted | CannotConvert:
    """The converted checkpoint, converted now if that was never tried; or the reason why it cannot be."""
    try:
        return conversion.ensure_converted(directory)
    except CannotConvert as reason:
        return reason


def shared_tokenizer(directory: Path, converted: Converted, heads: Heads) -> Tokens:
    """The tokenizer, shared by all checkpoints whose tokenizer files have the same contents."""
    from .tokens import FastTokens

    kept = converted.tokenizer
    length = longest_text(converted.graph.facts.limit, kept.facts.limit, heads)
    file = (directory if kept.facts.is_own else kept.directory) / facts.TOKENIZER
    return tokenizers.get((kept.directory, length), lambda: FastTokens(file, kept.facts, length))


def text_model(
    heads: Heads,
    converted: Converted,
    tokenizer: Tokens,
    network: Network,
    phases: Mapping[str, float],
    *,
    loaded_by: str,
) -> TextModel:
    """The model of the checkpoint over a network that computes its graph. Raises ModelReferenceError."""
    kept = converted.graph.facts
    try:
        heads.check((kept.labels,))  # checkpoints with different labels may share a graph
    except ModelReferenceError:
        network.close()
        raise
    model = TextModel(tokenizer, network, heads, phases, loaded_by=loaded_by)
    model.pads = kept.pads and kept.pads_left == converted.tokenizer.facts.pads_left
    return model
