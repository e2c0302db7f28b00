"""The path that routes are compared with."""

from __future__ import annotations

from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """The request's path without the prefix under which the app is served (`--root-path`, or where it is mounted).

    A proxy may have taken the prefix away already.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path
