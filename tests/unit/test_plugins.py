from __future__ import annotations

import doctest
import logging
from pathlib import Path

import pytest

from core import hookspecs
from core.config.options import describe_options
from core.errors import OptionError, PluginError
from core.plugins import load_plugins

GOOD = """
import contextlib, pluggy

class {cls}:
    "Does as it is told."
    name = "{name}"
    def __init__(self, *, patience: float = 1.5):
        self.patience = patience
    def keep(self, model, now):
        return self.patience

@pluggy.HookimplMarker("residency")
def register_strategies():
    return [{cls}]
"""


def plugin(folder: Path, code: str, file: str = "third.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(code)
    return str(folder / file)


def install(folder: Path, code: str, module: str) -> Path:
    """A distribution on the path, as pip would leave it."""
    plugin(folder, code, f"{module}.py")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[residency]\n{module} = {module}\n")
    return folder


def test_built_in_plugins_come_in_order() -> None:
    plugins = load_plugins()
    assert list(plugins.strategies)[:3] == ["persistent", "on-demand", "lru-cached"]
    assert plugins.strategy("persistent").source == "built in"
    assert all(entry.summary for entry in [*plugins.strategies.values(), *plugins.loaders.values()])
    one_each = len(plugins.strategies) + len(plugins.loaders)
    assert len(plugins.manager.get_plugins()) == one_each + 1  # the log of loads


def test_every_hook_has_an_example_that_runs_and_registers() -> None:
    results = doctest.testmod(hookspecs)
    assert results.attempted > 0
    assert results.failed == 0
    for name, hook in vars(hookspecs).items():
        if name.startswith(("register_", "after_")):
            assert ">>>" in (hook.__doc__ or ""), f"{name} has no example"


def test_a_file_becomes_a_strategy_with_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plugin(tmp_path, GOOD.format(cls="Third", name="third"))
    entry = load_plugins([path]).strategy("third")
    assert (entry.source, entry.summary) == (path, "Does as it is told.")
    assert describe_options(entry.options) == [("patience", "float", "1.5")]
    assert f"Running the code of plugin {path}" in capsys.readouterr().err


def test_an_installed_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, GOOD.format(cls="Inst", name="installed"), "inst_plugin"))
    assert load_plugins().strategy("installed").source == "inst_plugin 1.2"
    # Named as well, it is still one plugin.
    assert "installed" in load_plugins(["inst_plugin"]).strategies


def test_a_broken_installed_plugin_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, "import no_such_module", "broken_plugin"))
    with caplog.at_level(logging.WARNING, "residency"):
        plugins = load_plugins()
    assert "persistent" in plugins.strategies
    assert "broken_plugin" in caplog.text
    assert "no_such_module" in caplog.text
    with pytest.raises(PluginError, match="broken_plugin"):  # asked for by name, it is no warning
        load_plugins(["broken_plugin"])


