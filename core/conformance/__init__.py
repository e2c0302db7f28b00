"""Checks that strategies and loaders keep the contract, for `runner.py check` and for the tests of plugin authors.

import pytest
from core.conformance import checks_of

@pytest.mark.parametrize("check", checks_of("recycled.py"), ids=str)
def test_keeps_the_contract(check):
    check()
"""

from __future__ import annotations

from ..plugins import load_plugins
from .checks import Check, ContractBroken
from .loaders import loader_checks
from .strategies import strategy_checks

__all__ = ["Check", "ContractBroken", "checks_of"]


def checks_of(*plugins: str) -> list[Check]:
    """The checks of all strategies and loaders that these modules or `.py` files register. Raises PluginError."""
    built_in, found = load_plugins(), load_plugins(plugins)
    new = [entry for name, entry in found.strategies.items() if name not in built_in.strategies]
    loaders = [entry for name, entry in found.loaders.items() if name not in built_in.loaders]
    return [
        *(check for entry in new for check in strategy_checks(entry)),
        *(check for entry in loaders for check in loader_checks(entry)),
    ]
