"""A checkpoint that OpenVINO compiled for this processor: its place in the cache, and the compilation."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ...checkpoints import checkpoint
from ...checkpoints.cache import recall, remember
from ...errors import ModelReferenceError
from ..onnxruntime import facts
from ..onnxruntime.conversion import Converted, find_converted, run_module
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.packed import cpu_features

FORMAT = 1  # part of the names in the cache; raise it when the files change


class Compiled:
    """A compiled checkpoint, including its weights, which may not exist yet."""

    BLOB = "blob"

    def __init__(self, directory: Path, converted: Converted, dtype: str) -> None:
        self.converted = converted
        graph = [facts.graph_key(directory), converted.graph.facts.made_by]
        made_of = [FORMAT, checkpoint.cached_sha256(directory), *graph, version("openvino"), cpu_features()]
        self.name = f"openvino-{dtype}-{facts.digest(json.dumps(made_of))}"
        self._checkpoint, self._dtype = directory, dtype

    @property
    def directory(self) -> Path:
        """The directory in the cache, whether it exists or not."""
        return facts.cache_folder() / self.name

    @property
    def blob(self) -> Path:
        """The file that `openvino.Core.import_model` reads."""
        return self.directory / self.BLOB

    @property
    def exists(self) -> bool:
        """Whether the checkpoint is compiled."""
        return self.directory.is_dir()

    def make(self, compile_here: Callable[[Path, str], str] | None = None) -> None:
        """Compile the checkpoint, unless the result exists.

        `compile_here` compiles, and returns why it could not, or ""; without it a separate process does so. Raises
        CannotConvert with the reason, which is remembered.
        """
        if self.exists:
            return
        name = f"uncompiled-{self.name}"
        if reason := recall(name):
            raise CannotConvert(reason)
        if compile_here is not None:
            reason = compile_here(self._checkpoint, self._dtype)
        else:
            reason = run_module(f"{__package__}.compile", str(self._checkpoint), self._dtype)
        if reason:
            remember(name, reason)
            raise CannotConvert(reason)


def compiled_files(directory: Path, dtype: str) -> list[Path]:
    """The existing files in the cache that loads of the checkpoint may read, instead of its own files."""
    if importlib.util.find_spec("openvino") is None:
        return []
    try:
        converted = find_converted(directory)
    except ModelReferenceError:  # the cache is not trusted, so no load reads from it
        return []
    compiled = None if converted is None else Compiled(directory, converted, dtype)
    return [compiled.blob] if compiled is not None and compiled.exists else []
