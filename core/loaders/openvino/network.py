"""A compiled checkpoint as a Network."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...system.threads import forward_threads
from ...tasks.functions import Floats
from ..onnxruntime.common import GraphNetwork
from ..onnxruntime.facts import GraphFacts
from ..text_model import PADDING, Inputs
from .runtime import openvino

DEVICE = "CPU"
STEP = 8  # tokens: lengths are multiples, because the runtime compiles for each new length, and keeps the code
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of the computation; int8 is that of the weights


def settings(dtype: str) -> dict[str, Any]:
    """The runtime's settings, for both compiling and importing."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": forward_threads(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "ENABLE_CPU_PINNING": False,  # it would bind the threads of all models to the same cores
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # on some processors it would round activations, too
    }


# The mapped blobs by the `id` of their network. The runtime uses a blob without holding a reference, so it must be
# freed last, also if the garbage collector frees a network's attributes in another order. The blob of a network that
# is never closed is never freed.
_mapped: dict[int, Any] = {}


class OpenVinoNetwork(GraphNetwork):
    """A network over the weights of the mapped blob, except those that the runtime copies and reorders."""

    def __init__(self, core: Any, blob: Path, facts: GraphFacts, dtype: str, nbytes: int) -> None:
        super().__init__(facts, dtype, nbytes)
        self._can_pad = (
            facts.pads
            and facts.pad_id is not None
            and {"input_ids", "attention_mask"} <= self.inputs <= {"input_ids", *PADDING}
        )
        with blob.open("rb") as file:
            # The runtime refuses read-only memory. Nothing writes to this mapping, so its pages remain the file's.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        memory = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
        self._compiled: Any = core.import_model(memory, DEVICE, settings(dtype))
        self._idle: list[Any] = []  # the runtime's requests that no forward uses
        self._memory = memory
        _mapped[id(self)] = memory

    def forward(self, inputs: Inputs) -> Floats:
        memory = self._memory  # keeps the blob mapped if the network is closed during this forward
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        values = {name: self._pad(name, inputs[name]) for name in self.facts.inputs}
        output: Floats = request.infer(values, share_inputs=True)[self.facts.output]
        self._idle.append(request)  # a request that failed is not used again
        del request, memory  # in this order, because the request uses the blob
        return output if output.ndim == 2 else self._without_padding(output, inputs["input_ids"].shape[1])

    def close(self) -> None:
        self._idle.clear()
        self._compiled = None
        self._memory = None
        _mapped.pop(id(self), None)

    def _pad(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The input, padded to the next multiple of `STEP` tokens if that does not change answers."""
        tokens = rows.shape[1]
        length = tokens + -tokens % STEP
        if not self._can_pad or length > (self.limit or length):
            return rows
        padding = np.full((len(rows), length - tokens), PADDING.get(name, self.pad_id))
        return np.hstack([padding, rows] if self.facts.pads_left else [rows, padding])

    def _without_padding(self, hidden: Floats, tokens: int) -> Floats:
        """The vectors of the tokens before `_pad`."""
        return hidden[:, -tokens:] if self.facts.pads_left else hidden[:, :tokens]
