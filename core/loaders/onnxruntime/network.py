"""Graphs as Networks: over a checkpoint's own mapped weights, over packed ones, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from ...checkpoints.arrays import MappedArrays
from ...checkpoints.heads import Floats
from ...system.heap import give_back
from ...system.threads import spread_no_more
from ..classifier import Inputs
from .common import GraphNetwork
from .facts import GraphFacts

LARGE = 256  # tokens of a batch: with more, what it took is given back, or it would stay for good
_shrinks = onnxruntime.RunOptions()
_shrinks.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


class OnnxNetwork(GraphNetwork):
    """A session of its own, over weights that are constants of its graph."""

    def __init__(
        self, session: onnxruntime.InferenceSession | None, facts: GraphFacts, dtype: str, nbytes: int
    ) -> None:
        super().__init__(facts, dtype, nbytes)
        self._session: Any = session

    def forward(self, inputs: Inputs) -> Floats:
        try:
            if inputs["input_ids"].size <= LARGE:
                return self._run(inputs, None)
            logits = self._run(inputs, _shrinks)
            give_back()
            return logits
        except Exception as error:  # the engine's exceptions have no base of their own
            raise RuntimeError(str(error)) from error

    def _run(self, inputs: Inputs, options: onnxruntime.RunOptions | None) -> Floats:
        given = {name: inputs[name] for name in self.facts.inputs}
        return np.asarray(self._session.run(["logits"], given, options)[0])

    def close(self) -> None:
        self._session = None


class BoundNetwork(OnnxNetwork):
    """Values over the checkpoint's mapped file, which the session of their architecture is given at each forward."""

    def __init__(self, session: onnxruntime.InferenceSession, weights: MappedArrays, facts: GraphFacts) -> None:
        nbytes = sum(weights[tensor].nbytes for tensor in set(facts.weights.values()))
        super().__init__(session, facts, "float32", nbytes)
        self._weights: MappedArrays | None = weights
        self._values: dict[str, Any] = {
            name: OrtValue.ortvalue_from_numpy(weights[tensor]) for name, tensor in facts.weights.items()
        }

    def _run(self, inputs: Inputs, options: onnxruntime.RunOptions | None) -> Floats:
        given = {name: OrtValue.ortvalue_from_numpy(inputs[name]) for name in self.facts.inputs}
        found = self._session.run_with_ort_values(["logits"], self._values | given, options)
        return np.asarray(found[0].numpy())

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
    """Begins with one network, which is loaded in no time, and goes on with another one, which is faster, where its
    model stays in memory for long enough. That one is made in the background; requests do not wait for it.
    """

    def __init__(self, first: OnnxNetwork, is_due: Callable[[int], bool], make: Callable[[], OnnxNetwork]) -> None:
        """`is_due` is told how many forwards there were; `make` returns `first` if there is nothing faster."""
        super().__init__(None, first.facts, first.dtype, first.nbytes)
        self._is_due, self._make = is_due, make
        self._lock = Lock()  # protects what stands below
        self._now: OnnxNetwork | None = first
        self._left: list[OnnxNetwork] = []  # networks that were replaced while forwards ran
        self._forwards = self._running = 0
        self._is_switching = False

    def forward(self, inputs: Inputs) -> Floats:
        with self._lock:
            if (network := self._now) is None:
                raise RuntimeError("this model is closed")
            self._running += 1
        try:
            return network.forward(inputs)
        finally:
            with self._lock:
                self._running -= 1
                self._forwards += 1
                starts = not self._is_switching and self._is_due(self._forwards)
                self._is_switching |= starts
            self._close_those_left()
            if starts:
                Thread(target=self._switch, name="pack", daemon=True).start()

    def _switch(self) -> None:
        spread_no_more()
        made = self._make()
        with self._lock:
            before, self._now = self._now, made if self._now is not None else None
            self._left += [each for each in (before, made) if each is not None and each is not self._now]
        self._close_those_left()

    def _close_those_left(self) -> None:
        with self._lock:
            if self._running:
                return
            left, self._left = self._left, []
        for network in left:
            network.close()

    def first_nan(self) -> str | None:
        with self._lock:
            network = self._now
        return None if network is None else network.first_nan()

    def close(self) -> None:
        with self._lock:
            now, self._now = self._now, None
            self._left += [] if now is None else [now]
        self._close_those_left()
