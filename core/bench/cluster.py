"""The `cluster:` section of a trial: its server is several nodes behind a balancer."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import Field, model_validator

from ..config.choices import StrategyChoice
from ..config.cluster import ClusterSettings
from ..errors import SettingsError
from ..results.header import ClusterSpec, Lifecycle

MULTIPLEXED: Lifecycle = "ray-multiplexed"
MODEL_HEADER = "X-Model"
RAY_MODEL_HEADER = "serve_multiplexed_model_id"  # in which Ray looks for the model


class TrialCluster(ClusterSettings):
    """The keys of a trial's `cluster`: those of a server's settings, and `lifecycle`."""

    lifecycle: Lifecycle = "local"
    """What starts the nodes. `local`: the command `serve`. `ray`: Ray Serve. `ray-multiplexed`: Ray Serve, with its own
    `@serve.multiplexed` in place of our balancer and the strategy.
    """

    @model_validator(mode="after")
    def _suits_a_trial(self) -> TrialCluster:
        if self.nodes.min != self.nodes.max:
            raise ValueError("a trial has a fixed number of 'nodes', such as 2")
        if self.secret is not None:
            raise ValueError("a trial takes no 'secret', because its nodes are on this machine")
        return self

    @property
    def count(self) -> int:
        """How many nodes the trial has."""
        return self.nodes.max

    @property
    def settings(self) -> dict[str, Any]:
        """The `cluster` section of the servers' settings."""
        keys = self.model_dump(mode="json", exclude_defaults=True, exclude={"lifecycle"})
        return {**keys, "nodes": self.count}

    @property
    def written(self) -> dict[str, Any]:
        """The section of an experiment, in its shortest form."""
        return self.settings | self.model_dump(exclude_defaults=True, include={"lifecycle"})

    @property
    def spec(self) -> ClusterSpec:
        """What a run records of it."""
        options = {key: value for key, value in self.settings.items() if key != "nodes"}
        return ClusterSpec(nodes=self.count, lifecycle=self.lifecycle, options=options)

    def __str__(self) -> str:
        """A phrase for a label."""
        nodes = f"{self.count} node{'' if self.count == 1 else 's'}"
        return nodes if self.lifecycle == "local" else f"{nodes}, {self.lifecycle}"


class TrialChoice(StrategyChoice):
    """A strategy of an experiment: a name, or a mapping that may also have a `cluster`."""

    cluster: TrialCluster | None = Field(default=None)
    """Several nodes in place of one server, such as `{nodes: 2}`."""

    def trial_label(self, dtype: str, *, several_loaders: bool) -> str:
        """The label. Without one, the number of nodes follows the strategy and its loader."""
        plain = super().trial_label(dtype, several_loaders=several_loaders)
        return plain if self.label or self.cluster is None else f"{plain}, {self.cluster}"


def request_headers(choice: TrialChoice, model: str) -> dict[str, str]:
    """What a request for the model has, so that a balancer need not read its body; nothing for a single server."""
    if choice.cluster is None:
        return {}
    ray = {RAY_MODEL_HEADER: model} if choice.cluster.lifecycle == MULTIPLEXED else {}
    return {MODEL_HEADER: model, **ray}


def check_installed(label: str, choice: TrialChoice) -> None:
    """Raise SettingsError if the trial needs Ray, and Ray is not installed."""
    if choice.cluster is not None and choice.cluster.lifecycle != "local" and find_spec("ray") is None:
        raise SettingsError(
            f"The trial '{label}' needs Ray, which is not installed: pip install 'residency[cluster]', or in a checkout"
            " pip install -e '.[cluster]'."
        )
