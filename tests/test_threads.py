from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import psutil
import pytest

from core import threads
from tests.support import run_python, running


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


MASKS = """
import os, threading, torch
from core.threads import limit_torch, spread_forwards
def compute():
    spread_forwards()
    print(sorted(os.sched_getaffinity(0)), *(sorted(os.sched_getaffinity(int(task)))
          for task in os.listdir("/proc/self/task") if int(task) not in before), sep=";")
before = {int(task) for task in os.listdir("/proc/self/task")}
thread = threading.Thread(target=compute)
thread.start()
thread.join()
print(sorted(os.sched_getaffinity(0)))
"""


def masks(**variables: str) -> tuple[list[set[int]], set[int]]:
    """Where a thread that computes may run, then all threads that were started, and then the main thread."""
    done = run_python("-c", MASKS, variables=variables)
    own, main = done.stdout.splitlines()
    return [set(json.loads(mask)) for mask in own.split(";")], set(json.loads(main))


@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
def test_the_threads_of_a_forward_have_cores_of_their_own() -> None:
    everywhere = os.sched_getaffinity(0)
    (own, *started), main = masks(OMP_NUM_THREADS=str(len(everywhere)))
    assert len(own) == 1
    assert main == everywhere
    assert sorted(map(sorted, started)) == sorted([sorted(own), *([sorted(everywhere - own)] * (len(everywhere) - 1))])


@pytest.mark.parametrize(
    "variables", [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "99"}, {"GOMP_CPU_AFFINITY": "0-1"}]
)
def test_who_computes_with_fewer_cores_or_has_bound_the_threads_is_left_alone(variables: dict[str, str]) -> None:
    (own, *_), main = masks(**variables)
    assert own == main


@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
@pytest.mark.parametrize("loader", ["mapped", "subprocess"])
def test_a_servers_forwards_are_spread(loader: str) -> None:
    """By one thread that is kept to one core, in the process that computes; the server's main thread has the choice."""
    settings = {"strategies": [{"strategy": "persistent", "loader": loader}]}
    with running(settings) as (server, client):
        assert client.post("/predict", json={"text": "Fine."}).status_code == httpx.codes.OK
        root = psutil.Process(server.process.pid)
        tasks = [task.id for process in (root, *root.children(recursive=True)) for task in process.threads()]
        free = os.sched_getaffinity(root.pid)
        assert free == os.sched_getaffinity(0)
        assert any(len(os.sched_getaffinity(task)) == 1 for task in tasks)
