"""What all nodes have in memory, in the form in which one node says it, with the name of the node added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ..errors import NodeFailed, NodeRefused, ResidencyError
from ..http.admin import for_operators
from ..http.problems import RETRY, add_problem_handlers
from ..http.schemas import Kept, Memory, ResidencyAnswer, StrategiesAnswer
from ..http.status import DEFAULT_HISTORY, Events
from ..residency.versions import without_paths
from .nodes import Nodes

NODE = "node"
Slots = Callable[[], Mapping[str, bool]]
"""The slots in use, and whether the node in each is up."""


def create_status_app(
    nodes: Nodes, slots: Slots, token: SecretStr | None, reload: Callable[[], dict[str, StrategiesAnswer]]
) -> FastAPI:
    """The app behind the routes about all nodes. Without a `token`, operators can change nothing."""
    app = FastAPI(title="Residency: all nodes", openapi_url=None)
    add_problem_handlers(app)

    def all_up() -> list[str]:
        try:
            return [slot for slot, is_up in slots().items() if is_up]
        except ResidencyError as error:
            raise HTTPException(503, str(error), RETRY) from error

    @app.get("/residency", response_model_exclude_unset=True)
    def residency(history: Events = DEFAULT_HISTORY) -> ResidencyAnswer:
        return join_residency(nodes.ask_all(all_up(), lambda slot: nodes.residency(slot, history)))

    @app.get("/strategies", response_model_exclude_unset=True)
    def strategies() -> StrategiesAnswer:
        return join_strategies(nodes.ask_all(all_up(), nodes.strategies))

    @app.get("/metrics")
    def metrics() -> Response:
        texts = nodes.ask_all(all_up(), nodes.metrics)
        return Response(join_metrics(texts, slots()), media_type=CONTENT_TYPE_LATEST)

    if token is not None:
        _add_reload(app, token, reload)
    return app


def _add_reload(app: FastAPI, token: SecretStr, reload: Callable[[], dict[str, StrategiesAnswer]]) -> None:
    @app.post("/reload", dependencies=[for_operators(token)], response_model_exclude_unset=True)
    def reload_all() -> StrategiesAnswer:
        try:
            return join_strategies(reload())
        except NodeRefused as refused:
            raise HTTPException(refused.status, str(refused), RETRY if refused.status == 503 else None) from refused
        except NodeFailed as failed:
            raise HTTPException(503, str(failed), RETRY) from failed
        except ResidencyError as error:
            raise HTTPException(422, without_paths(error, Path())) from error


def join_residency(answers: Mapping[str, ResidencyAnswer]) -> ResidencyAnswer:
    """One answer about all nodes: memory and what is kept are sums, each strategy has the name of its node."""
    made, kept, most = Counter[str](), Counter[str](), Counter[str]()
    for answer in answers.values():
        for name, count in answer.kept.items():
            made[name] += count.made
            kept[name] += count.kept
            most[name] += count.most
    memory = [answer.memory for answer in answers.values()]
    return ResidencyAnswer(
        memory=Memory(
            pss_bytes=_sum([each.pss_bytes for each in memory]),
            private_bytes=_sum([each.private_bytes for each in memory]),
        ),
        kept={name: Kept(kept=kept[name], most=most[name], made=made[name]) for name in made},
        strategies=[
            each.model_copy(update={NODE: slot}) for slot, answer in answers.items() for each in answer.strategies
        ],
    )


def join_strategies(answers: Mapping[str, StrategiesAnswer]) -> StrategiesAnswer:
    """One answer about all nodes: each strategy has the name of its node."""
    return StrategiesAnswer(
        strategies=[
            each.model_copy(update={NODE: slot}) for slot, answer in answers.items() for each in answer.strategies
        ],
        checked=all(answer.checked for answer in answers.values()),
    )


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def join_metrics(texts: Mapping[str, str], slots: Mapping[str, bool]) -> bytes:
    """The metrics of all nodes, each with the label `node`, and which nodes of the slots in use are up."""
    registry = CollectorRegistry()
    registry.register(_Joined(texts, slots))
    return generate_latest(registry)


class _Joined(Collector):
    def __init__(self, texts: Mapping[str, str], slots: Mapping[str, bool]) -> None:
        self._texts = texts
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        joined: dict[str, Metric] = {}
        for slot, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                metric = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.add_sample(sample.name, {NODE: slot, **sample.labels}, sample.value)
        yield from joined.values()
        up = GaugeMetricFamily("residency_node_up", "Whether the node answers", labels=[NODE])
        for slot, is_up in self._slots.items():
            up.add_metric([slot], is_up and slot in self._texts)
        yield up
