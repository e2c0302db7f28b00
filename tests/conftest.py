from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import checkpoint, embedded
from tests.support import checkpoint_in


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
