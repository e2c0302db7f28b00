"""The loader of graphs: a load maps the checkpoint's file and binds values over it."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pluggy

from ...checkpoints import checkpoint
from ...checkpoints.arrays import CannotMap
from ...checkpoints.dtypes import warn_once
from ..classifier import Classifier, Tokens
from ..kept import Kept
from ..laps import Laps
from . import conversion, facts
from .common import classifier, tokenizer_of, tokenizers
from .conversion import Converted
from .facts import CannotConvert
from .packed import Packed

if TYPE_CHECKING:
    from ..mapped.loader import MappedLoader
    from .network import OnnxNetwork

BYTES = {"float32": 4, "int8": 1}
ENOUGH = 200  # forwards
Found = tuple[Converted, Packed] | CannotConvert
Common = tuple[dict[str, Found], dict[tuple[Path, int], Tokens]]


def check_options(dtype: str, pack: Literal["auto"] | bool) -> None:
    """Raise ValueError for a `pack` that is impossible."""
    if dtype == "int8" and pack is False:
        raise ValueError("'dtype: int8' has packed weights only: leave 'pack' out, or use 'pack: true'")


class OnnxRuntimeLoader:
    """Maps the weights into a graph that all checkpoints of an architecture share; falls back to `mapped`.

    A checkpoint is converted once, in a process of its own, into the cache: its architecture's graph, and its
    tokenizer. The weights stay where they are, unless they are packed or quantized. Serving needs no torch.
    """

    name = "onnxruntime"

    def __init__(self, *, dtype: Literal["float32", "int8"] = "float32", pack: Literal["auto"] | bool = "auto") -> None:
        """Raises ValueError for a `pack` that is impossible."""
        check_options(dtype, pack)
        # Imported when a server constructs its loaders: to list a loader and its options needs no engine.
        from ...checkpoints.arrays import MappedArrays
        from . import network, session

        self._dtype: Literal["float32", "int8"] = dtype
        self._pack = True if dtype == "int8" else pack
        self._network, self._session, self._map = network, session, MappedArrays
        self._found: Kept[str, Found] = Kept("conversions", 4096)  # by identity

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def convert(self, directory: Path) -> None:
        """Have the checkpoint converted, and packed where it may be used so. Raises ModelReferenceError."""
        converted = conversion.converted(directory)
        if self._pack is not False:
            Packed(directory, converted, self._dtype).make()

    def prepare(self, directory: Path) -> None:
        """Have the checkpoint converted, and what all loads of its kind have in common at hand."""
        self.load(directory).close()

    def load(self, directory: Path) -> Classifier:
        """Raises ModelReferenceError before a broken file is mapped, and what `mapped` raises where that is used."""
        laps = Laps()
        checkpoint.check(directory)
        found = self._found.get(checkpoint.identity(directory), lambda: self._find(directory))
        if isinstance(found, CannotConvert):
            return self._loaded_by_mapped(directory, found)
        converted, packed = found
        laps.lap("resolve")
        if self._pack is True:
            network = self._packed(directory, converted, packed)
        else:
            try:
                network = self._bound(converted, laps)
            except CannotMap as reason:
                return self._loaded_by_mapped(directory, CannotConvert(str(reason)))
            if self._pack == "auto":
                network = self._may_be_packed(directory, converted, packed, network)
        laps.lap("structure")
        tokenizer = tokenizer_of(directory, converted)
        laps.lap("tokenizer")
        return classifier(directory, converted, tokenizer, network, laps.phases, loaded_by=self.name)

    def common(self) -> Common:
        """What loads have in common; it can be pickled, for another process's loader with the same options."""
        return self._found.items(), tokenizers.items()

    def adopt(self, common: Common) -> None:
        """Take what another loader with the same options has made, for processes that are forked from this one."""
        self._session.prepare_forks()
        self._found.adopt(common[0])
        tokenizers.adopt(common[1])

    def _find(self, directory: Path) -> Found:
        """What a checkpoint is converted to, made now where it is not; or why it cannot be."""
        try:
            converted = conversion.converted(directory)
            packed = Packed(directory, converted, self._dtype)
            if self._pack is True:
                packed.make()
            return converted, packed
        except CannotConvert as reason:
            return reason

    def _bound(self, converted: Converted, laps: Laps) -> OnnxNetwork:
        kept = converted.graph.facts
        weights = self._map(converted.weights)
        weights.read_ahead(set(kept.weights.values()) - set(kept.looked_up))
        laps.lap("weights")
        session = self._session.session_of(converted.graph.directory / facts.GRAPH)
        return self._network.BoundNetwork(session, weights, kept)

    def _packed(self, directory: Path, converted: Converted, packed: Packed) -> OnnxNetwork:
        session = self._session.new_session(packed.graph)
        return self._network.OnnxNetwork(session, converted.graph.facts, self._dtype, self.size(directory))

    def _may_be_packed(self, directory: Path, converted: Converted, packed: Packed, bound: OnnxNetwork) -> OnnxNetwork:
        """A network that begins as `bound` and is packed where it stays in memory for long enough to be worth it."""
        gain = packed.gain() if packed.is_there else None

        def make() -> OnnxNetwork:
            try:
                packed.make()
                return self._packed(directory, converted, packed) if packed.gain().is_faster else bound
            except Exception as error:  # the model goes on without
                warn_once(f"Loader 'onnxruntime' cannot pack {directory}: {error}.")
                return bound

        return self._network.SwitchingNetwork(bound, gain.is_due if gain else _is_kept, make)

    def _loaded_by_mapped(self, directory: Path, reason: CannotConvert) -> Classifier:
        if importlib.util.find_spec("torch") is None:
            raise reason
        warn_once(f"Loader 'onnxruntime' uses 'mapped' for {directory}: {reason}.")
        return self._mapped.load(directory)

    @cached_property
    def _mapped(self) -> MappedLoader:
        from ..mapped.loader import MappedLoader

        return MappedLoader()


def _is_kept(forwards: int) -> bool:
    """Whether a model that was never packed has shown that it stays: packing takes a process of its own, seconds, and
    as much disk as one and a half times the weights.
    """
    return forwards >= ENOUGH


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[OnnxRuntimeLoader]]:
    return [OnnxRuntimeLoader]
