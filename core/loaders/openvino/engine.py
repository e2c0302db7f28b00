"""OpenVINO, imported without its tools, whose import reports itself to Google Analytics and writes to the home."""

from __future__ import annotations

import importlib
import sys
from typing import Any

TOOLS = "openvino.tools.ovc"


def _imported() -> Any:
    if TOOLS in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[TOOLS] = None  # type: ignore[assignment]  # it does without them
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TOOLS]


openvino = _imported()
