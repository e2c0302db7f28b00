from __future__ import annotations

import os
from pathlib import Path

import pytest

from core import threads
from tests.support import run_python


def test_cores_are_those_of_the_affinity_and_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = len(os.sched_getaffinity(0))
    for text, expected in (("max 100000", allowed), ("50000 100000", 1), (f"{allowed * 900000} 100000", allowed)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(threads, "CGROUP", tmp_path / "cpu.max")
        assert threads.cores() == expected
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "none")
    assert threads.cores() == allowed


@pytest.mark.parametrize(("named", "expected"), [("1", 1), ("nonsense", None), ("", None)])
def test_an_app_tells_torch(named: str, expected: int | None) -> None:
    script = "import core.app; core.app.create_app(); import torch; print(torch.get_num_threads())"
    done = run_python("-c", script, variables={"OMP_NUM_THREADS": named})
    assert int(done.stdout) == (expected or threads.cores())
