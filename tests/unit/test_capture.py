"""A trace that is written while others rotate it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.errors import ResidencyError
from core.serving.capture import Capture
from tests.helpers.support import ROOT, SECONDS

WRITER = """
import sys
from pathlib import Path
from core.serving.capture import Capture
capture = Capture(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    capture.record(f"{sys.argv[2]}-{i}")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


@pytest.fixture
def capture(path: Path) -> Iterator[Capture]:
    with closing(Capture(path)) as capture:
        yield capture


def models(path: Path) -> list[str]:
    return [json.loads(line)["model"] for line in path.read_text().splitlines()]


def test_a_renamed_file_is_begun_anew_at_its_path(capture: Capture, path: Path) -> None:
    capture.record("a")
    older = path.rename(path.with_suffix(".1"))
    capture.record("b")
    capture.record("c")
    assert (models(older), models(path)) == (["a"], ["b", "c"])


def test_a_deleted_file_is_begun_anew_at_its_path(capture: Capture, path: Path) -> None:
    capture.record("a")
    path.unlink()
    capture.record("b")
    assert models(path) == ["b"]


def test_a_file_that_was_put_in_its_place_is_written_on(capture: Capture, path: Path) -> None:
    """As logrotate's `create` does; and one that is moved back."""
    older = path.rename(path.with_suffix(".1"))
    path.touch()
    capture.record("a")
    older.rename(path)
    capture.record("b")
    assert models(path) == ["b"]


def test_a_file_that_is_cut_goes_on_at_its_beginning(capture: Capture, path: Path) -> None:
    """As logrotate's `copytruncate` does."""
    capture.record("a")
    older = Path(shutil.copy(path, path.with_suffix(".1")))
    path.write_bytes(b"")
    capture.record("b")
    assert (models(older), models(path)) == (["a"], ["b"])


def test_a_relative_path_is_seen_from_where_the_server_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Capture(Path("trace.jsonl"))) as capture:
        monkeypatch.chdir("/")
        (tmp_path / "trace.jsonl").unlink()
        capture.record("a")
    assert models(tmp_path / "trace.jsonl") == ["a"]


def test_what_cannot_be_begun_anew_is_in_the_old_file_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("residency"), "propagate", True)
    path = tmp_path / "folder" / "trace.jsonl"
    path.parent.mkdir()
    with closing(Capture(path)) as capture:
        older = path.rename(tmp_path / "older.jsonl")
        path.mkdir()
        capture.record("a")
        capture.record("b")
        assert models(older) == ["a", "b"]
        assert [record.getMessage().partition(" cannot be written")[0] for record in caplog.records] == [str(path)]
        path.rmdir()
        capture.record("c")
        assert models(path) == ["c"]
        path.unlink()
        path.mkdir()
        capture.record("d")
        assert len(caplog.records) == 2  # it is another failure


@pytest.mark.parametrize("kind", ["a folder", "a missing folder"])
def test_what_is_no_file_is_refused_at_the_start(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ResidencyError, match=r"^capture: .* cannot be written: "):
        Capture(tmp_path if kind == "a folder" else tmp_path / "none" / "trace.jsonl")


@pytest.mark.process
def test_several_workers_lose_and_tear_no_line_while_the_file_is_rotated(path: Path) -> None:
    lines, names = 3000, ("one", "two", "three")
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name, str(lines)], cwd=ROOT) for name in names]
    rotated = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists() and path.stat().st_size:
            path.rename(path.with_suffix(f".{rotated}"))
            rotated += 1
    assert [writer.wait(SECONDS) for writer in writers] == [0, 0, 0]
    found = [model for file in path.parent.iterdir() for model in models(file)]
    assert rotated > 3
    assert Counter(found) == Counter(f"{name}-{i}" for name in names for i in range(lines))


def test_several_workers_write_to_one_file_after_it_was_deleted(path: Path) -> None:
    with closing(Capture(path)) as one, closing(Capture(path)) as two:
        path.unlink()
        one.record("a")
        two.record("b")
        assert models(path) == ["a", "b"]
