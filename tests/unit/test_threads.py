from __future__ import annotations

import json
import math
import os
from pathlib import Path

import httpx
import psutil
import pytest

from core.system import threads
from core.system.cgroups import cpu_quota
from tests.helpers.support import run_python, running

ALLOWED = len(os.sched_getaffinity(0))
V2 = "30 23 0:26 {root} {at} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:27 {root} {at} rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = (
    "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n32 23 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "33 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HALF = {"cpu.max": "50000 100000\n"}
NO_QUOTA = {"cpu.max": "max 100000\n"}
HALF_V1 = {"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}
NO_QUOTA_V1 = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}
SLICE = "/system.slice/residency.service"


def machine(folder: Path, own: str, mounts: list[str], groups: dict[str, dict[str, str]]) -> Path:
    """A tree with what the kernel tells: the process's groups, what is mounted where, and each group's files."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(own)
    (folder / "proc/self/mountinfo").write_text(OTHERS + "\n".join(mounts) + "\n")
    for group, files in groups.items():
        (folder / group.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / group.lstrip("/") / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("own", "mounts", "groups", "quota"),
    [
        pytest.param("0::/\n", [V2], {"": HALF}, 0.5, id="container, version 2"),
        pytest.param("0::/\n", [V2], {"": NO_QUOTA}, math.inf, id="max"),
        pytest.param("0::/\n", [V2], {"": {"cpu.max": "torn"}}, math.inf, id="unreadable"),
        pytest.param("0::/\n", [], {"": HALF}, math.inf, id="nothing mounted"),
        pytest.param(f"0::{SLICE}\n", [V2], {SLICE: HALF}, 0.5, id="service"),
        pytest.param(f"0::{SLICE}\n", [V2], {"/system.slice": HALF, SLICE: NO_QUOTA}, 0.5, id="slice"),
        pytest.param("0::/a/b/c\n", [V2], {"/a/b/c": NO_QUOTA, "/a": HALF}, 0.5, id="two levels up"),
        pytest.param("0::/a/b\n", [V2], {"/a/b": {"cpu.max": "150000 100000"}, "/a": HALF}, 0.5, id="the tightest"),
        pytest.param("0::/a/b\n", [V2], {"/a/c": HALF, "/b": HALF, "/a/b/c": HALF}, math.inf, id="those of others"),
        pytest.param("0::/../../pod/x\n", [V2], {"": HALF}, 0.5, id="a path from outside"),
        pytest.param("4:cpu,cpuacct:/\n2:memory:/m\n", [V1], {"": HALF_V1}, 0.5, id="container, version 1"),
        pytest.param("4:cpu,cpuacct:/a/b\n", [V1], {"/a": HALF_V1, "/a/b": NO_QUOTA_V1}, 0.5, id="a pod, version 1"),
        pytest.param("4:cpu,cpuacct:/\n", [V1], {"": NO_QUOTA_V1}, math.inf, id="-1"),
        pytest.param("2:cpuset:/a\n1:memory:/a\n", [V1], {"/a": HALF_V1}, math.inf, id="another controller"),
        pytest.param("4:cpu,cpuacct:/a\n0::/a\n", [V1, V2], {"/a": HALF_V1}, 0.5, id="both versions"),
        pytest.param("0::/docker/1\n", [V2.replace("{root}", "/docker/1")], {"": HALF}, 0.5, id="a part is mounted"),
        pytest.param("0::/docker/1/x\n", [V2.replace("{root}", "/docker/1")], {"/x": HALF}, 0.5, id="below that part"),
        pytest.param("0::/a\n", [V2.replace("{root}", "/..")], {"": HALF}, 0.5, id="mounted from outside"),
        pytest.param("0::/a\n", [V2.replace("{root}", "/b")], {"": HALF}, math.inf, id="another group's part"),
        pytest.param("\ntorn:\n0::/a\n", [V2, "torn - cgroup", " - "], {"/a": HALF}, 0.5, id="lines of the future"),
        pytest.param("0::/a b\n", [V2], {"/a b": HALF}, 0.5, id="a space"),
        pytest.param("0::/a:b\n", [V2], {"/a:b": HALF}, 0.5, id="a colon"),
    ],
)
@pytest.mark.parametrize("at", ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu,cpuacct", "/my\\040groups"])
def test_the_tightest_quota_of_the_processs_groups_counts(
    tmp_path: Path, own: str, mounts: list[str], groups: dict[str, dict[str, str]], quota: float, at: str
) -> None:
    point = at.replace("\\040", " ")
    tree = {point + group: files for group, files in groups.items()}
    root = machine(tmp_path, own, [mount.format(root="/", at=at) for mount in mounts], tree)
    assert cpu_quota(root) == quota
    assert threads.cores(root) == (1 if quota < 1 else ALLOWED)


def test_cores_are_those_of_the_affinity_where_the_quota_is_larger_or_unknown(tmp_path: Path) -> None:
    assert threads.cores(tmp_path) == ALLOWED
    quota = {"/sys/fs/cgroup": {"cpu.max": f"{ALLOWED * 900_000} 100000"}}
    assert threads.cores(machine(tmp_path, "0::/\n", [V2.format(root="/", at="/sys/fs/cgroup")], quota)) == ALLOWED


@pytest.mark.skipif(ALLOWED < 2, reason="needs two cores")
def test_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    quota = {"/sys/fs/cgroup": {"cpu.max": "110000 100000"}}
    assert threads.cores(machine(tmp_path, "0::/\n", [V2.format(root="/", at="/sys/fs/cgroup")], quota)) == 2


@pytest.mark.process
@pytest.mark.parametrize(
    ("named", "expected"), [("1", 1), ("nonsense", None), pytest.param("", None, marks=pytest.mark.slow)]
)
def test_an_app_tells_torch(named: str, expected: int | None) -> None:
    script = "import core.app; core.app.create_app(); import torch; print(torch.get_num_threads())"
    done = run_python("-c", script, variables={"OMP_NUM_THREADS": named})
    assert int(done.stdout) == (expected or threads.cores())


MASKS = """
import os, threading, torch
from core.system.threads import limit_torch, spread_forwards
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


