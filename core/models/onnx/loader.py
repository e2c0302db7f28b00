"""The loader of graphs: a load maps the checkpoint's file and binds values over it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pluggy

from .. import checkpoint
from ..classifier import Classifier, Tokens
from ..heads import read_head
from ..kept import Kept
from ..laps import Laps
from ..limits import shortest
from ..precision import in_dtype
from . import conversion, facts
from .conversion import CannotConvert, Converted

if TYPE_CHECKING:
    from ..mapped_loader import MappedLoader

log = logging.getLogger("residency")
tokenizers: Kept[tuple[Path, int], Tokens] = Kept("tokenizers", 64)


class OnnxRuntimeLoader:
    """Maps the weights into a graph that all checkpoints of an architecture share; falls back to `mapped`.

    A checkpoint is converted once, in a process of its own, into the cache: its architecture's graph, and its
    tokenizer. The weights stay where they are. Serving needs no torch.
    """

    name = "onnxruntime"

    def __init__(self) -> None:
        # Imported when a server constructs its loaders: to list a loader and its options needs no engine.
        from ..arrays import MappedArrays
        from . import network, session, tokens

        self._network, self._session, self._tokens, self._map = network, session, tokens, MappedArrays
        self._converted: Kept[str, Converted | CannotConvert] = Kept("conversions", 4096)  # by the files' identity
        self._lock = Lock()  # protects what stands below
        self._mapped: MappedLoader | None = None
        self._warned: set[str] = set()

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=4)

    def prepare(self, directory: Path) -> None:
        """Have the checkpoint converted, and what all loads of its kind have in common at hand."""
        self.load(directory).close("request")

    def load(self, directory: Path) -> Any:
        """Raises ModelReferenceError before a broken file is mapped, and what `mapped` raises where that is used."""
        laps = Laps()
        checkpoint.check(directory)
        converted = self._converted.get(checkpoint.identity(directory), lambda: _converted(directory))
        if isinstance(converted, CannotConvert):
            return self._loaded_by_mapped(directory, converted)
        laps.lap("resolve")
        kept = converted.graph.facts
        weights = self._map(checkpoint.weights(in_dtype(directory, "float32")))
        weights.read_ahead(set(kept.weights.values()) - set(kept.looked_up))
        laps.lap("weights")
        session = self._session.session_of(converted.graph.directory / facts.GRAPH)
        network = self._network.OnnxNetwork(session, weights, kept)
        laps.lap("structure")
        tokenizer = self._tokenizer(directory, converted)
        laps.lap("tokenizer")
        model = Classifier(tokenizer, network, read_head(directory), laps.phases, loaded_by=self.name)
        model.pads = kept.pads and kept.pads_left == converted.tokenizer.facts.pads_left
        return model

    def _tokenizer(self, directory: Path, converted: Converted) -> Tokens:
        """That of all checkpoints whose tokenizers are made from the same contents."""
        kept = converted.tokenizer
        length = shortest(converted.graph.facts.limit, kept.facts.limit)
        file = (directory if kept.facts.is_own else kept.directory) / facts.TOKENIZER
        make = self._tokens.FastTokens
        return tokenizers.get((kept.directory, length), lambda: make(file, kept.facts, length))

    def _loaded_by_mapped(self, directory: Path, reason: CannotConvert) -> Any:
        if importlib.util.find_spec("torch") is None:
            raise reason
        sentence = f"Loader 'onnxruntime' uses 'mapped' for {directory}: {reason}."
        with self._lock:
            is_new = sentence not in self._warned
            self._warned.add(sentence)
            if self._mapped is None:
                from ..mapped_loader import MappedLoader

                self._mapped = MappedLoader()
        if is_new:
            log.warning("%s", sentence)
        return self._mapped.load(directory)


def _converted(directory: Path) -> Converted | CannotConvert:
    try:
        return conversion.converted(directory)
    except CannotConvert as reason:
        return reason


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[OnnxRuntimeLoader]]:
    return [OnnxRuntimeLoader]
