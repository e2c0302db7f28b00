"""Finds what a checkpoint is converted to, and has it converted where it is not. Needs no torch itself."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...checkpoints import checkpoint
from ...checkpoints.cache import recall
from ...checkpoints.dtypes import in_dtype
from ...names import COMMAND
from .facts import (
    CannotConvert,
    GraphFacts,
    Part,
    TokenizerFacts,
    find_graph,
    find_tokenizer,
    folder,
    name_of,
    unconverted,
)

log = logging.getLogger("residency")
SECONDS = 1800.0  # until a conversion is given up
NEEDS = ("torch", "transformers", "onnx", "onnxscript")


@dataclass(frozen=True)
class Converted:
    """A checkpoint's graph and tokenizer."""

    graph: Part[GraphFacts]
    tokenizer: Part[TokenizerFacts]
    directory: Path  # of the checkpoint

    @cached_property
    def weights(self) -> list[Path]:
        """The files that hold the tensors that `GraphFacts.weights` names, in float32; made so now if they are not."""
        if self.graph.facts.converts_weights:
            return [_weights(self.directory)]
        return checkpoint.weights(in_dtype(self.directory, "float32"))


def found(directory: Path) -> Converted | None:
    """What the checkpoint is converted to, if it is. Maps nothing: whoever truncates a file ends no process."""
    graph, tokenizer = find_graph(directory), find_tokenizer(directory)
    if graph is None or tokenizer is None or (graph.facts.converts_weights and not _weights(directory).is_file()):
        return None
    return Converted(graph, tokenizer, directory)


def _weights(directory: Path) -> Path:
    """Where the weights are of a checkpoint whose own file does not hold them as the graph takes them."""
    return folder() / name_of("weights", checkpoint.known_sha256(directory)[:24]) / checkpoint.WEIGHTS


def converted(directory: Path, export: Callable[[Path], str] | None = None) -> Converted:
    """What the checkpoint is converted to; done now, if it was never tried: by `export`, which returns what cannot be
    done, or in a process of its own.

    Raises CannotConvert, with a reason that the export remembers, and ModelReferenceError for what is no checkpoint.
    """
    if already := found(directory):
        return already
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise CannotConvert(
            f"it is not converted yet, and {missing[0]} is not installed here; where it is, run"
            f" `{COMMAND} convert {directory}` and bring the cache (RESIDENCY_CACHE) along"
        )
    for name in unconverted(directory):
        if reason := recall(name):
            raise CannotConvert(reason)
    log.info("Converting %s to a graph, which is done once", directory)
    if reason := export(directory) if export else run(f"{__package__}.export", str(directory)):
        raise CannotConvert(reason)
    if already := found(directory):
        return already
    raise CannotConvert("what it was converted to has vanished from the cache")


def run(module: str, *arguments: str) -> str:
    """Run the module in a process of its own, and return what cannot be done; "" if it was done.

    Raises CannotConvert for a failure that may not last.
    """
    command = [sys.executable, "-m", module, *arguments]
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
