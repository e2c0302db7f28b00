"""Requests to the nodes of a cluster, each through the balancer, which knows where they are and their secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ..errors import NodeFailed, NodeRefused
from ..http.schemas import ManualChange, Problem, ResidencyAnswer, StrategiesAnswer
from .settings_file import SettingsFile

INTERNAL = "internal.sock"  # in the run folder: the balancer's frontend for us
TOKEN_FILE = "token"  # noqa: S105  # in the run folder: what nodes want to see of an operator
NODE_HEADER = "X-Residency-Node"
TIMEOUT = 5.0  # seconds for an answer about a node's state
LONG_TIMEOUT = 600.0  # for loads, and for changes of models, which wait for requests and loads
AT_ONCE = 16  # nodes that are asked at a time
Answer = TypeVar("Answer", bound=BaseModel)
Result = TypeVar("Result")


class Nodes:
    """The nodes of the cluster whose run folder this is, by the names of their slots."""

    def __init__(self, folder: Path) -> None:
        token = (folder / TOKEN_FILE).read_text().strip()
        self._headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.HTTPTransport(uds=str(folder / INTERNAL), limits=httpx.Limits(max_keepalive_connections=0))
        self._client = httpx.Client(transport=transport, base_url="http://node")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, slot: str, path: str, timeout: float = TIMEOUT) -> httpx.Response:
        """The node's answer. Raises NodeFailed if there is none, and NodeRefused for one with an error."""
        return self._ask(slot, "GET", path, None, timeout)

    def post(self, slot: str, path: str, body: Mapping[str, str] | None = None) -> httpx.Response:
        """The node's answer to an operator. Raises NodeFailed if there is none, NodeRefused for one with an error."""
        return self._ask(slot, "POST", path, body, LONG_TIMEOUT)

    def residency(self, slot: str, history: int = 0) -> ResidencyAnswer:
        """What the node has in memory, and why."""
        return _read(ResidencyAnswer, slot, self.get(slot, f"/residency?history={history}"))

    def strategies(self, slot: str) -> StrategiesAnswer:
        """The node's strategies, and what they hold in memory."""
        return _read(StrategiesAnswer, slot, self.get(slot, "/strategies"))

    def metrics(self, slot: str) -> str:
        """The node's metrics, in Prometheus' text format."""
        return self.get(slot, "/metrics").text

    def load(self, slot: str, strategy: str, model_id: str) -> ManualChange:
        """Load a model into the node's memory."""
        return _read(ManualChange, slot, self.post(slot, f"/models/{model_id}/load", {"strategy": strategy}))

    def reload(self, slot: str) -> StrategiesAnswer:
        """Make the node read its settings again."""
        return _read(StrategiesAnswer, slot, self.post(slot, "/reload"))

    def reload_all(self, slots: Iterable[str]) -> dict[str, StrategiesAnswer]:
        """Make the nodes read their settings again, one after the other.

        Raises the first NodeFailed or NodeRefused; later nodes keep their settings then.
        """
        return {slot: self.reload(slot) for slot in slots}

    def change_all(self, slots: Iterable[str], file: SettingsFile) -> dict[str, StrategiesAnswer]:
        """Make the nodes use what stands in the user's file now, one after the other.

        Raises the first NodeFailed or NodeRefused. All nodes have the former settings then.
        """
        names = list(slots)
        try:
            with file.changing():
                return self.reload_all(names)
        except (NodeFailed, NodeRefused):
            self.ask_all(names, self.reload)
            raise

    def ask_all(self, slots: Iterable[str], ask: Callable[[str], Result]) -> dict[str, Result]:
        """The results of `ask` for the nodes that answer, several at a time."""

        def answer(slot: str) -> Result | None:
            try:
                return ask(slot)
            except (NodeFailed, NodeRefused):
                return None

        names = list(slots)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = zip(names, pool.map(answer, names), strict=True)
            return {slot: result for slot, result in results if result is not None}

    def _ask(self, slot: str, method: str, path: str, body: Mapping[str, str] | None, timeout: float) -> httpx.Response:
        headers = {NODE_HEADER: slot, **(self._headers if method == "POST" else {})}
        try:
            response = self._client.request(method, path, json=body, headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            raise NodeFailed(f"Node {slot} does not answer: {error or type(error).__name__}.") from error
        if response.headers.get(NODE_HEADER) != slot:  # the balancer's own error, or of another node
            raise NodeFailed(f"Node {slot} does not answer.")
        if response.is_error:
            raise NodeRefused(f"Node {slot}: {_detail(response)}", response.status_code)
        return response


def _read(schema: type[Answer], slot: str, response: httpx.Response) -> Answer:
    try:
        return schema.model_validate_json(response.content)
    except ValidationError as error:
        raise NodeFailed(f"Node {slot} answers in another form; all nodes must have the same version.") from error


def _detail(response: httpx.Response) -> str:
    try:
        return Problem.model_validate_json(response.content).detail
    except ValidationError:
        return f"the answer was {response.status_code}."
