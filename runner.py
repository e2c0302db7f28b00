"""Entry point of the command line. `python runner.py --help` lists all commands."""

from __future__ import annotations

import sys

from core.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
