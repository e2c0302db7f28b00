"""The engines of an experiment: what identifies them, and the files that they load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.engines import EngineChoice
from ..errors import ResidencyError
from ..loaders.run import sizes
from ..loaders.run.commands import words
from ..results.header import EngineSpec


def written_engine(engine: EngineChoice) -> dict[str, Any]:
    """The engine in settings, or in an experiment."""
    return engine.model_dump(mode="json", exclude_defaults=True)


def named_files(engine: EngineChoice) -> list[Path]:
    """The model files that its command names: those that a load reads."""
    values = {**os.environ, **engine.environment, "port": "0", "model": "model"}
    try:
        command = words(engine.run, values)
    except ResidencyError:  # the server that starts it says so, too
        return []
    return [Path(file.path).resolve() for file in sizes.named_files(command)]


def engine_spec(engine: EngineChoice) -> EngineSpec:
    """What a run records of it."""
    sizes = {str(path): path.stat().st_size for path in named_files(engine)}
    return EngineSpec(settings=written_engine(engine), parallel=engine.parallel, files=sizes)


def engines_of(models: Mapping[str, str | EngineChoice]) -> dict[str, EngineChoice]:
    """The engines among the models, by id."""
    return {model_id: model for model_id, model in models.items() if isinstance(model, EngineChoice)}
