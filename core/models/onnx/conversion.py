"""Finds what a checkpoint is converted to, and has it converted where it is not. Needs no torch itself."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ...errors import ModelReferenceError
from .. import checkpoint, kept
from ..cache import recall, remember
from ..precision import in_dtype
from .facts import (
    GraphFacts,
    Kept,
    TokenizerFacts,
    find_graph,
    find_tokenizer,
    folder,
    graph_key,
    name_of,
    tokenizer_key,
)

log = logging.getLogger("residency")
SECONDS = 1800.0  # until a conversion is given up
NEEDS = ("torch", "transformers", "onnx", "onnxscript")


class Converted(NamedTuple):
    """A checkpoint's graph and tokenizer."""

    graph: Kept[GraphFacts]
    tokenizer: Kept[TokenizerFacts]

    def weights(self, directory: Path) -> list[Path]:
        """The files that hold the tensors that `GraphFacts.weights` names, in float32; widened now if they are not."""
        if self.graph.facts.converts_weights:
            return [_weights(directory)]
        return checkpoint.weights(in_dtype(directory, "float32"))


class CannotConvert(ModelReferenceError):
    """A checkpoint that has no graph: another loader has to load it."""


conversions: kept.Kept[str, Converted | CannotConvert] = kept.Kept("conversions", 4096)  # by the files' identity


def conversion_of(directory: Path, identity: str) -> Converted | CannotConvert:
    """What the checkpoint with that identity is converted to, or why it cannot be; found out once by a process.

    Raises ModelReferenceError for what is no checkpoint.
    """
    return conversions.get(identity, lambda: _converted(directory))


def _converted(directory: Path) -> Converted | CannotConvert:
    try:
        return converted(directory)
    except CannotConvert as reason:
        return reason


def found(directory: Path) -> Converted | None:
    """What the checkpoint is converted to, if it is. Of its weights the headers are read; nothing is mapped."""
    graph, tokenizer = find_graph(directory), find_tokenizer(directory)
    if graph is None or tokenizer is None or (graph.facts.converts_weights and not _weights(directory).is_file()):
        return None
    return Converted(graph, tokenizer)


def _weights(directory: Path) -> Path:
    """Where the weights of a checkpoint are that are not in its own file as they are after loading."""
    return folder() / name_of("weights", checkpoint.identity(directory)) / checkpoint.WEIGHTS


def converted(directory: Path) -> Converted:
    """What the checkpoint is converted to; done now, in a process of its own, if it was never tried.

    Raises CannotConvert, with a reason that is remembered, and ModelReferenceError for what is no checkpoint.
    """
    if already := found(directory):
        return already
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise CannotConvert(
            f"it is not converted yet, and {missing[0]} is not installed here; where it is, run"
            f" `python runner.py --convert {directory}` and bring the cache (RESIDENCY_CACHE) along"
        )
    name = f"unconverted-{name_of('graph', graph_key(directory))}-{tokenizer_key(directory)}"
    if reason := recall(name):
        raise CannotConvert(reason)
    log.info("Converting %s to a graph, which is done once", directory)
    if reason := run("export", str(directory)):
        remember(name, reason)
        raise CannotConvert(reason)
    if already := found(directory):
        return already
    raise CannotConvert("what it was converted to has vanished from the cache")


def run(module: str, *arguments: str) -> str:
    """Run that module of this package in a process of its own, and return what cannot be done; "" if it was done.

    Raises CannotConvert for a failure that may not last.
    """
    command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environment,
        )
        outcome: dict[str, str] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotConvert(f"its conversion could not be run: {error}") from error
    except ValueError as error:
        line = done.stderr.strip().rpartition("\n")[2] or f"it ended with status {done.returncode}"
        raise CannotConvert(f"its conversion failed: {line}") from error
    return outcome.get("error", "")
