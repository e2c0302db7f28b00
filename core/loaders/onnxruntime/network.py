"""Graphs as Networks: over packed weights, over a checkpoint's own mapped weights, or first one, then the other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from ...checkpoints.arrays import MappedArrays
from ...system.heap import trim_heap
from ...system.threads import use_any_core
from ...tasks.functions import Floats
from ..text_model import CLOSED, Inputs
from .common import GraphNetwork
from .facts import GraphFacts

LARGE = 256  # tokens of a batch: after a larger one the arena is shrunk, because it would never be otherwise
_shrinks = onnxruntime.RunOptions()
_shrinks.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxNetwork(GraphNetwork):
    """A session of its own. The weights are constants of its graph."""

    def __init__(
        self, session: onnxruntime.InferenceSession | None, facts: GraphFacts, dtype: str, nbytes: int
    ) -> None:
        super().__init__(facts, dtype, nbytes)
        self._session: Any = session

    def forward(self, inputs: Inputs) -> Floats:
        try:
            if inputs["input_ids"].size <= LARGE:
                return self._run(inputs, None)
            output = self._run(inputs, _shrinks)
            trim_heap()
            return output
        except Exception as error:  # the runtime's exceptions have no common base class
            raise RuntimeError(str(error)) from error

    def _run(self, inputs: Inputs, options: onnxruntime.RunOptions | None) -> Floats:
        values = {name: inputs[name] for name in self.facts.inputs}
        return np.asarray(self._session.run([self.facts.output], values, options)[0])

    def close(self) -> None:
        self._session = None


class BoundNetwork(OnnxNetwork):
    """The shared session of an architecture. Each forward binds the checkpoint's mapped weights to its inputs."""

    def __init__(self, session: onnxruntime.InferenceSession, weights: MappedArrays, facts: GraphFacts) -> None:
        nbytes = sum(weights[tensor].nbytes for tensor in set(facts.weights.values()))
        super().__init__(session, facts, "float32", nbytes)
        self._weights: MappedArrays | None = weights
        self._values: dict[str, Any] = {
            name: OrtValue.ortvalue_from_numpy(weights[tensor]) for name, tensor in facts.weights.items()
        }

    def _run(self, inputs: Inputs, options: onnxruntime.RunOptions | None) -> Floats:
        values = {name: OrtValue.ortvalue_from_numpy(inputs[name]) for name in self.facts.inputs}
        outputs = self._session.run_with_ort_values([self.facts.output], self._values | values, options)
        return np.asarray(outputs[0].numpy())

    def first_nan(self) -> str | None:
        assert self._weights is not None
        for name in sorted(set(self.facts.weights.values())):
            array = self._weights[name]
            if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
                return name
        return None

    def close(self) -> None:
        super().close()
        weights, self._weights, self._values = self._weights, None, {}
        if weights is not None:
            weights.discard()


class SwitchingNetwork(OnnxNetwork):
    """A network that loads quickly, replaced by a faster one if its model stays in memory long enough.

    The second network is made in the background, and requests do not wait for it.
    """

    def __init__(self, first: OnnxNetwork, is_due: Callable[[int], bool], make: Callable[[], OnnxNetwork]) -> None:
        """`is_due` takes the number of forwards so far. `make` returns `first` if there is nothing faster."""
        super().__init__(None, first.facts, first.dtype, first.nbytes)
        self._is_due, self._make = is_due, make
        self._lock = Lock()  # protects the attributes below
        self._current: OnnxNetwork | None = first
        self._replaced: list[OnnxNetwork] = []  # to be closed when no forward runs
        self._forwards = self._running = 0
        self._is_switching = False

    def forward(self, inputs: Inputs) -> Floats:
        with self._lock:
            if (network := self._current) is None:
                raise RuntimeError(CLOSED)
            self._running += 1
        try:
            return network.forward(inputs)
        finally:
            with self._lock:
                self._running -= 1
                self._forwards += 1
                must_switch = not self._is_switching and self._is_due(self._forwards)
                self._is_switching |= must_switch
            self._close_replaced()
            if must_switch:
                Thread(target=self._switch, name="pack", daemon=True).start()

    def _switch(self) -> None:
        use_any_core()
        faster = self._make()
        with self._lock:
            before, self._current = self._current, faster if self._current is not None else None
            self._replaced += [each for each in (before, faster) if each is not None and each is not self._current]
        self._close_replaced()

    def _close_replaced(self) -> None:
        with self._lock:
            if self._running:
                return
            replaced, self._replaced = self._replaced, []
        for network in replaced:
            network.close()

    def first_nan(self) -> str | None:
        with self._lock:
            network = self._current
        return None if network is None else network.first_nan()

    def close(self) -> None:
        with self._lock:
            current, self._current = self._current, None
            self._replaced += [] if current is None else [current]
        self._close_replaced()
