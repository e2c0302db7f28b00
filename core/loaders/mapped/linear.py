"""Which backend multiplies in float32: a measurement, not a guess.

PyTorch sends a float32 `nn.Linear` to MKL; on some processors oneDNN is up to twice as fast on the very
same weights in memory, and faster still on weights that it has reordered, which is a private copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

ENOUGH = 0.95  # oneDNN must take less than this share of the stock path's time
TOKENS = 20  # of a usual text
LAYERS = 24
PASSES = 3  # at least
SECONDS = 0.05  # for all passes, unless those three take longer


class BucketedLinear(nn.Linear):
    """`nn.Linear` that sees few different numbers of rows.

    oneDNN generates code for each shape that it meets and keeps it for good, 0.1 to 0.2 MB each: under texts of
    mixed length memory would grow by hundreds of MB. Rows are filled up to the next of eight sizes in each
    octave, on average by 3 %, which costs no more than generating code would.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class's name
        features = input.shape[-1]
        rows = input.numel() // features
        filled = bucket(rows)
        if filled == rows:
            return self.multiply(input)
        padded = input.new_empty(filled, features)
        padded[:rows] = input.reshape(rows, features)
        padded[rows:] = 0
        return self.multiply(padded)[:rows].view(*input.shape[:-1], -1)

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows)


class OneDnnLinear(BucketedLinear):
    """`nn.Linear` on oneDNN, over the same plain weight."""

    @classmethod
    def over(cls, layer: nn.Linear) -> OneDnnLinear:
        """Another view of `layer`, which stays as it is."""
        other = copy.copy(layer)
        other.__class__ = cls
        assert isinstance(other, OneDnnLinear)
        return other

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return result


def bucket(rows: int) -> int:
    """The next of 1, 2, …, 16, 18, …, 32, 36, …, 64, 72, …"""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def use_one_dnn(module: nn.Module) -> None:
    """Turn every plain float32 `nn.Linear` in `module` into a `OneDnnLinear`, weights untouched."""
    _replace(module, torch.float32, OneDnnLinear)


def use_buckets(module: nn.Module) -> None:
    """Turn every plain bfloat16 `nn.Linear`, which torch gives to oneDNN itself, into a `BucketedLinear`."""
    _replace(module, torch.bfloat16, BucketedLinear)


def _replace(module: nn.Module, dtype: torch.dtype, cls: type[BucketedLinear]) -> None:
    for part in module.modules():
        if type(part) is nn.Linear and part.weight.dtype == dtype:
            part.__class__ = cls


def pack(module: nn.Module) -> None:
    """Replace the weights of every `OneDnnLinear` by oneDNN's own order: a private copy, and faster."""
    for part in module.modules():
        if isinstance(part, OneDnnLinear):
            reordered: Any = torch.ops.mkldnn._reorder_linear_weight(part.weight.detach(), TOKENS)
            del part.weight
            part.register_buffer("weight", reordered)


def one_dnn_is_faster(module: nn.Module) -> bool:
    """Measured on the module's own layers, some tens of milliseconds; False where there is no oneDNN.

    Each pass goes over more weights than a cache holds, as a forward does: on weights that are in the
    cache the backends look alike.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    layers = [part for part in module.modules() if type(part) is nn.Linear and part.weight.dtype == torch.float32]
    if not layers:
        return False
    stock = layers[:LAYERS]
    other = [OneDnnLinear.over(layer) for layer in stock]
    with torch.inference_mode():
        try:
            _seconds(stock)  # the first touch of the weights is not the backend's
            times: list[tuple[float, float]] = []
            end = time.perf_counter() + SECONDS
            while len(times) < PASSES or time.perf_counter() < end:  # a busy machine disturbs some of them
                times.append((_seconds(stock), _seconds(other)))
        except RuntimeError:  # this build of torch lacks the operator
            return False
    return min(t for _, t in times) < ENOUGH * min(t for t, _ in times)


def _seconds(layers: Sequence[nn.Linear]) -> float:
    texts = [torch.zeros(1, TOKENS, layer.in_features) for layer in layers]
    started = time.perf_counter()
    for layer, text in zip(layers, texts, strict=True):
        layer(text)
    return time.perf_counter() - started
