"""The least work between file and first answer: restore the structure, map the file."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from ...checkpoints import checkpoint
from ...checkpoints.checkpoint import identity
from ...checkpoints.dtypes import (
    BYTES,
    Dtype,
    computable,
    in_dtype,
)
from ...errors import ModelReferenceError
from ..kept import Kept
from ..laps import Laps
from ..onnxruntime.facts import tokenizer_key

if TYPE_CHECKING:
    from ...checkpoints.mapping import MappedTensors
    from ..classifier import Classifier
    from ..torch_network import Tokenizer
    from .template import Template

log = logging.getLogger("residency")
Key = tuple[Any, ...]
Common = tuple[dict[Key, "Template | None"], dict[str, "Tokenizer"], dict[str, Path], dict[str, None]]
stock_tokenizers: Kept[str, Tokenizer] = Kept("tokenizers of transformers", 64)  # by what they are made from


class MappedLoader:
    """Maps the weights into a structure that is restored from memory; falls back to the stock path.

    The structure and the tokenizer, a few MB for each architecture, stay in memory between loads.
    """

    name = "mapped"

    def __init__(
        self,
        *,
        dtype: Dtype = "float32",
        linear: Literal["auto", "stock"] = "auto",
        pack: bool = False,
        keep_tokenizer: bool = True,
    ) -> None:
        """Raises ValueError for a `pack` that would have no effect."""
        if pack and (linear == "stock" or dtype != "float32"):
            raise ValueError(
                "'pack' reorders float32 weights for oneDNN: use it with 'linear: auto' and 'dtype: float32'"
            )
        # Imported when a server constructs its loaders: to list a loader and its options needs no torch.
        from ...checkpoints.mapping import MappedTensors, Unmappable
        from .. import stock
        from . import linear as backends
        from .template import Template

        self._dtype = computable(dtype)
        self._choose = linear == "auto"
        self._pack = pack
        self._keep_tokenizer = keep_tokenizer
        self._stock, self._backends, self._map, self._template_of = stock, backends, MappedTensors, Template
        self._unmappable = Unmappable
        self._templates: Kept[Key, Template | None] = Kept("templates", 64)  # None: fall back to the stock path
        self._lock = Lock()  # protects what was warned of
        self._warned: set[str] = set()
        self._converted: dict[str, Path] = {}  # by identity; two writers at a time would write the same

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Import the architecture's classes, and make its template and the tokenizer."""
        self._stock.import_classes(directory)
        self.load(directory).close()

    def load(self, directory: Path) -> Classifier:
        """Raises what the stock path raises, and ModelReferenceError before a broken file is mapped."""
        laps = Laps()
        checkpoint.check(directory)
        state = identity(directory)
        weights = self._in_dtype(directory, state)
        laps.lap("resolve")
        tensors = self._mapped(weights)
        laps.lap("weights")
        template = self._template(weights, tensors, state) if tensors else None
        if tensors and template:
            tensors.read_ahead(template.needed)
            module, loaded_by, release = template.restore(tensors), self.name, tensors.discard
        else:
            module, loaded_by, release = self._stock.load_module(weights, self._dtype), "transformers", None
        if self._pack:
            self._backends.pack(module)
        laps.lap("structure")
        tokenizer = self._tokenizer(directory)
        laps.lap("tokenizer")
        return self._stock.classifier(
            directory, tokenizer, module, laps.phases, loaded_by=loaded_by, release=release, state=state
        )

    def common(self) -> Common:
        """What loads have in common; it can be pickled, for another process's loader with the same options."""
        with self._lock:
            warned = dict.fromkeys(self._warned)
        return self._templates.items(), stock_tokenizers.items(), self._converted.copy(), warned

    def adopt(self, common: Common) -> None:
        """Take what another loader with the same options has made."""
        templates, tokenizers, converted, warned = common
        self._templates.adopt(templates)
        stock_tokenizers.adopt(tokenizers)
        self._converted |= converted
        with self._lock:
            self._warned.update(warned)

    def _in_dtype(self, directory: Path, key: str) -> Path:
        if key not in self._converted or not self._converted[key].is_dir():
            self._converted[key] = in_dtype(directory, self._dtype)
        return self._converted[key]

    def _mapped(self, directory: Path) -> MappedTensors | None:
        """The weights, mapped; None, with a warning, where the stock path must read them."""
        try:
            return self._map(checkpoint.weights(directory))
        except self._unmappable as error:
            self._warn(f"Loader 'mapped' uses the stock path for {directory}: {error}.")
            return None

    def _warn(self, sentence: str) -> None:
        """Once, also over all processes that adopt what this one has made."""
        with self._lock:
            is_new = sentence not in self._warned
            self._warned.add(sentence)
        if is_new:
            log.warning("%s", sentence)

    def _template(self, directory: Path, tensors: MappedTensors, state: str) -> Template | None:
        """The structure for this file: its architecture's, or its own where the stock path converts it."""
        layout = tuple((name, entry.dtype, entry.shape) for name, entry in tensors.entries.items())
        architecture: Key = ((directory / "config.json").read_bytes(), layout)
        template = self._templates.get(architecture, lambda: self._make(directory, state))
        if template is None or template.made_of in (None, state):
            return template
        return self._templates.get((*architecture, state), lambda: self._make(directory, state))

    def _make(self, directory: Path, state: str) -> Template | None:
        module, unexpected = self._stock.load_module_and_report(directory, self._dtype)
        try:
            if self._choose and (self._pack or self._backends.one_dnn_is_faster(module)):
                self._backends.use_one_dnn(module)
            if self._choose:
                self._backends.use_buckets(module)
            # A mapping of its own: the comparison touches every page, which a load must not pay for.
            return self._template_of(module, self._map(checkpoint.weights(directory)), unexpected, state)
        except ModelReferenceError:
            raise
        except Exception as error:  # whatever it is, the stock path has just loaded the model
            reason = error if isinstance(error, self._unmappable) else f"{type(error).__name__}: {error}"
            self._warn(f"Loader 'mapped' uses the stock path for {type(module).__name__}: {reason}.")
            return None

    def _tokenizer(self, directory: Path) -> Tokenizer:
        """That of all checkpoints whose tokenizers are made from the same contents."""
        load = self._stock.load_tokenizer
        if not self._keep_tokenizer:
            return load(directory)
        return stock_tokenizers.get(tokenizer_key(directory), lambda: load(directory))


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[MappedLoader]]:
    return [MappedLoader]
