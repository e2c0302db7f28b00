"""Imports OpenVINO without its tools: importing those reports to Google Analytics and writes to the home directory."""

from __future__ import annotations

import importlib
import sys
from typing import Any

TOOLS = "openvino.tools.ovc"


def _import_openvino() -> Any:
    if TOOLS in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[TOOLS] = None  # type: ignore[assignment]  # OpenVINO tolerates the ImportError that this causes
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TOOLS]


openvino = _import_openvino()
