"""The command line: commands, their flags, and their actions. It may import every other part."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
