"""What is said above settings to paste."""

from __future__ import annotations

from ...names import APP


def settings_to_paste(title: str, route: str, yaml: str) -> str:
    """With comments that say what they are, how to serve them, and where requests go."""
    start = f"RESIDENCY_CONFIG=app.yaml uvicorn {APP}; requests go to POST {route}"
    return f"# app.yaml: {title}\n# {start}\n{yaml}"
