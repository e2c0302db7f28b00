from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.checkpoints import checkpoint, embedded
from core.system.threads import limit_torch
from tests.browsing import FLAGS
from tests.support import checkpoint_in

limit_torch()  # or the tests of one worker would spin on the cores of the other's


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Tests say what they configure; the cache stays the user's, so that nothing is made twice."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RESIDENCY_") and name != "RESIDENCY_CACHE"]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def embedded_directory() -> Path:
    directory = embedded.embedded()
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