BROKEN = {
    "an import that fails": ("import contextlib", "import no_such_module"),
    "an import that ends the process": ("import contextlib", "import sys; sys.exit('no')\nimport contextlib"),
    "an option of a type that cannot be checked": ("float = 1.5", "__import__('threading').Lock = 1.5"),
    "an annotation that is no expression": ("float = 1.5", "'1 +' = 1.5"),
    "a class without a signature": ("class ContractBroken:", "class ContractBroken(dict):"),
    "a hook that fails": ("return [ContractBroken]", "raise SystemExit"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_no_installed_plugin_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name = "broken_" + "".join(letter for letter in kind if letter.isalpha())
    code = GOOD.format(cls="ContractBroken", name="broken")
    old, new = BROKEN[kind]
    assert old in code
    monkeypatch.syspath_prepend(
        install(
            tmp_path,
            code.replace(old, new).replace("    def __init__(self, *", NO_INIT.get(kind, "    def __init__(self, *")),
            name,
        )
    )
    with caplog.at_level(logging.WARNING, "residency"):
        assert "broken" not in load_plugins().strategies
    assert name in caplog.text


NO_INIT = {"a class without a signature": "    def other(self, *"}


def test_two_entry_points_for_one_module_are_one_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(tmp_path, GOOD.format(cls="Two", name="two-points"), "two_points")
    entries = folder / "two_points-1.2.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "again = two_points\n")
    monkeypatch.syspath_prepend(folder)
    assert "two-points" in load_plugins().strategies


def test_two_plugins_with_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    mine = plugin(tmp_path, GOOD.format(cls="Mine", name="persistent"))
    with pytest.raises(PluginError, match=r"'persistent': built in and .*third\.py"):
        load_plugins([mine])
    twice = GOOD.format(cls="Mine", name="mine").replace("[Mine]", "[Mine, Mine]")
    with pytest.raises(PluginError, match="named 'mine'"):
        load_plugins([plugin(tmp_path, twice, "twice.py")])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("def register_strategies", "def register_strategy"), r"no hook 'register_strategy'.*register_strategies"),
        (('@pluggy.HookimplMarker("residency")', ""), "has no hook"),
        (("register_strategies():", "register_strategies(config):"), "config"),
        (('name = "third"', 'name = "Third One"'), "kebab-case"),
        (('name = "third"', ""), "kebab-case"),
        (
            ("def keep(self, model, now)", "def acquire(self, model_id)"),
            r"has a method acquire.*def keep\(self, model, now",
        ),
        (
            ("def keep(self, model, now)", "def keep(self, model)"),
            r"keep of .*'third' must have the form def keep\(self,",
        ),
        (("self, *, patience", "self, load, *, patience"), r"form \(self, \*, option"),
        (("*, patience: float = 1.5", "**options"), "keyword-only"),
        (("*, patience: float = 1.5", "patience=1.5"), "keyword-only"),
        (("patience: float", "patience"), "has no type"),
        (("patience: float", "patience: 'Fraction'"), "cannot be resolved"),
        (("return [Third]", "return [Third()]"), "must return strategy classes, but returned <"),
        (("return [Third]", "return ['third']"), "must return strategy classes"),
        (("return [Third]", "return 1 / 0"), "ZeroDivisionError"),
        (("import contextlib, pluggy", "import contextlib, pluggy, nothing_like_it"), "nothing_like_it"),
        (("class Third:", "class Third"), "SyntaxError"),
    ],
)
def test_a_plugin_with_a_mistake_is_refused_in_a_sentence(
    tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    code = GOOD.format(cls="Third", name="third")
    assert change[0] in code
    with pytest.raises(PluginError, match=sentence):
        load_plugins([plugin(tmp_path, code.replace(*change))])


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no file"):
        load_plugins([str(tmp_path / "none.py")])
    with pytest.raises(PluginError, match="cannot be imported"):
        load_plugins(["no.such.module"])


def test_options_are_strict_and_sizes_are_understood() -> None:
    lru = load_plugins().strategy("lru-cached")
    assert lru.validate({"memory_budget": "512MiB"}) == {"memory_budget": 512 << 20}
    for options, sentence in (
        ({"capacitty": 2}, r"no option 'capacitty'; allowed: capacity, memory_budget"),
        ({"capacity": "2"}, r"'capacity': must be a whole number.*got '2'"),
        ({"capacity": 0}, r"'capacity': must be more than 0"),
        ({"memory_budget": "lots"}, r"'memory_budget'"),
        ({"capacity": True}, r"'capacity'"),
    ):
        with pytest.raises(OptionError, match=sentence):
            lru.validate(options)
    with pytest.raises(OptionError, match="allowed: none"):
        load_plugins().strategy("persistent").validate({"a": 1})


def test_types_for_type_checkers_only_do_no_harm(tmp_path: Path) -> None:
    code = "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
    code += "if TYPE_CHECKING:\n    import elsewhere\n"
    code += GOOD.format(cls="Third", name="third").replace("model, now", "model: elsewhere.Resident, now")
    assert "third" in load_plugins([plugin(tmp_path, code)]).strategies


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PluginError, match=r"no strategy 'nope'. Known: persistent, on-demand"):
        load_plugins().strategy("nope")
    with pytest.raises(PluginError, match=r"no loader 'nope'. Known: transformers"):
        load_plugins().loader("nope")
