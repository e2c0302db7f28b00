"""The loader `mapped`: restores a module's structure from memory, and maps its weights."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pluggy
from pydantic import Field

from ...checkpoints import checkpoint
from ...checkpoints.checkpoint import identity
from ...checkpoints.dtypes import BYTES, DTYPE, Dtype, convert_dtype, supported_dtype
from ...checkpoints.heads import Output, known_heads
from ...errors import ModelReferenceError
from ..onnxruntime.facts import tokenizer_key
from ..phase_timer import PhaseTimer
from ..shared_cache import SharedCache

if TYPE_CHECKING:
    from ...checkpoints.mapping import MappedTensors
    from ..text_model import TextModel
    from ..torch_network import Tokenizer
    from .template import Template

log = logging.getLogger("residency")
LINEAR = "`auto`: runs linear layers with oneDNN where that is faster. `stock`: bit for bit what the stock path gives."
Key = tuple[Any, ...]
SharedState = tuple[dict[Key, "Template | None"], dict[str, "Tokenizer"], dict[str, Path], dict[str, None]]
# By the digest of the contents that a tokenizer is made from.
stock_tokenizers: SharedCache[str, Tokenizer] = SharedCache("tokenizers of transformers", 64)


class MappedLoader:
    """Maps the weights into a structure that is restored from memory; falls back to transformers' own loading.

    The structure and the tokenizer, a few MB for each architecture, stay in memory between loads.
    """

    name = "mapped"

    def __init__(
        self,
        *,
        dtype: Annotated[Dtype, Field(description=DTYPE)] = "float32",
        linear: Annotated[Literal["auto", "stock"], Field(description=LINEAR)] = "auto",
        pack: Annotated[
            bool, Field(description="Reorders float32 weights for oneDNN in each load, for faster forwards.")
        ] = False,
        keep_tokenizer: Annotated[
            bool, Field(description="Keeps the tokenizer in memory between loads. `false`: every load reads it.")
        ] = True,
    ) -> None:
        """Raises ValueError for a `pack` that would have no effect."""
        if pack and (linear == "stock" or dtype != "float32"):
            raise ValueError(
                "'pack' reorders float32 weights for oneDNN: use it with 'linear: auto' and 'dtype: float32'"
            )
        # Imported here, because listing loaders and their options must not import torch.
        from ...checkpoints.mapping import MappedTensors, Unmappable
        from .. import stock
        from . import linear as backends
        from .template import Template

        self._dtype = supported_dtype(dtype)
        self._choose = linear == "auto"
        self._pack = pack
        self._keep_tokenizer = keep_tokenizer
        self._stock, self._backends, self._map, self._template_of = stock, backends, MappedTensors, Template
        self._unmappable = Unmappable
        # None means that the loader falls back to transformers.
        self._templates: SharedCache[Key, Template | None] = SharedCache("templates", 64)
        self._lock = Lock()  # protects `_warned`
        self._warned: set[str] = set()
        self._converted: dict[str, Path] = {}  # by identity; concurrent writers would write the same value

    def size(self, directory: Path) -> int:
        """The bytes of all weights in the loader\'s dtype."""
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Import the architecture's classes, and make its template and tokenizer."""
        self._stock.import_classes(directory)
        self.load(directory).close()

    def load(self, directory: Path) -> TextModel:
        """Load the model. Raises ModelReferenceError before a broken file is mapped, and what transformers raises."""
        timer = PhaseTimer()
        checkpoint.check(directory)
        state = identity(directory)
        weights = self._convert_dtype(directory, state)
        timer.end_phase("resolve")
        tensors = self._map_weights(weights)
        timer.end_phase("weights")
        output = known_heads(directory, state).output
        template = self._template(weights, tensors, state, output) if tensors else None
        if tensors and template:
            tensors.read_ahead(template.needed)
            module, loaded_by, release = template.restore(tensors), self.name, tensors.discard
        else:
            module, loaded_by, release = self._stock.load_module(weights, self._dtype, output), "transformers", None
        if self._pack:
            self._backends.pack(module)
        timer.end_phase("structure")
        tokenizer = self._tokenizer(directory)
        timer.end_phase("tokenizer")
        return self._stock.text_model(
            directory, tokenizer, module, timer.phases, loaded_by=loaded_by, release=release, state=state
        )

    def shared_state(self) -> SharedState:
        """What loads share. It can be pickled, for a loader with the same options in another process."""
        with self._lock:
            warned = dict.fromkeys(self._warned)
        return self._templates.items(), stock_tokenizers.items(), self._converted.copy(), warned

    def adopt(self, state: SharedState) -> None:
        """Use the shared state of another loader with the same options."""
        templates, tokenizers, converted, warned = state
        self._templates.adopt(templates)
        stock_tokenizers.adopt(tokenizers)
        self._converted |= converted
        with self._lock:
            self._warned.update(warned)

    def _convert_dtype(self, directory: Path, key: str) -> Path:
        if key not in self._converted or not self._converted[key].is_dir():
            self._converted[key] = convert_dtype(directory, self._dtype)
        return self._converted[key]

    def _map_weights(self, directory: Path) -> MappedTensors | None:
        """The mapped weights; None, with a warning, if transformers has to load them."""
        try:
            return self._map(checkpoint.weights(directory))
        except self._unmappable as error:
            self._warn(f"Loader 'mapped' uses 'transformers' for {directory}: {error}.")
            return None

    def _warn(self, sentence: str) -> None:
        """Log the warning once, over all processes that adopt the shared state of this one."""
        with self._lock:
            is_new = sentence not in self._warned
            self._warned.add(sentence)
        if is_new:
            log.warning("%s", sentence)

    def _template(self, directory: Path, tensors: MappedTensors, state: str, output: Output) -> Template | None:
        """The template for this checkpoint: its architecture's, or its own if transformers converts its weights.

        None if there can be none.
        """
        layout = tuple((name, entry.dtype, entry.shape) for name, entry in tensors.entries.items())
        architecture: Key = ((directory / "config.json").read_bytes(), output, layout)
        template = self._templates.get(architecture, lambda: self._make(directory, state, output))
        if template is None or template.checkpoint_identity in (None, state):
            return template
        return self._templates.get((*architecture, state), lambda: self._make(directory, state, output))

    def _make(self, directory: Path, state: str, output: Output) -> Template | None:
        module, unexpected = self._stock.load_module_and_report(directory, self._dtype, output)
        try:
            if self._choose and (self._pack or self._backends.one_dnn_is_faster(module)):
                self._backends.use_one_dnn(module)
            if self._choose:
                self._backends.use_buckets(module)
            # A separate mapping, because the comparison touches every page, and pages of a load's mapping stay.
            return self._template_of(module, self._map(checkpoint.weights(directory)), unexpected, state)
        except ModelReferenceError:
            raise
        except Exception as error:  # of any kind: transformers has just loaded the model, so it can be used
            reason = error if isinstance(error, self._unmappable) else f"{type(error).__name__}: {error}"
            self._warn(f"Loader 'mapped' uses 'transformers' for {type(module).__name__}: {reason}.")
            return None

    def _tokenizer(self, directory: Path) -> Tokenizer:
        """The tokenizer, shared by all checkpoints whose tokenizer files have the same contents."""
        load = self._stock.load_tokenizer
        if not self._keep_tokenizer:
            return load(directory)
        return stock_tokenizers.get(tokenizer_key(directory), lambda: load(directory))


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[MappedLoader]]:
    return [MappedLoader]
