"""Which backend multiplies in float32: a measurement at start, not a guess.

PyTorch sends a float32 `nn.Linear` to MKL; on some processors oneDNN is up to twice as fast on the very
same weights in memory, and faster still on weights that it has reordered, which is a private copy.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch import nn

LARGE_ENOUGH = 0.9  # the other backend must take less than this share of the stock path's time
SHAPE = (20, 512, 2048)  # tokens, and a feed-forward layer of middling width
ROUNDS = 9


class OneDnnLinear(nn.Linear):
    """`nn.Linear` on oneDNN, over the same plain weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class's name
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return result


def use_one_dnn(module: nn.Module) -> None:
    """Turn every plain float32 `nn.Linear` in `module` into a `OneDnnLinear`, weights untouched."""
    for part in module.modules():
        if type(part) is nn.Linear and part.weight.dtype == torch.float32:
            part.__class__ = OneDnnLinear


def pack(module: nn.Module) -> None:
    """Replace the weights of every `OneDnnLinear` by oneDNN's own order: a private copy, and faster."""
    for part in module.modules():
        if isinstance(part, OneDnnLinear):
            reordered: Any = torch.ops.mkldnn._reorder_linear_weight(part.weight.detach(), SHAPE[0])
            del part.weight
            part.register_buffer("weight", reordered)


@cache
def one_dnn_is_faster() -> bool:
    """Measured once in a process, in some milliseconds, interleaved; False where there is no oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    tokens, width, out = SHAPE
    stock = nn.Linear(width, out)
    other = nn.Linear(width, out)
    use_one_dnn(other)
    text = torch.zeros(1, tokens, width)
    with torch.inference_mode():
        try:
            times = [(_seconds(stock, text), _seconds(other, text)) for _ in range(ROUNDS)]
        except RuntimeError:  # this build of torch lacks the operator
            return False
    return min(t for _, t in times) < LARGE_ENOUGH * min(t for t, _ in times)


def _seconds(layer: nn.Linear, text: torch.Tensor) -> float:
    started = time.perf_counter()
    layer(text)
    return time.perf_counter() - started
