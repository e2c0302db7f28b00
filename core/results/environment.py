"""environment.json: what a result depends on besides the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

Value = str | int | list[str] | None


class Environment(BaseModel):
    """Machine, processor, threads, versions, commit. A file may leave out a field, and may have others."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    machine: str | None = None
    """The operating system and its version."""
    processor: str | None = None
    """The model of the processor."""
    processor_features: list[str] | None = None
    """Its features, of those that change how fast a forward is."""
    cores: int | None = None
    """The cores that the process may use."""
    memory_mib: int | None = None
    """The memory of the machine."""
    python: str | None = None
    """The version of Python."""
    torch_threads: int | None = None
    """The threads that one forward uses."""
    versions: dict[str, str | None] | None = None
    """The versions of packages; None for one that is not installed."""
    commit: str | None = None
    """The commit of the checkout, with `+` if it has uncommitted changes."""

    @property
    def values(self) -> dict[str, Value]:
        """What the file has, by name; a package's version by the package's name."""
        values: dict[str, Value] = {}
        for name in Environment.model_fields:
            if name == "versions":
                values |= self.versions or {}
            elif name in self.model_fields_set:
                values[name] = getattr(self, name)
        return values


class Difference(NamedTuple):
    """A part of the environment that is no longer the same."""

    name: str
    was: Value
    now: Value


def differences(before: Environment | None, after: Environment | None) -> Iterator[Difference]:
    """What is different; nothing where one environment is not known."""
    if before is None or after is None:
        return
    for name, now in after.values.items():
        was = before.values.get(name)
        if now != was:
            yield Difference(name, was, now)
