"""Packed weights: where they lie in the cache, and what they are worth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

from ...checkpoints import checkpoint
from ...errors import ModelReferenceError
from . import facts
from .conversion import Converted, found, run
from .facts import CannotConvert


@dataclass(frozen=True)
class Gain:
    """What packing costs and gives, measured on this machine when the weights were packed."""

    load_seconds: float  # of a session over the packed weights
    bound_seconds: float  # of a forward of one text over weights as they lie in the checkpoint's file
    packed_seconds: float  # of the same over packed ones

    @property
    def is_faster(self) -> bool:
        return self.packed_seconds < self.bound_seconds

    def is_due(self, forwards: int) -> bool:
        """Whether so many forwards have lost what loading the packed weights takes: whoever waits until then never
        pays more than twice what was best in hindsight (Karlin et al., Competitive snoopy caching, 1988).
        """
        return forwards * (self.bound_seconds - self.packed_seconds) >= self.load_seconds


class Packed:
    """The packed weights of one checkpoint, which may be still to be made."""

    def __init__(self, directory: Path, converted: Converted, dtype: str) -> None:
        self._checkpoint, self._dtype = directory, dtype
        self._graph = [facts.graph_key(directory), converted.graph.facts.made_by]

    @cached_property
    def name(self) -> str:
        """In the cache's folder `onnx`. Reads the whole checkpoint, unless its digest is known."""
        made_of = [checkpoint.known_sha256(self._checkpoint), *self._graph, version("onnxruntime"), processor()]
        return f"packed-{self._dtype}-{facts.digest(json.dumps(made_of))}"

    @property
    def directory(self) -> Path:
        return facts.folder() / self.name

    @property
    def graph(self) -> Path:
        return self.directory / facts.GRAPH

    @property
    def is_there(self) -> bool:
        return self.directory.is_dir()

    def make(self) -> None:
        """In a process of its own, unless they are there. Raises CannotConvert."""
        if not self.is_there and (reason := run(f"{__package__}.pack", str(self._checkpoint), self._dtype)):
            raise CannotConvert(reason)

    def gain(self) -> Gain:
        return Gain(**json.loads((self.directory / facts.FACTS).read_text()))


def kept_weights(directory: Path, dtype: str) -> list[Path]:
    """The files that loads of a checkpoint may read its weights from in place of its own, as far as they are there."""
    try:
        converted = found(directory)
    except ModelReferenceError:  # the cache is not trusted, so that no load reads from there
        return []
    if converted is None:
        return []
    packed = Packed(directory, converted, dtype)
    return [*converted.weights, *(packed.directory.iterdir() if packed.is_there else ())]


@cache
def processor() -> str:
    """What decides the order in which weights are multiplied."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
