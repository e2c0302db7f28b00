"""The loader `openvino`: a load imports a checkpoint that OpenVINO compiled."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import pluggy
from pydantic import Field

from ...checkpoints import checkpoint
from ...checkpoints.dtypes import supported_dtype, warn_once
from ...checkpoints.heads import known_heads
from ...errors import PluginError
from ..onnxruntime.common import shared_tokenizer, text_model, try_convert
from ..onnxruntime.conversion import ensure_converted
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.loader import OnnxRuntimeLoader
from ..phase_timer import PhaseTimer
from ..shared_cache import SharedCache
from ..text_model import TextModel
from .compiled import Compiled

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class OpenVinoLoader:
    """Imports the checkpoint as OpenVINO compiled it for this processor; falls back to `onnxruntime`.

    A checkpoint is converted as for `onnxruntime`, and then compiled. Each is done once, in a separate process, and
    written to the cache. Serving needs no torch.
    """

    name = "openvino"

    def __init__(
        self,
        *,
        dtype: Annotated[
            Literal["float32", "bfloat16", "int8"],
            Field(description="`bfloat16` if the processor computes in it. `int8` quantizes the weights."),
        ] = "float32",
    ) -> None:
        """Raises PluginError if OpenVINO is not installed."""
        if importlib.util.find_spec("openvino") is None:
            raise PluginError("the loader 'openvino' needs OpenVINO: pip install 'residency[openvino]'")
        # Imported here, because listing loaders and their options must not import a runtime.
        from .network import OpenVinoNetwork
        from .runtime import openvino

        self._dtype = supported_dtype(dtype) if dtype == "bfloat16" else dtype
        self._core, self._network = openvino.Core(), OpenVinoNetwork
        self._compiled: SharedCache[str, Compiled | None] = SharedCache("compilations", 4096)  # by the files' identity

    def size(self, directory: Path) -> int:
        """The bytes of all weights in the loader\'s dtype."""
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def convert(self, directory: Path) -> None:
        """Convert and compile the checkpoint. Raises ModelReferenceError."""
        Compiled(directory, ensure_converted(directory), self._dtype).make()

    def prepare(self, directory: Path) -> None:
        """Compile the checkpoint, and fill the caches that all loads of its kind share."""
        self.load(directory).close()

    def load(self, directory: Path) -> TextModel:
        """Load the model. Raises ModelReferenceError before a broken file is read, and what the fallback raises."""
        timer = PhaseTimer()
        checkpoint.check(directory)
        state = checkpoint.identity(directory)
        compiled = self._compiled.get(state, lambda: self._compile(directory))
        if compiled is not None and not compiled.blob.is_file():  # the cache was emptied
            compiled = self._compile(directory)
        if compiled is None:
            return self._onnxruntime.load(directory)
        timer.end_phase("resolve")
        kept = compiled.converted.graph.facts
        network = self._network(self._core, compiled.blob, kept, self._dtype, self.size(directory))
        timer.end_phase("weights")
        heads = known_heads(directory, state)
        tokenizer = shared_tokenizer(directory, compiled.converted, heads)
        timer.end_phase("tokenizer")
        return text_model(heads, compiled.converted, tokenizer, network, timer.phases, loaded_by=self.name)

    def _compile(self, directory: Path) -> Compiled | None:
        """The compiled checkpoint, compiled now if needed; None, with a warning, if it cannot be."""
        converted = try_convert(directory)
        if isinstance(converted, CannotConvert):  # `onnxruntime` warns of it
            return None
        compiled = Compiled(directory, converted, self._dtype)
        try:
            compiled.make()
        except CannotConvert as reason:
            warn_once(f"Loader 'openvino' uses 'onnxruntime' for {directory}: {reason}.")
            return None
        return compiled

    @cached_property
    def _onnxruntime(self) -> OnnxRuntimeLoader:
        return OnnxRuntimeLoader()


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[OpenVinoLoader]]:
    return [OpenVinoLoader]
