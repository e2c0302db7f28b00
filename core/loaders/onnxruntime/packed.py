"""Packed weights: their place in the cache, and whether they are worth packing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

from ...checkpoints import checkpoint
from ...errors import ModelReferenceError
from . import facts
from .conversion import Converted, find_converted, run_module
from .facts import CannotConvert


@dataclass(frozen=True)
class Gain:
    """Times with and without packed weights, measured on this machine when the weights were packed."""

    load_seconds: float  # of a session over the packed weights
    bound_seconds: float  # of a forward of one text over the weights of the checkpoint's file
    packed_seconds: float  # of the same forward over packed weights

    @property
    def is_faster(self) -> bool:
        """Whether a forward over packed weights is faster."""
        return self.packed_seconds < self.bound_seconds

    def is_due(self, forwards: int) -> bool:
        """Whether so many forwards without packed weights have cost as much as loading packed weights would.

        Switching then never costs more than twice the optimum in hindsight (Karlin et al., Competitive snoopy caching,
        1988).
        """
        return forwards * (self.bound_seconds - self.packed_seconds) >= self.load_seconds


class Packed:
    """The packed weights of one checkpoint, which may not exist yet."""

    def __init__(self, directory: Path, converted: Converted, dtype: str) -> None:
        self._checkpoint, self._dtype = directory, dtype
        self._graph = [facts.graph_key(directory), converted.graph.facts.made_by]

    @cached_property
    def name(self) -> str:
        """The directory's name in the cache's folder `onnx`. Reads the whole checkpoint, unless its digest is known."""
        made_of = [checkpoint.cached_sha256(self._checkpoint), *self._graph, version("onnxruntime"), cpu_features()]
        return f"packed-{self._dtype}-{facts.digest(json.dumps(made_of))}"

    @property
    def directory(self) -> Path:
        """The directory in the cache, whether it exists or not."""
        return facts.cache_folder() / self.name

    @property
    def graph(self) -> Path:
        """The file of the optimised graph, which refers to the packed weights."""
        return self.directory / facts.GRAPH

    @property
    def exists(self) -> bool:
        """Whether the weights are packed."""
        return self.directory.is_dir()

    def make(self) -> None:
        """Pack the weights in a separate process, unless they exist. Raises CannotConvert."""
        if not self.exists and (reason := run_module(f"{__package__}.pack", str(self._checkpoint), self._dtype)):
            raise CannotConvert(reason)

    def gain(self) -> Gain:
        """What was measured when the weights were packed."""
        return Gain(**json.loads((self.directory / facts.FACTS).read_text()))


def weight_files(directory: Path, dtype: str) -> list[Path]:
    """The existing files in the cache from which loads of the checkpoint may read weights, instead of its own files."""
    try:
        converted = find_converted(directory)
    except ModelReferenceError:  # the cache is not trusted, so no load reads from it
        return []
    if converted is None:
        return []
    packed = Packed(directory, converted, dtype)
    return [*converted.weights, *(packed.directory.iterdir() if packed.exists else ())]


@cache
def cpu_features() -> str:
    """The instructions that the processor supports, which decide the layout of packed weights."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
