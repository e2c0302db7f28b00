"""Where in the cache a checkpoint lies that OpenVINO has compiled for this processor, and its compilation."""

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
from ..onnxruntime.conversion import Converted, found, run
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.packed import processor

FORMAT = 1  # part of the names in the cache; raise it when the files change


class Compiled:
    """A checkpoint as OpenVINO computes it, which may be still to be made; it holds the weights, too."""

    BLOB = "blob"

    def __init__(self, directory: Path, converted: Converted, dtype: str) -> None:
        self.converted = converted
        graph = [facts.graph_key(directory), converted.graph.facts.made_by]
        made_of = [FORMAT, checkpoint.known_sha256(directory), *graph, version("openvino"), processor()]
        self.name = f"openvino-{dtype}-{facts.digest(json.dumps(made_of))}"
        self._checkpoint, self._dtype = directory, dtype

    @property
    def directory(self) -> Path:
        return facts.folder() / self.name

    @property
    def blob(self) -> Path:
        """What `openvino.Core.import_model` reads."""
        return self.directory / self.BLOB

    @property
    def is_there(self) -> bool:
        return self.directory.is_dir()

    def make(self, compile_here: Callable[[Path, str], str] | None = None) -> None:
        """Unless it is there: by `compile_here`, which returns what cannot be done, or in a process of its own.

        Raises CannotConvert, with a reason that is remembered.
        """
        if self.is_there:
            return
        name = f"uncompiled-{self.name}"
        if reason := recall(name):
            raise CannotConvert(reason)
        given = self._checkpoint, self._dtype
        if reason := compile_here(*given) if compile_here else run(f"{__package__}.compile", *map(str, given)):
            remember(name, reason)
            raise CannotConvert(reason)


def compiled_files(directory: Path, dtype: str) -> list[Path]:
    """The files that loads of a checkpoint may read in place of its own, as far as they are there."""
    if importlib.util.find_spec("openvino") is None:
        return []
    try:
        converted = found(directory)
    except ModelReferenceError:  # the cache is not trusted, so that no load reads from there
        return []
    compiled = None if converted is None else Compiled(directory, converted, dtype)
    return [compiled.blob] if compiled is not None and compiled.is_there else []
