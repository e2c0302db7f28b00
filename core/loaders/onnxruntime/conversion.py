"""Finding a checkpoint's graph and tokenizer in the cache, and converting it if they are not there.

Needs no torch: the conversion runs in a separate process.
"""

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
from ...checkpoints.dtypes import convert_dtype
from ...names import COMMAND
from .facts import (
    CannotConvert,
    GraphFacts,
    Part,
    TokenizerFacts,
    cache_folder,
    cache_name,
    failure_names,
    find_graph,
    find_tokenizer,
)

log = logging.getLogger("residency")
SECONDS = 1800.0  # for a conversion
NEEDS = ("torch", "transformers", "onnx", "onnxscript")


@dataclass(frozen=True)
class Converted:
    """A checkpoint's graph and tokenizer."""

    graph: Part[GraphFacts]
    tokenizer: Part[TokenizerFacts]
    directory: Path  # of the checkpoint

    @cached_property
    def weights(self) -> list[Path]:
        """The files with the tensors that `GraphFacts.weights` names, in float32. Converts them if needed."""
        if self.graph.facts.converts_weights:
            return [_weights_file(self.directory)]
        return checkpoint.weights(convert_dtype(self.directory, "float32"))


def find_converted(directory: Path) -> Converted | None:
    """The converted checkpoint; None if it is not converted.

    Maps no file, so that truncating one cannot crash this process.
    """
    graph, tokenizer = find_graph(directory), find_tokenizer(directory)
    if graph is None or tokenizer is None or (graph.facts.converts_weights and not _weights_file(directory).is_file()):
        return None
    return Converted(graph, tokenizer, directory)


def _weights_file(directory: Path) -> Path:
    """The file in the cache for the weights of a checkpoint whose own file does not have the graph's tensors."""
    return cache_folder() / cache_name("weights", checkpoint.cached_sha256(directory)[:24]) / checkpoint.WEIGHTS


def ensure_converted(directory: Path, export: Callable[[Path], str] | None = None) -> Converted:
    """The converted checkpoint, converted now if that was never tried.

    `export` converts, and returns why it could not, or ""; without it a separate process does so. Raises
    CannotConvert with the reason, which the export remembers, and ModelReferenceError if `directory` is no checkpoint.
    """
    if converted := find_converted(directory):
        return converted
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise CannotConvert(
            f"it is not converted yet, and {missing[0]}, which converting needs, is not installed here. Run"
            f" `{COMMAND} convert {directory}` where it is installed, and copy the cache (RESIDENCY_CACHE) here"
        )
    for name in failure_names(directory):
        if reason := recall(name):
            raise CannotConvert(reason)
    log.info("Converting %s to an ONNX graph; this is done once", directory)
    if reason := export(directory) if export else run_module(f"{__package__}.export", str(directory)):
        raise CannotConvert(reason)
    if converted := find_converted(directory):
        return converted
    raise CannotConvert("its graph has vanished from the cache")


def run_module(module: str, *arguments: str) -> str:
    """Run the module in a separate process. Returns why it could not do its work; "" if it did.

    Raises CannotConvert for a failure that may be temporary.
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
