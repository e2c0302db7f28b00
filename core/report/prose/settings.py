"""What is said above settings to paste."""

from __future__ import annotations

from ...names import APP, CLUSTER_BUILD, COMMAND
from ...results.header import Lifecycle

STARTS: dict[Lifecycle | None, str] = {
    None: f"RESIDENCY_CONFIG=app.yaml uvicorn {APP}",
    "local": f"{COMMAND} serve app.yaml",
    "ray": f"serve run {CLUSTER_BUILD} config=app.yaml",
}


def settings_to_paste(title: str, route: str, yaml: str, lifecycle: Lifecycle | None = None) -> str:
    """With comments that say what they are, how to serve them, and where requests go.

    `lifecycle` is what starts the nodes of a cluster.
    """
    if lifecycle not in STARTS:
        return f"# {title}\n# Ray's own @serve.multiplexed served it. No settings of this app do so.\n"
    return f"# app.yaml: {title}\n# {STARTS[lifecycle]}; requests go to POST {route}\n{yaml}"
