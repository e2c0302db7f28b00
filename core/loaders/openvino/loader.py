"""The loader of what OpenVINO has compiled."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Literal

import pluggy

from ...checkpoints import checkpoint
from ...checkpoints.dtypes import computable, warn_once
from ...errors import PluginError
from ..classifier import Classifier
from ..kept import Kept
from ..laps import Laps
from ..onnxruntime.common import classifier, conversion_of, tokenizer_of
from ..onnxruntime.conversion import converted
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.loader import OnnxRuntimeLoader
from .compiled import Compiled

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class OpenVinoLoader:
    """Imports what OpenVINO has compiled of the checkpoint for this processor; falls back to `onnxruntime`.

    A checkpoint is converted as for `onnxruntime`, and then compiled, each once, in a process of its own, into the
    cache. Serving needs no torch.
    """

    name = "openvino"

    def __init__(self, *, dtype: Literal["float32", "bfloat16", "int8"] = "float32") -> None:
        """Raises PluginError where OpenVINO is not installed."""
        if importlib.util.find_spec("openvino") is None:
            raise PluginError("the loader 'openvino' needs OpenVINO: pip install 'residency[openvino]'")
        # Imported when a server constructs its loaders: to list a loader and its options needs no engine.
        from .engine import openvino
        from .network import OpenVinoNetwork

        self._dtype = computable(dtype) if dtype == "bfloat16" else dtype
        self._core, self._network = openvino.Core(), OpenVinoNetwork
        self._compiled: Kept[str, Compiled | None] = Kept("compilations", 4096)  # by the files' identity

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def convert(self, directory: Path) -> None:
        """Have the checkpoint converted and compiled. Raises ModelReferenceError."""
        Compiled(directory, converted(directory), self._dtype).make()

    def prepare(self, directory: Path) -> None:
        """Have the checkpoint compiled, and what all loads of its kind have in common at hand."""
        self.load(directory).close()

    def load(self, directory: Path) -> Classifier:
        """Raises ModelReferenceError before a broken file is read, and what `onnxruntime` raises where that is used."""
        laps = Laps()
        checkpoint.check(directory)
        compiled = self._compiled.get(checkpoint.identity(directory), lambda: self._compile(directory))
        if compiled is not None and not compiled.blob.is_file():  # the cache was emptied
            compiled = self._compile(directory)
        if compiled is None:
            return self._onnxruntime.load(directory)
        laps.lap("resolve")
        kept = compiled.converted.graph.facts
        network = self._network(self._core, compiled.blob, kept, self._dtype, self.size(directory))
        laps.lap("weights")
        tokenizer = tokenizer_of(directory, compiled.converted)
        laps.lap("tokenizer")
        return classifier(directory, compiled.converted, tokenizer, network, laps.phases, loaded_by=self.name)

    def _compile(self, directory: Path) -> Compiled | None:
        """What is in the cache, now if it was not; None where that cannot be."""
        found = conversion_of(directory)
        if isinstance(found, CannotConvert):  # of which the other loader warns
            return None
        compiled = Compiled(directory, found, self._dtype)
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