@pytest.mark.process
@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
def test_the_threads_of_a_forward_have_cores_of_their_own() -> None:
    everywhere = os.sched_getaffinity(0)
    (own, *started), main = masks(OMP_NUM_THREADS=str(len(everywhere)))
    assert len(own) == 1
    assert main == everywhere
    assert sorted(map(sorted, started)) == sorted([sorted(own), *([sorted(everywhere - own)] * (len(everywhere) - 1))])


@pytest.mark.process
@pytest.mark.parametrize(
    "variables",
    [
        {"OMP_NUM_THREADS": "1"},
        pytest.param({"OMP_NUM_THREADS": "99"}, marks=pytest.mark.slow),
        {"GOMP_CPU_AFFINITY": "0-1"},
    ],
)
def test_who_computes_with_fewer_cores_or_has_bound_the_threads_is_left_alone(variables: dict[str, str]) -> None:
    (own, *_), main = masks(**variables)
    assert own == main


@pytest.mark.process
@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
def test_torch_may_come_later() -> None:
    """A loader of graphs needs none, until it falls back to one that does."""
    everywhere = os.sched_getaffinity(0)
    joins = "    import torch\n    from core.system.threads import spread_torch\n    spread_torch()\n"
    late = MASKS.replace(", torch", "").replace("    spread_forwards()\n", f"    spread_forwards()\n{joins}")
    done = run_python("-c", late, variables={"OMP_NUM_THREADS": str(len(everywhere))})
    own, *others = (json.loads(mask) for mask in done.stdout.splitlines()[0].split(";"))
    assert len(own) == 1
    assert sorted(everywhere - set(own)) in others


@pytest.mark.process
@pytest.mark.skipif(threads.cores() < 2, reason="needs two cores")
@pytest.mark.parametrize(
    "loader",
    [
        pytest.param("onnxruntime", id="onnxruntime"),
        pytest.param("subprocess", id="subprocess"),
        pytest.param("mapped", id="mapped"),
        pytest.param({"name": "subprocess", "inner": "mapped"}, id="subprocess, mapped", marks=pytest.mark.slow),
    ],
)
def test_a_servers_forwards_are_spread(loader: str | dict[str, str]) -> None:
    """By one thread that is kept to one core, in the process that computes; the server's main thread has the choice."""
    settings = {"strategies": [{"strategy": "persistent", "loader": loader}]}
    with running(settings) as (server, client):
        assert client.post("/predict", json={"text": "Fine."}).status_code == httpx.codes.OK
        root = psutil.Process(server.process.pid)
        tasks = [task.id for process in (root, *root.children(recursive=True)) for task in process.threads()]
        free = os.sched_getaffinity(root.pid)
        assert free == os.sched_getaffinity(0)
        assert any(len(os.sched_getaffinity(task)) == 1 for task in tasks)
