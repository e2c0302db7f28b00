"""Settings of a served app, to be pasted: one of a run's strategies, or one that a plan has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from ..names import APP
from ..results.header import RunHeader


class Chosen(NamedTuple):
    """A strategy and a loader, with their options."""

    strategy: str
    route: str
    options: Mapping[str, Any]
    loader: str
    loader_options: Mapping[str, Any]


def app_settings(header: RunHeader, chosen: Chosen, title: str) -> str:
    """YAML for RESIDENCY_CONFIG, with the models, batching and plugins of the run whose `header` it is."""
    strategy: dict[str, Any] = {"strategy": chosen.strategy}
    if chosen.options:
        strategy["options"] = dict(chosen.options)
    options = dict(chosen.loader_options)
    strategy["loader"] = {"name": chosen.loader, **options} if options else chosen.loader
    settings: dict[str, Any] = {
        "models": {model_id: model.reference for model_id, model in header.models.items()},
        "strategies": [strategy],
        "batching": header.batching_key,
    }
    if header.plugins:
        settings["plugins"] = header.plugins
    start = f"RESIDENCY_CONFIG=app.yaml uvicorn {APP}; requests go to POST {chosen.route}"
    head = f"# app.yaml: {title}\n# {start}\n"
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
