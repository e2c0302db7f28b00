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
from .decisions import Conduct, Standing, conduct_of
from .loaders import loader_checks
from .strategies import strategy_checks

__all__ = ["Check", "Conduct", "ContractBroken", "Standing", "checks_of", "conduct_of"]


def checks_of(*plugins: str) -> list[Check]:
    """The checks of strategies and loaders: of those with these names, and of all that these modules or `.py` files
    register. Raises PluginError.
    """
    known = load_plugins()
    found = load_plugins([name for name in plugins if name not in {**known.strategies, **known.loaders}])
    strategies = [entry for name, entry in found.strategies.items() if name in plugins or name not in known.strategies]
    loaders = [entry for name, entry in found.loaders.items() if name in plugins or name not in known.loaders]
    return [
        *(check for entry in strategies for check in strategy_checks(entry)),
        *(check for entry in loaders for check in loader_checks(entry)),
    ]
