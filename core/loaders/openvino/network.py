"""A compiled checkpoint as a Network."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoints.heads import Floats
from ...system.threads import forward_threads
from ..classifier import PADDING, Inputs
from ..onnxruntime.common import GraphNetwork
from ..onnxruntime.facts import GraphFacts
from .engine import openvino

DEVICE = "CPU"
STEP = 8  # tokens; each length that is computed for the first time costs a compilation, and memory that stays
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of what is computed; int8 is that of the weights


def settings(dtype: str) -> dict[str, Any]:
    """The engine's, for compiling and for importing alike."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": forward_threads(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "ENABLE_CPU_PINNING": False,  # the threads of all models would be bound to the same cores
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # or some processors would round what is between the layers, too
    }


# The engine reads a blob and does not hold it, so that it has to be the last to go, also where the collector frees a
# network in an order of its own: that of one that was never closed stays.
_mapped: dict[int, Any] = {}


class OpenVinoNetwork(GraphNetwork):
    """The weights are those of the mapped file, but for the ones that the engine reorders in memory of its own."""

    def __init__(self, core: Any, blob: Path, facts: GraphFacts, dtype: str, nbytes: int) -> None:
        super().__init__(facts, dtype, nbytes)
        self._fills = (
            facts.pads
            and facts.pad_id is not None
            and {"input_ids", "attention_mask"} <= self.inputs <= {"input_ids", *PADDING}
        )
        with blob.open("rb") as file:
            # The engine takes no memory that is read-only. Nothing writes to this one, so that it stays the file's.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        memory = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
        self._compiled: Any = core.import_model(memory, DEVICE, settings(dtype))
        self._idle: list[Any] = []  # requests, as many as there were forwards at a time
        self._memory = memory
        _mapped[id(self)] = memory

    def forward(self, inputs: Inputs) -> Floats:
        memory = self._memory  # also while it is closed meanwhile
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        given = {name: self._filled(name, inputs[name]) for name in self.facts.inputs}
        logits: Floats = request.infer(given, share_inputs=True)["logits"]
        self._idle.append(request)  # one that has failed is dropped
        del request, memory  # in this order
        return logits

    def close(self) -> None:
        self._idle.clear()
        self._compiled = None
        self._memory = None
        _mapped.pop(id(self), None)

    def _filled(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The input filled up to the next multiple of `STEP` tokens, where that changes no answer."""
        tokens = rows.shape[1]
        longer = tokens + -tokens % STEP
        if not self._fills or longer > (self.limit or longer):
            return rows
        fill = np.full((len(rows), longer - tokens), PADDING.get(name, self.pad_id))
        return np.hstack([fill, rows] if self.facts.pads_left else [rows, fill])
