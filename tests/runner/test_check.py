"""What `--check` says of plugins that keep the contract, and of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.conformance import Check, ContractBroken, checks_of
from core.conformance.loaders import loader_checks
from core.conformance.strategies import strategy_checks
from core.plugins import load_plugins
from tests.helpers.support import FAKES, ROOT, run_python

HEAD = "import math, pluggy\n\nclass Mine:\n    name = 'mine'\n"
TAIL = """
@pluggy.HookimplMarker("residency")
def register_strategies():
    return [Mine]
"""
FAULTS = {
    "    def keep(self, model, now):\n        return model.uses / 0\n": "keep fails: ZeroDivisionError",
    "    def keep(self, model, now):\n        return math.nan\n": "keep fails: it answered nan, which is not a time",
    "    capacity = 1\n    def evict(self, candidates, now):\n        return 'me'\n": "evict fails: it named 'me'",
    "    def explain(self, model, now):\n        raise KeyError(1)\n": "explain fails: KeyError: 1",
    "    def unloaded(self, model, reason, now):\n        del self.seen\n": "unloaded fails: AttributeError",
    "    def start(self, models):\n        return ['nobody']\n": "nobody",
    "    def state(self):\n        return {1, 2}\n": "state fails: TypeError",
    "    state = lambda self: 1\n    def restore(self, state):\n        state['x']\n": "restore fails: TypeError",
    "    def __init__(self, *, uses: int):\n        pass\n": "option 'uses' is required",
}
LOADER = """
import pluggy
from tests.helpers.fakes import FakeLoader, FakeModel

class Model(FakeModel):
    def predict(self, texts):
        return [("POSITIVE", 0.5 + len(text) / 1e4) for text in texts]
    def close(self):
        pass

class Mine(FakeLoader):
    "Its models never end."
    name = "mine"
    def size(self, checkpoint):
        return 1.5
    def load(self, checkpoint):
        return Model(self, checkpoint)

@pluggy.HookimplMarker("residency")
def register_loaders():
    return [Mine]
"""


def plugin(folder: Path, code: str) -> str:
    (folder / "mine.py").write_text(code)
    return str(folder / "mine.py")


def broken(path: str) -> list[str]:
    found = []
    for check in checks_of(path):
        try:
            check()
        except ContractBroken as fault:
            found.append(f"{check}: {fault}")
    return found


@pytest.mark.parametrize("members", ["", "    shared = False\n", "    capacity = 1\n", "    memory_budget = 2 << 20\n"])
def test_a_strategy_that_keeps_the_contract_passes(members: str, tmp_path: Path) -> None:
    assert broken(plugin(tmp_path, HEAD + members + "    grid = {}\n" + TAIL)) == []


BUILT_IN = load_plugins()
CHECKS = [
    *(check for entry in BUILT_IN.strategies.values() for check in strategy_checks(entry)),
    # OpenVINO's threads stay in a process for good, which the tests that come later would share.
    *(check for name, entry in BUILT_IN.loaders.items() if name != "openvino" for check in loader_checks(entry)),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_ours_keep_the_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize("members", FAULTS)
def test_what_a_strategy_gets_wrong_is_told_in_a_sentence(members: str, tmp_path: Path) -> None:
    assert FAULTS[members] in " ".join(broken(plugin(tmp_path, HEAD + members + TAIL)))


def test_what_a_loader_gets_wrong_is_told_in_a_sentence(tmp_path: Path) -> None:
    told = broken(plugin(tmp_path, LOADER))
    assert "loader mine: it reports sizes: size is 1.5; it must be a whole number of bytes" in told
    assert "loader mine: its models close: a model answers after it was closed" in told


def test_the_runner_says_it_and_fails(tmp_path: Path) -> None:
    path = plugin(tmp_path, HEAD + next(iter(FAULTS)) + TAIL)
    done = run_python(str(ROOT / "runner.py"), "check", path)
    assert done.returncode == 1, done.stderr
    assert "strategy mine: it answers: yes" in done.stdout
    assert "× clairvoyant" not in done.stdout  # it is not sound
    assert "strategy mine: its members answer as the contract says: NO. Keep fails: ZeroDivisionError" in done.stdout
    sound = run_python(str(ROOT / "runner.py"), "check", plugin(tmp_path, HEAD + "    capacity = 2\n" + TAIL))
    assert sound.returncode == 0, sound.stderr
    assert "What the strategy mine pays, compared to others." in sound.stdout
    nothing = run_python(str(ROOT / "runner.py"), "check", str(ROOT / "core" / "residency" / "load_log.py"))
    assert nothing.returncode == 2
    assert "there is nothing to check" in nothing.stderr
    assert run_python(str(ROOT / "runner.py"), "check", FAKES).returncode == 0
