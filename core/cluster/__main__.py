"""The command `serve` for a cluster, without what other commands import: python -m core.cluster app.yaml."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import BalancerFailed, NodeFailed, ResidencyError
from .local import serve

FAILED, BAD_INPUT = 1, 2


def main() -> int:
    """Serve until a signal. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Serve models on several nodes.")
    parser.add_argument("file", type=Path, help="settings with the key 'cluster'")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--node", action="append", default=[], metavar="HOST:PORT", help="a node that runs already")
    arguments = parser.parse_args()
    try:
        return serve(arguments.file, arguments.host, arguments.port, arguments.node)
    except ResidencyError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED if isinstance(error, (BalancerFailed, NodeFailed)) else BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
