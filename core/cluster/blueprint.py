"""The settings of a cluster as its nodes get them: read and checked where the cluster is built, then sent as text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..config.cluster import ClusterSettings
from ..config.engines import EngineChoice
from ..config.settings import CONFIG, Settings, settings_from_environment
from ..errors import SettingsError
from ..plugins import load_plugins
from ..serving.service import CHANGEABLE, Service
from .node import secret_of

NO_CLUSTER = "has no 'cluster' section; add one, such as 'cluster: {nodes: 2}'"


class Blueprint(NamedTuple):
    """What nodes and balancer are made from. The texts are JSON, in which secrets are readable."""

    settings: Settings
    cluster: ClusterSettings
    fixed: str
    """The settings that a node keeps as long as it runs."""
    changeable: Mapping[str, Any]
    """The settings that can change while a node runs, as JSON holds them. No secret is among them."""
    for_balancer: str
    """The settings that concern the balancer."""

    @property
    def version(self) -> str:
        """A digest of what changes only if nodes are replaced."""
        chosen = [(choice.strategy, choice.loader) for choice in self.settings.strategies or ()]
        return digest(self.fixed, chosen)


def read_blueprint(config: Path) -> Blueprint:
    """Read and check the settings in a file, and in `RESIDENCY_*` variables, which override it.

    Raises a ResidencyError whose sentence names the file or the variable.
    """
    with _configured(config):
        settings = settings_from_environment()
    if settings.cluster is None:
        raise SettingsError(f"{config}: {NO_CLUSTER}.")
    _check(settings)
    values = _plain(settings)
    changeable = {name: values.pop(name) for name in CHANGEABLE if name in values}
    fixed, for_balancer = (json.dumps(each, sort_keys=True) for each in (values, _for_balancer(settings)))
    return Blueprint(settings, settings.cluster, fixed, changeable, for_balancer)


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings that were given, as YAML and JSON hold them, with readable secrets.

    Of `cluster` only the secret is left, because a change of the rest does not concern a node.
    """
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=True, exclude={"cluster", "token"})
    if settings.token:
        values["token"] = settings.token.get_secret_value()
    if secret := secret_of(settings):
        values["cluster"] = {"nodes": 1, "secret": secret}
    return values


def write_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file of settings in one step, readable for its owner only."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(dict(values), file, allow_unicode=True)
    fresh.replace(path)


def _for_balancer(settings: Settings) -> dict[str, Any]:
    assert settings.cluster
    # Of the models it wants to know which is the default, whether there is only one, and which are engines.
    names = list(dict.fromkeys([*filter(None, [settings.default]), *settings.models]))[:2]
    names += [name for name, model in settings.models.items() if isinstance(model, EngineChoice) and name not in names]
    models = settings.model_dump(mode="json", exclude_unset=True, include={"models"}).get("models", settings.models)
    return {
        "cluster": settings.cluster.model_dump(mode="json") | {"secret": secret_of(settings)},
        "models": {name: models[name] for name in names},
        "default": settings.default,
        "token": settings.token.get_secret_value() if settings.token else None,
        "allowed_hosts": settings.allowed_hosts,
        "log": settings.log,
        "shutdown_timeout": settings.shutdown_timeout,
    }


def _check(settings: Settings) -> None:
    """Check strategies, loaders and plugins, as a node does when it starts."""
    Service(settings.model_copy(update={"capture": None, "state": None}), load_plugins(settings.plugins)).close()


@contextmanager
def _configured(config: Path) -> Iterator[None]:
    """Have RESIDENCY_CONFIG name the file."""
    before = os.environ.get(CONFIG)
    os.environ[CONFIG] = str(config)
    try:
        yield
    finally:
        os.environ.pop(CONFIG) if before is None else os.environ.update({CONFIG: before})


def digest(*parts: object) -> str:
    """A digest of values and of our version."""
    ours = ""
    with suppress(PackageNotFoundError):  # a checkout
        ours = version("residency")
    return hashlib.sha256(repr((ours, *parts)).encode()).hexdigest()[:16]
