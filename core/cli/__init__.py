"""The command line: commands, their flags, and what each does. It may import every other part."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
