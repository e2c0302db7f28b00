"""The loader `onnxruntime`: maps a checkpoint, and binds its tensors to the inputs of its architecture's graph."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pluggy
from pydantic import Field

from ...checkpoints import checkpoint
from ...checkpoints.arrays import CannotMap
from ...checkpoints.dtypes import warn_once
from ...checkpoints.heads import known_heads
from ..phase_timer import PhaseTimer
from ..shared_cache import SharedCache
from ..text_model import TextModel, Tokens
from . import conversion, facts
from .common import shared_tokenizer, text_model, tokenizers
from .conversion import Converted
from .facts import CannotConvert
from .packed import Packed

if TYPE_CHECKING:
    from ..mapped.loader import MappedLoader
    from .network import OnnxNetwork

BYTES = {"float32": 4, "int8": 1}
ENOUGH = 200  # forwards, after which the weights of a model are packed for the first time
PACK = (
    "Packs the weights, for faster forwards. `auto`: of a model that stays in memory. `true`: before the first load."
    " `false`: never."
)
Found = tuple[Converted, Packed] | CannotConvert
SharedState = tuple[dict[str, Found], dict[tuple[Path, int], Tokens]]


def check_options(dtype: str, pack: Literal["auto"] | bool) -> None:
    """Raise ValueError if `dtype` does not allow this value of `pack`."""
    if dtype == "int8" and pack is False:
        raise ValueError("'dtype: int8' always packs weights: leave 'pack' out, or use 'pack: true'")


class OnnxRuntimeLoader:
    """Maps the weights into a graph that all checkpoints of an architecture share; falls back to `mapped`.

    A separate process converts a checkpoint once, and writes the architecture's graph and the tokenizer to the cache.
    The weights are used where they are, unless they are packed or quantized. Serving needs no torch.
    """

    name = "onnxruntime"

    def __init__(
        self,
        *,
        dtype: Annotated[
            Literal["float32", "int8"],
            Field(description="`int8` quantizes the weights. The model is faster and smaller, but another model."),
        ] = "float32",
        pack: Annotated[Literal["auto"] | bool, Field(description=PACK)] = "auto",
    ) -> None:
        """Raises ValueError if `dtype` does not allow this value of `pack`."""
        check_options(dtype, pack)
        # Imported here, because listing loaders and their options must not import a runtime.
        from ...checkpoints.arrays import MappedArrays
        from . import network, session

        self._dtype: Literal["float32", "int8"] = dtype
        self._pack = True if dtype == "int8" else pack
        self._network, self._session, self._map = network, session, MappedArrays
        self._found: SharedCache[str, Found] = SharedCache("conversions", 4096)  # by identity

    def size(self, directory: Path) -> int:
        """The bytes of all weights in the loader\'s dtype."""
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def convert(self, directory: Path) -> None:
        """Convert the checkpoint, and pack its weights unless `pack` is False. Raises ModelReferenceError."""
        converted = conversion.ensure_converted(directory)
        if self._pack is not False:
            Packed(directory, converted, self._dtype).make()

    def prepare(self, directory: Path) -> None:
        """Convert the checkpoint, and fill the caches that all loads of its kind share."""
        self.load(directory).close()

    def load(self, directory: Path) -> TextModel:
        """Load the model. Raises ModelReferenceError before a broken file is mapped, and what the fallback raises."""
        timer = PhaseTimer()
        checkpoint.check(directory)
        state = checkpoint.identity(directory)
        found = self._found.get(state, lambda: self._find(directory))
        if isinstance(found, CannotConvert):
            return self._load_by_mapped(directory, found)
        converted, packed = found
        timer.end_phase("resolve")
        if self._pack is True:
            network = self._open_packed(directory, converted, packed)
        else:
            try:
                network = self._bind(converted, timer)
            except CannotMap as reason:
                return self._load_by_mapped(directory, CannotConvert(str(reason)))
            if self._pack == "auto":
                network = self._switch_when_packed(directory, converted, packed, network)
        timer.end_phase("structure")
        heads = known_heads(directory, state)
        tokenizer = shared_tokenizer(directory, converted, heads)
        timer.end_phase("tokenizer")
        return text_model(heads, converted, tokenizer, network, timer.phases, loaded_by=self.name)

    def shared_state(self) -> SharedState:
        """What loads share. It can be pickled, for a loader with the same options in another process."""
        return self._found.items(), tokenizers.items()

    def adopt(self, state: SharedState) -> None:
        """Use the shared state of another loader with the same options, in this process and those forked from it."""
        self._session.prepare_forks()
        self._found.adopt(state[0])
        tokenizers.adopt(state[1])

    def _find(self, directory: Path) -> Found:
        """The converted checkpoint and its packed weights, converted now if needed; or why it cannot be converted."""
        try:
            converted = conversion.ensure_converted(directory)
            packed = Packed(directory, converted, self._dtype)
            if self._pack is True:
                packed.make()
            return converted, packed
        except CannotConvert as reason:
            return reason

    def _bind(self, converted: Converted, timer: PhaseTimer) -> OnnxNetwork:
        kept = converted.graph.facts
        weights = self._map(converted.weights)
        weights.read_ahead(set(kept.weights.values()) - set(kept.looked_up))
        timer.end_phase("weights")
        session = self._session.shared_session(converted.graph.directory / facts.GRAPH)
        return self._network.BoundNetwork(session, weights, kept)

    def _open_packed(self, directory: Path, converted: Converted, packed: Packed) -> OnnxNetwork:
        session = self._session.new_session(packed.graph)
        return self._network.OnnxNetwork(session, converted.graph.facts, self._dtype, self.size(directory))

    def _switch_when_packed(
        self, directory: Path, converted: Converted, packed: Packed, bound: OnnxNetwork
    ) -> OnnxNetwork:
        """A network that begins as `bound`, and uses packed weights after it ran often enough for them to pay."""
        gain = packed.gain() if packed.exists else None

        def make() -> OnnxNetwork:
            try:
                packed.make()
                return self._open_packed(directory, converted, packed) if packed.gain().is_faster else bound
            except Exception as error:  # of any kind: the model works without packed weights
                warn_once(f"Loader 'onnxruntime' cannot pack {directory}: {error}.")
                return bound

        return self._network.SwitchingNetwork(bound, gain.is_due if gain else _is_kept, make)

    def _load_by_mapped(self, directory: Path, reason: CannotConvert) -> TextModel:
        if importlib.util.find_spec("torch") is None:
            raise reason
        warn_once(f"Loader 'onnxruntime' uses 'mapped' for {directory}: {reason}.")
        return self._mapped.load(directory)

    @cached_property
    def _mapped(self) -> MappedLoader:
        from ..mapped.loader import MappedLoader

        return MappedLoader()


def _is_kept(forwards: int) -> bool:
    """Whether a model that was never packed has run often enough.

    Packing takes a process, seconds, and disk space of 1.5 times the weights.
    """
    return forwards >= ENOUGH


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[OnnxRuntimeLoader]]:
    return [OnnxRuntimeLoader]
