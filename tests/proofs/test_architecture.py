"""The shape of the code, beside what import-linter holds (pyproject.toml): imports by name, names, lengths."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from core.plugins import load_plugins
from tests.helpers.support import ROOT

FILES = sorted([*ROOT.glob("core/**/*.py"), *ROOT.glob("strategies/*.py"), ROOT / "runner.py"])


def test_a_module_of_ours_is_imported_by_a_statement() -> None:
    """Where import-linter sees it. Strategies are imported by name: an installation has them inside the package."""
    named = [path.name for path in FILES if re.search(r"\{(PACKAGE|STRATEGIES)\}\.(?!app)", path.read_text())]
    assert named == ["children.py", "names.py", "plugins.py"]  # a fork server's children import what it has imported


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_folder_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_few_modules_are_loose() -> None:
    assert len([path for path in (ROOT / "core").glob("*.py") if path.name != "__init__.py"]) <= 8


def imports_of(path: Path) -> set[str]:
    """The top-level names that the file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(path.relative_to(ROOT).parts[0] if node.level else (node.module or "").partition(".")[0])
    return names


def test_the_search_for_imports_finds_one() -> None:
    assert "core" in imports_of(ROOT / "core/cli/actions.py")
    assert "core" in imports_of(ROOT / "tests/proofs/test_architecture.py")


def test_a_strategy_imports_nothing_of_core() -> None:
    """A third party's has to import nothing, either."""
    for path in (ROOT / "strategies").glob("*.py"):
        assert "core" not in imports_of(path)


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
