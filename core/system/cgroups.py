"""The share of the processor that control groups leave to this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
V1, V2 = "cgroup", "cgroup2"  # types of file systems
ESCAPE = re.compile(r"\\([0-7]{3})")  # of a space, for one, in /proc/self/mountinfo


def cpu_quota(root: Path = ROOT) -> float:
    """The cores that the tightest quota allows, a fraction perhaps; infinite without one.

    It may be that of any group from the process's own up to the root: a container's, a pod's, a systemd slice's.
    Versions 1 and 2 of control groups count alike. `root` is where `proc` and `sys` are looked for.
    """
    try:
        own = dict(_own_groups((root / "proc/self/cgroup").read_text()))
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # another system
        return float("inf")
    found = [float("inf")]
    for version, mounted_from, mount_point in filter(None, map(_cpu_mount, mounts)):
        if version in own:
            top = root / mount_point.relative_to("/")
            found += [_quota(group) for group in _up_to(top, own[version], mounted_from)]
    return min(found)


def _own_groups(text: str) -> Iterator[tuple[str, PurePosixPath]]:
    """By version, the process's group where there is a quota; lines are `id:controllers:path` (cgroups(7))."""
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if path and not controllers:
            yield V2, PurePosixPath(path)
        elif path and "cpu" in controllers.split(","):
            yield V1, PurePosixPath(path)


def _cpu_mount(line: str) -> tuple[str, PurePosixPath, PurePosixPath] | None:
    """Version, the group that is mounted, and where, if a line of mountinfo is about processor time (proc(5))."""
    mount, _, source = line.partition(" - ")
    kind, options = source.partition(" ")[0], source.rpartition(" ")[2].split(",")
    if kind != V2 and not (kind == V1 and "cpu" in options):
        return None
    mounted_from, mount_point = (ESCAPE.sub(lambda m: chr(int(m[1], 8)), field) for field in mount.split(" ")[3:5])
    return kind, PurePosixPath(mounted_from), PurePosixPath(mount_point)


def _up_to(top: Path, own: PurePosixPath, mounted_from: PurePosixPath) -> Iterator[Path]:
    """The folders of the process's own group and of its ancestors, as far as they are mounted.

    Where a container sees groups from outside of its own, as `/..`, what is mounted is taken for an ancestor.
    """
    if ".." in (*own.parts, *mounted_from.parts):
        yield top
    elif own.is_relative_to(mounted_from):
        inside = own.relative_to(mounted_from)
        yield from (top / group for group in (inside, *inside.parents))


def _quota(group: Path) -> float:
    """Of one group, in cores: `cpu.max` has quota and period, or `max`; version 1 two files, and -1 without a quota."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / file).read_text().strip() for file in files).split()
            if int(quota) > 0 and int(period) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return float("inf")
