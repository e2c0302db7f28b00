"""Converting checkpoints before they are served or measured.

python -m core.bench.convert converts what standard input names; `convert_checkpoints` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..checkpoints.references import resolve
from ..loaders.onnxruntime.conversion import ensure_converted
from ..plugins import load_plugins
from .experiment import ResolvedExperiment

SECONDS = 3600.0  # for all conversions


def convert(reference: str) -> str:
    """Convert the checkpoint, unless it is converted. Returns a phrase that says where its graph and tokenizer are.

    Raises ModelReferenceError if the reference leads nowhere, or the checkpoint cannot be converted.
    """
    converted = ensure_converted(resolve(reference))
    return f"its graph is {converted.graph.directory}, its tokenizer {converted.tokenizer.directory}"


def convert_checkpoints(resolved: ResolvedExperiment, checkpoints: Sequence[Path]) -> None:
    """Convert the checkpoints for the experiment's loaders, so that conversions do not count for a trial.

    A separate process does so, because this one must not map libraries: the pages of a library that it shared with a
    server would reduce the server's PSS. Errors are ignored here; the server that loads the checkpoint reports them.
    """
    chosen = [trial.choice.loader for trial in resolved.trials]
    loaders = [choice.model_dump() for choice in chosen if hasattr(resolved.plugins.loader(choice.name).cls, "convert")]
    if not loaders:
        return
    order = {
        "plugins": resolved.experiment.plugins,
        "loaders": [loader for i, loader in enumerate(loaders) if loader not in loaders[:i]],
        "checkpoints": [str(directory) for directory in checkpoints],
    }
    command = [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    streams: dict[str, Any] = {"input": json.dumps(order), "capture_output": True, "text": True}
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, env=environment, timeout=SECONDS, check=False, **streams)


def _convert(plugins: Sequence[str], loaders: Sequence[dict[str, Any]], checkpoints: Sequence[str]) -> None:
    registered = load_plugins(plugins).loaders
    for choice in loaders:
        with suppress(Exception):
            entry = registered[choice["name"]]
            loader = entry.cls(**entry.validate(choice["options"]))
            for directory in checkpoints:
                with suppress(Exception):
                    loader.convert(Path(directory))


if __name__ == "__main__":
    _convert(**json.load(sys.stdin))
