"""Settings of a served app, to be pasted: one of a run's strategies, or one that a plan has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ..names import APP


def app_settings(header: Mapping[str, Any], chosen: Mapping[str, Any], title: str) -> str:
    """YAML for RESIDENCY_CONFIG, with the models of the run whose `header` it is; `chosen` has the keys strategy,
    options, loader, loader_options and route.
    """
    strategy: dict[str, Any] = {"strategy": chosen["strategy"]}
    if chosen["options"]:
        strategy["options"] = chosen["options"]
    loader, options = chosen["loader"], chosen["loader_options"]
    strategy["loader"] = {"name": loader, **options} if options else loader
    settings: dict[str, Any] = {
        "models": {model_id: model["reference"] for model_id, model in header["models"].items()},
        "strategies": [strategy],
        "batching": header.get("batching", "off"),
    }
    if plugins := header.get("plugins"):
        settings["plugins"] = plugins
    start = f"RESIDENCY_CONFIG=app.yaml uvicorn {APP}; requests go to POST {chosen['route']}"
    head = f"# app.yaml: {title}\n# {start}\n"
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
