"""Settings of a served app, to be pasted: one of a run's strategies, or one that a plan has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import yaml
from pydantic import JsonValue

from ..results.header import ClusterSpec, RunHeader


class Chosen(NamedTuple):
    """A strategy and a loader, with their options."""

    strategy: str
    options: Mapping[str, JsonValue]
    loader: str
    loader_options: Mapping[str, JsonValue]
    cluster: ClusterSpec | None = None


def app_settings(header: RunHeader, chosen: Chosen) -> str:
    """YAML for RESIDENCY_CONFIG, with the models, batching and plugins of the run whose `header` it is."""
    strategy: dict[str, JsonValue] = {"strategy": chosen.strategy}
    if chosen.options:
        strategy["options"] = dict(chosen.options)
    options = dict(chosen.loader_options)
    strategy["loader"] = {"name": chosen.loader, **options} if options else chosen.loader
    settings: dict[str, JsonValue] = {
        "models": {model_id: model.setting for model_id, model in header.models.items()},
        "strategies": [strategy],
        "batching": header.batching_key,
    }
    if chosen.cluster:
        settings["cluster"] = {"nodes": chosen.cluster.nodes, **chosen.cluster.options}
    if header.plugins:
        settings["plugins"] = [*header.plugins]
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
