"""The base of all parts of records."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

PageCache = Literal["cold", "warm"]
"""Whether a load read its checkpoint from disk, or from the page cache."""


class Recorded(BaseModel):
    """A part of a record. It is immutable, and has no other fields than these.

    Names end in their unit: `_s` for seconds, `_ms` for milliseconds, `_mib` for MiB. A line may leave out a field that
    has a default. Unless the field says otherwise, None means that the system does not report the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())
