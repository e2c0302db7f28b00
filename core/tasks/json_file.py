"""Reading the JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelReferenceError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file. Raises ModelReferenceError."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ModelReferenceError(f"{path} must contain a JSON object.")
    return found


def read_json(path: Path) -> Any:
    """The contents of the file. Raises ModelReferenceError."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ValueError(
                "it begins with a byte order mark, which transformers does not accept; save it without one"
            )
        return json.loads(text)
    except OSError as error:
        raise ModelReferenceError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelReferenceError(f"{path} is not valid JSON: {error}.") from error
