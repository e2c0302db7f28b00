"""The settings of a cluster's nodes: a copy of the user's file as it was when it was last accepted.

A node that is started again has the settings of the others, whatever has been written into the file since.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..config.cluster import ClusterSettings
from ..config.settings import CONFIG, Settings, file_values, settings_from_environment
from ..errors import CannotUpdate, SettingsError
from ..serving.service import fixed_changes

COPY = "settings.yaml"  # in the run folder
LOCK = "settings.lock"
OF_BALANCER = ("route_by", "queue", "retry", "health", "secret")  # keys of `cluster` that are in its configuration


class SettingsFile:
    """The user's file `source`, and its copy in the run folder."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self.copy = folder / COPY
        self._lock = folder / LOCK

    def read(self) -> Settings:
        """The settings in the user's file, with those in variables. Raises YamlError or SettingsError."""
        os.environ[CONFIG] = str(self.source)
        settings = settings_from_environment()
        cluster_of(settings, self.source)
        return settings

    def write(self) -> None:
        """Replace the copy by what stands in the user's file."""
        os.environ[CONFIG] = str(self.source)
        self._replace(yaml.safe_dump(file_values(), allow_unicode=True, sort_keys=False).encode())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Use the user's file from now on, unless the body raises. One change at a time."""
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.copy.read_bytes()
            self.write()
            try:
                yield
            except BaseException:
                self._replace(before)
                raise

    def _replace(self, content: bytes) -> None:
        temporary = self.copy.with_suffix(".new")
        temporary.touch(0o600)  # it may hold a token
        temporary.write_bytes(content)
        temporary.replace(self.copy)


def cluster_of(settings: Settings, source: Path) -> ClusterSettings:
    """The settings of the cluster. Raises SettingsError if there are none."""
    if settings.cluster is None:
        raise SettingsError(f"{source}: has no 'cluster'; add, for example, cluster: {{nodes: 2}}.")
    return settings.cluster


def check_change(before: Settings, after: Settings, slots: int) -> None:
    """Raise CannotUpdate if a cluster with `before` and so many slots cannot change to `after` while it runs."""
    if before.token != after.token:
        raise CannotUpdate("token: restart the cluster to change it.")
    for key in OF_BALANCER:
        if getattr(before.cluster, key) != getattr(after.cluster, key):
            raise CannotUpdate(f"cluster.{key}: restart the cluster to change it.")
    if after.cluster and after.cluster.nodes.min > slots:
        raise CannotUpdate(f"cluster.nodes: restart the cluster to have more than {slots} nodes.")


def needs_restart(before: Settings, after: Settings) -> bool:
    """Whether nodes must be restarted for the change; else they read their settings again."""
    if fixed_changes(before, after):
        return True
    return [*_loaders(before)] != [*_loaders(after)]


def _loaders(settings: Settings) -> Iterator[object]:
    """What the server cannot change of a strategy: which it is, and how it loads."""
    for choice in settings.strategies or ():
        yield choice.strategy, choice.loader
