"""The markers of folders, and the fixtures that several folders share."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.checkpoints import checkpoint, embedded
from core.system.threads import limit_torch
from tests.helpers.browsing import FLAGS
from tests.helpers.support import checkpoint_in

limit_torch()  # or the tests of one worker would spin on the cores of the other's

TESTS = Path(__file__).parent
NO_PROCESS = "not process"  # the expression after `-m`


def folder_of(path: Path) -> str:
    """The name of the folder of `tests` that the path is in, or of which it is."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if parts else ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for folders none of whose tests is asked for: importing them takes longer than the unit tests."""
    is_left_out = folder_of(collection_path) in {"server", "runner", "browser", "proofs"}
    return True if is_left_out and config.option.markexpr == NO_PROCESS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and leave out the slow ones unless they are asked for."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in slow:
        item.add_marker(pytest.mark.timeout(0))
    for item in items:
        if folder_of(item.path) != "unit":
            item.add_marker("process")
    if "slow" not in config.option.markexpr:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Tests say what they configure; the cache stays the user's, so that nothing is made twice."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RESIDENCY_") and name != "RESIDENCY_CACHE"]:
            patch.delenv(name)
        yield


class Misuses(logging.Handler):
    """Keeps what is said of plugins for tests that were not used as their contract says."""

    def __init__(self) -> None:
        super().__init__()
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


@pytest.fixture(autouse=True)
def misuses() -> Iterator[list[str]]:
    """Fail a test in whose time a fake model was closed twice, which nobody else would see."""
    handler = Misuses()
    logging.getLogger("tests.misuses").addHandler(handler)
    yield handler.sentences
    logging.getLogger("tests.misuses").removeHandler(handler)
    assert handler.sentences == []


@pytest.fixture(scope="session")
def embedded_directory() -> Path:
    directory = embedded.embedded_directory()
    checkpoint.check(directory)
    return directory


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    """Three checkpoint directories of their own: a, b and c."""
    return [checkpoint_in(tmp_path / name) for name in "abc"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for a whole session: its event loop would be in the way of other tests'."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("the page's tests need a browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
