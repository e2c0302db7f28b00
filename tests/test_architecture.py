"""The picture in docs/architecture.md, held against the code: imports run one way, functions stay short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from core.plugins import load_plugins
from tests.support import ROOT

FILES = sorted([*ROOT.glob("core/**/*.py"), *ROOT.glob("strategies/*.py"), ROOT / "runner.py"])

# What each part may import of the others; what a part needs of itself goes without saying.
BASE = {"errors", "contracts"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "contracts": set(),
    "hookspecs": set(),
    "quantities": set(),
    "names": set(),
    "wrong_values": {"quantities"},
    "options": {"errors", "quantities", "wrong_values"},
    "choices": {"quantities"},
    "files": {"errors"},
    "cgroups": set(),
    "threads": {"cgroups"},
    "heap": set(),
    "variables": {"errors"},
    "terminal": set(),
    "file_kinds": {"names", "strict_yaml"},
    "strict_yaml": {"errors", "files", "wrong_values"},
    "plugins": {"errors", "files", "hookspecs", "names", "options"},
    "models": BASE | {"files", "heap", "names", "threads"},
    "schemas": set(),
    "memory": set(),
    "settings": {"errors", "choices", "files", "models", "strict_yaml", "variables", "wrong_values", "file_kinds"},
    "residency": BASE | {"heap", "models"},
    "serving": BASE
    | {"choices", "heap", "memory", "models", "plugins", "residency", "schemas", "settings", "threads", "wrong_values"},
    "routes": BASE | {"residency", "schemas", "serving", "settings"},
    "app": {"errors", "heap", "plugins", "residency", "routes", "serving", "settings", "threads"},
    "bench": {
        "errors",
        "choices",
        "file_kinds",
        "files",
        "memory",
        "models",
        "names",
        "options",
        "plugins",
        "quantities",
        "results",
        "strict_yaml",
        "threads",
        "wrong_values",
    },  # never app: it talks HTTP
    "results": {"errors", "names"},
    "decide": {"names", "quantities", "results"},
    "report": {"decide", "options", "plugins", "quantities", "results"},  # never servers
    # A plan's traffic is an experiment's, drawn by the same code, and a run's samples are its profile; never servers.
    # Strategies and the pool are those of a server.
    "simulate": BASE
    | {"choices", "file_kinds", "files", "quantities", "strict_yaml"}
    | {"bench", "decide", "plugins", "residency", "results"},
    "conformance": BASE | {"memory", "models", "plugins", "residency"},
    "core": BASE,
    "strategies": set(),
    "cli": {
        "bench",
        "choices",
        "conformance",
        "decide",
        "errors",
        "names",
        "plugins",
        "quantities",
        "report",
        "results",
        "simulate",
        "terminal",
    },
    "runner": {"cli"},
}


def part_of(module: str) -> str:
    """`core.bench.trial` is of the part `bench`, `core.app` of `app`."""
    names = module.split(".")
    return names[1] if names[0] == "core" and len(names) > 1 else names[0]


def imports_of(path: Path) -> set[str]:
    """Our own modules that the file imports at run time, in full."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found: set[str] = set()
    for node in _run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported from a package is a module of it, or a name that it holds.
            found |= {f"{module}.{alias.name}" if _is_package(module) else module for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("core", "strategies", "runner")}


def _is_package(module: str) -> bool:
    return (ROOT / Path(*module.split("."))).is_dir()


def _run_time(tree: ast.AST) -> list[ast.AST]:
    """Every node that is not under `if TYPE_CHECKING`."""
    nodes: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        nodes += [node, *_run_time(node)]
    return nodes


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    part = part_of(module)
    for name in imports_of(path):
        other = part_of(name)
        assert other == part or other in ALLOWED[part], f"{module} imports {name}"


def test_the_checker_sees_an_import(tmp_path: Path) -> None:
    assert "core.bench.run" in imports_of(ROOT / "core/cli/actions.py")
    assert imports_of(ROOT / "core/bench/run.py") >= {"core.errors", "core.models.checkpoint", "core.bench.trial"}
    assert imports_of(ROOT / "core/residency/pool.py") == {
        "core.contracts",
        "core.residency.copies",
        "core.residency.decisions",
        "core.residency.expiries",
        "core.residency.room",
    }


def test_a_strategy_imports_nothing_of_ours() -> None:
    """A third party's has to import nothing, either."""
    for path in (ROOT / "strategies").glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name.split(".")[0] in ("core", "strategies")]
        assert imports_of(path) == set()


def strings_of(tree: ast.AST) -> list[str]:
    """Every string in it that is no docstring, and the texts between the values of formatted ones."""
    words: list[str] = []
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_docstring = isinstance(node, ast.Expr)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not is_docstring:
                words.append(child.value)
    return words


@pytest.mark.parametrize("path", [path for path in FILES if "strategies" not in path.parts], ids=str)
def test_nothing_knows_a_strategy_by_its_name(path: Path) -> None:
    """Whatever it is used for: a third party's would be left out of it."""
    names = "|".join(load_plugins().strategies)
    found = [
        text for text in strings_of(ast.parse(path.read_text())) if re.search(rf"(?<![\w.-])({names})(?![\w-])", text)
    ]
    assert found == []


def test_the_search_for_names_finds_one() -> None:
    tree = ast.parse('def f(x):\n    "on-demand"\n    return x == "persistent" or f"{x} keep-alive"')
    assert strings_of(tree) == ["persistent", " keep-alive"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400  # as long as its subject; far above that it has two
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 45, f"{node.name} is long"
