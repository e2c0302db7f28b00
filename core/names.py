"""What this package, its command and its app are called: in a checkout, and where it is installed."""

from __future__ import annotations

PACKAGE = __name__.partition(".")[0]
IS_CHECKOUT = PACKAGE == "core"
COMMAND = "python runner.py" if IS_CHECKOUT else PACKAGE
APP = f"{PACKAGE}.app:app"
STRATEGIES = "strategies" if IS_CHECKOUT else f"{PACKAGE}.strategies"
