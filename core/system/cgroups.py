"""The CPU quota that control groups set for this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
V1, V2 = "cgroup", "cgroup2"  # types of file systems
ESCAPE = re.compile(r"\\([0-7]{3})")  # how /proc/self/mountinfo writes a space, for example


def cpu_quota(root: Path = ROOT) -> float:
    """The number of cores that the tightest quota allows, possibly a fraction; infinity if there is no quota.

    The quota may belong to any group from the process's own up to the root: a container's, a pod's or a systemd
    slice's. Reads control groups of versions 1 and 2. `root` is the directory that holds `proc` and `sys`.
    """
    try:
        own = dict(_own_groups((root / "proc/self/cgroup").read_text()))
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # another system
        return float("inf")
    quotas = [float("inf")]
    for version, mounted_from, mount_point in filter(None, map(_cpu_mount, mounts)):
        if version in own:
            top = root / mount_point.relative_to("/")
            quotas += [_quota(group) for group in _groups_up_to(top, own[version], mounted_from)]
    return min(quotas)


def _own_groups(text: str) -> Iterator[tuple[str, PurePosixPath]]:
    """The version and path of each group of this process that can limit CPU time.

    `text` has lines of the form `id:controllers:path` (cgroups(7)).
    """
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if path and not controllers:
            yield V2, PurePosixPath(path)
        elif path and "cpu" in controllers.split(","):
            yield V1, PurePosixPath(path)


def _cpu_mount(line: str) -> tuple[str, PurePosixPath, PurePosixPath] | None:
    """The version, the mounted group and the mount point of a line of mountinfo (proc(5)).

    None if the line does not mount groups that limit CPU time.
    """
    mount, _, source = line.partition(" - ")
    kind, options = source.partition(" ")[0], source.rpartition(" ")[2].split(",")
    if kind != V2 and not (kind == V1 and "cpu" in options):
        return None
    mounted_from, mount_point = (ESCAPE.sub(lambda m: chr(int(m[1], 8)), field) for field in mount.split(" ")[3:5])
    return kind, PurePosixPath(mounted_from), PurePosixPath(mount_point)


def _groups_up_to(top: Path, own: PurePosixPath, mounted_from: PurePosixPath) -> Iterator[Path]:
    """The folders of the process's own group and of those of its ancestors that are mounted.

    If a path contains `..`, the mount lies outside the container's own namespace; `top` is then taken for an ancestor.
    """
    if ".." in (*own.parts, *mounted_from.parts):
        yield top
    elif own.is_relative_to(mounted_from):
        inside = own.relative_to(mounted_from)
        yield from (top / group for group in (inside, *inside.parents))


def _quota(group: Path) -> float:
    """The quota of one group in cores; infinity if it has none.

    In version 2, `cpu.max` holds the quota, or `max`, and the period. Version 1 has a file for each, and -1 means none.
    """
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / file).read_text().strip() for file in files).split()
            if int(quota) > 0 and int(period) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return float("inf")
