"""The environment of a run is read as it was written."""

from __future__ import annotations

from pathlib import Path

from core.bench.environment import describe_environment
from core.cli.results_folder import read_environment, write_environment
from core.results.environment import differences


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_environment(tmp_path)
    found = read_environment(tmp_path)
    assert found == describe_environment()
    assert list(differences(found, found)) == []
