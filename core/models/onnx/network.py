"""A graph over a checkpoint's mapped weights as a Network."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from ..arrays import MappedArrays
from ..classifier import Inputs
from ..heads import Floats
from .facts import GraphFacts


class OnnxNetwork:
    """The weights are values over the mapped file, which the session of their architecture is given at each forward."""

    dtype = "float32"

    def __init__(self, session: onnxruntime.InferenceSession, weights: MappedArrays, facts: GraphFacts) -> None:
        self.inputs = frozenset(facts.inputs)
        self.limit = facts.limit
        self.pad_id = facts.pad_id
        self.embeddings = facts.embeddings
        self._names = facts.inputs
        self._facts = facts
        self._weights: MappedArrays | None = weights
        self._session: Any = session
        self._values: dict[str, Any] = {
            name: OrtValue.ortvalue_from_numpy(weights[tensor]) for name, tensor in facts.weights.items()
        }
        self.nbytes = sum(weights[tensor].nbytes for tensor in set(facts.weights.values()))

    def forward(self, inputs: Inputs) -> Floats:
        given = {name: OrtValue.ortvalue_from_numpy(inputs[name]) for name in self._names}
        try:
            return np.asarray(self._session.run_with_ort_values(["logits"], self._values | given)[0].numpy())
        except Exception as error:  # its exceptions have no base of their own
            raise RuntimeError(str(error)) from error

    def first_nan(self) -> str | None:
        assert self._weights is not None
        for name in sorted(set(self._facts.weights.values())):
            array = self._weights[name]
            if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
                return name
        return None

    def close(self) -> None:
        weights, self._weights, self._values, self._session = self._weights, None, {}, None
        if weights is not None:
            weights.discard()
