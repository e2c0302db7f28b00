"""The entry point of `python -m experiments.routing`."""

from __future__ import annotations

import sys

from core.errors import ResidencyError
from experiments.routing.command import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except ResidencyError as error:
        sys.exit(str(error))
