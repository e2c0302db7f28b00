"""Measures and chooses the backend of float32 linear layers.

PyTorch computes a float32 `nn.Linear` with MKL. On some processors oneDNN is up to twice as fast on the same weights in
memory, and faster still on weights that it has reordered, which takes a private copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

ENOUGH = 0.95  # the share of MKL's time below which oneDNN is chosen
TOKENS = 20  # of a typical text
LAYERS = 24  # that are measured at most
PASSES = 3  # that are measured at least
SECONDS = 0.05  # for all passes, unless the first three take longer


class BucketedLinear(nn.Linear):
    """An `nn.Linear` that pads its input to one of a few numbers of rows.

    oneDNN generates code for each shape, and never frees it: 0.1 to 0.2 MB each. With texts of mixed lengths, memory
    would grow by hundreds of MB. Rows are padded to the next of eight sizes in each octave, on average by 3 %, which
    costs no more time than generating code would.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class's name
        features = input.shape[-1]
        rows = input.numel() // features
        size = bucket(rows)
        if size == rows:
            return self.multiply(input)
        padded = input.new_empty(size, features)
        padded[:rows] = input.reshape(rows, features)
        padded[rows:] = 0
        return self.multiply(padded)[:rows].view(*input.shape[:-1], -1)

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Apply the layer to a padded number of rows."""
        return super().forward(rows)


class OneDnnLinear(BucketedLinear):
    """An `nn.Linear` that computes with oneDNN on the same plain weight."""

    @classmethod
    def over(cls, layer: nn.Linear) -> OneDnnLinear:
        """A copy of `layer` that shares its weight. `layer` does not change."""
        other = copy.copy(layer)
        other.__class__ = cls
        assert isinstance(other, OneDnnLinear)
        return other

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return result


def bucket(rows: int) -> int:
    """The least of 1, 2, …, 16, 18, …, 32, 36, …, 64, 72, … that is at least `rows`."""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def use_one_dnn(module: nn.Module) -> None:
    """Turn every plain float32 `nn.Linear` in `module` into a `OneDnnLinear`. Weights do not change."""
    _replace(module, torch.float32, OneDnnLinear)


def use_buckets(module: nn.Module) -> None:
    """Turn every plain bfloat16 `nn.Linear`, which torch computes with oneDNN anyway, into a `BucketedLinear`."""
    _replace(module, torch.bfloat16, BucketedLinear)


def _replace(module: nn.Module, dtype: torch.dtype, cls: type[BucketedLinear]) -> None:
    for part in module.modules():
        if type(part) is nn.Linear and part.weight.dtype == dtype:
            part.__class__ = cls


def pack(module: nn.Module) -> None:
    """Reorder the weights of every `OneDnnLinear` for oneDNN: faster, but a private copy."""
    for part in module.modules():
        if isinstance(part, OneDnnLinear):
            reordered: Any = torch.ops.mkldnn._reorder_linear_weight(part.weight.detach(), TOKENS)
            del part.weight
            part.register_buffer("weight", reordered)


def one_dnn_is_faster(module: nn.Module) -> bool:
    """Whether oneDNN computes the module's float32 layers faster; False if there is no oneDNN.

    Takes some tens of milliseconds. Each pass goes over more weights than the processor's cache holds, as a forward
    does: on weights in the cache the backends take the same time.
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
            _seconds(stock)  # faults the weights in, which must not count for either backend
            times: list[tuple[float, float]] = []
            end = time.perf_counter() + SECONDS
            while len(times) < PASSES or time.perf_counter() < end:  # other processes may disturb some passes
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
