"""Checkpoints that are converted before anything is served or measured.

python -m core.bench.convert    converts what its standard input says, for `convert_for`
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
from ..loaders.onnxruntime.conversion import converted as conversion_of
from ..plugins import load_plugins
from .experiment import Plan

SECONDS = 3600.0  # until loaders that hang are given up


def converted(reference: str) -> str:
    """Where the checkpoint's graph and tokenizer are, in words; made now, unless they are there.

    Raises ModelReferenceError for what leads nowhere, or cannot be converted.
    """
    found = conversion_of(resolve(reference))
    return f"its graph is {found.graph.directory}, its tokenizer {found.tokenizer.directory}"


def convert_for(plan: Plan, checkpoints: Sequence[Path]) -> None:
    """Have the plan's loaders convert the checkpoints, so that no trial spends its start, or its first load, on that.

    It is done in a process of its own, because this one must not map the libraries whose pages it charges to a server.
    What cannot be converted is told by the server that loads it.
    """
    chosen = [trial.choice.loader for trial in plan.trials]
    loaders = [choice.model_dump() for choice in chosen if hasattr(plan.plugins.loader(choice.name).cls, "convert")]
    if not loaders:
        return
    order = {
        "plugins": plan.experiment.plugins,
        "loaders": [loader for i, loader in enumerate(loaders) if loader not in loaders[:i]],
        "checkpoints": [str(directory) for directory in checkpoints],
    }
    command = [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    streams: dict[str, Any] = {"input": json.dumps(order), "capture_output": True, "text": True}
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, env=environment, timeout=SECONDS, check=False, **streams)


def _convert(plugins: Sequence[str], loaders: Sequence[dict[str, Any]], checkpoints: Sequence[str]) -> None:
    known = load_plugins(plugins).loaders
    for choice in loaders:
        with suppress(Exception):
            loader = known[choice["name"]]
            made = loader.cls(**loader.validate(choice["options"]))
            for directory in checkpoints:
                with suppress(Exception):
                    made.convert(Path(directory))


if __name__ == "__main__":
    _convert(**json.load(sys.stdin))
