"""What the loaders of graphs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...checkpoints.heads import read_head
from ...errors import ModelReferenceError
from ..classifier import Classifier, Network, Tokens
from ..kept import Kept
from ..limits import shortest
from . import conversion, facts
from .conversion import Converted
from .facts import CannotConvert, GraphFacts

tokenizers: Kept[tuple[Path, int], Tokens] = Kept("tokenizers", 64)


class GraphNetwork:
    """What is the same of a graph in every engine; the rest of `core.loaders.classifier.Network` is the engine's."""

    def __init__(self, facts: GraphFacts, dtype: str, nbytes: int) -> None:
        self.dtype = dtype
        self.nbytes = nbytes
        self.inputs = frozenset(facts.inputs)
        self.limit = facts.limit
        self.pad_id = facts.pad_id
        self.embeddings = facts.embeddings
        self.facts = facts

    def first_nan(self) -> str | None:
        """None, where weights that are no numbers are found before they come here."""
        return None


def conversion_of(directory: Path) -> Converted | CannotConvert:
    """What the checkpoint is converted to, now if it was never tried; or why it cannot be."""
    try:
        return conversion.converted(directory)
    except CannotConvert as reason:
        return reason


def tokenizer_of(directory: Path, converted: Converted) -> Tokens:
    """That of all checkpoints whose tokenizers are made from the same contents."""
    from .tokens import FastTokens

    kept = converted.tokenizer
    length = shortest(converted.graph.facts.limit, kept.facts.limit)
    file = (directory if kept.facts.is_own else kept.directory) / facts.TOKENIZER
    return tokenizers.get((kept.directory, length), lambda: FastTokens(file, kept.facts, length))


def classifier(
    directory: Path,
    converted: Converted,
    tokenizer: Tokens,
    network: Network,
    phases: Mapping[str, float],
    *,
    loaded_by: str,
) -> Classifier:
    """The checkpoint's classifier over a network that computes its graph. Raises ModelReferenceError."""
    kept, head = converted.graph.facts, read_head(directory)
    try:
        head.check((kept.labels,))  # labels are no part of what a graph is made from
    except ModelReferenceError:
        network.close()
        raise
    model = Classifier(tokenizer, network, head, phases, loaded_by=loaded_by)
    model.pads = kept.pads and kept.pads_left == converted.tokenizer.facts.pads_left
    return model
