"""The structure of a module without its weights, made once by transformers and restored for each load.

A template holds no tensor that the checkpoint's file provides. It holds all others: non-persistent buffers, and tensors
that transformers converted while loading. Names do not tell which tensors these are, so every tensor of the loaded
module is compared with the file.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ...checkpoints.mapping import MappedTensors, Unmappable

MAX_REAL = 0.1  # the share of the model's bytes that a template may hold


class Template:
    """A module's structure as a pickle in memory, which refers to tensors instead of containing them."""

    def __init__(
        self, module: nn.Module, tensors: MappedTensors, unexpected: Iterable[str], identity: str = ""
    ) -> None:
        """`unexpected` are the file's tensors that transformers did not use, `identity` is that of the checkpoint.

        Raises Unmappable.
        """
        named = tensors_by_id(module)
        provided, leftover = match_tensors(named, set(module.state_dict()), tensors, set(unexpected))
        self.sources: dict[int, str] = provided
        self._shared: list[Any] = []  # values that restored modules share with this one
        real = [tensor for identity, (tensor, _) in named.items() if identity not in provided]
        total = sum(tensor.nbytes for tensor, _ in named.values())
        if sum(tensor.nbytes for tensor in real) > MAX_REAL * total:
            raise Unmappable("most of its tensors are converted while loading")
        # A template that holds weights of the file is valid for this checkpoint only.
        is_own = bool(leftover) or any(isinstance(tensor, nn.Parameter) for tensor in real)
        self.checkpoint_identity = identity if is_own else None
        embeddings = (part.weight for part in module.modules() if isinstance(part, nn.Embedding))
        # The tensors that a forward reads completely; of an embedding it reads one row for each token.
        self.needed = set(provided.values()) - {provided.get(id(weight)) for weight in embeddings}
        self._pickled = self._pickle(module)
        self.sources = {}

    def _pickle(self, module: nn.Module) -> bytes:
        stream = io.BytesIO()
        try:
            _Pickler(stream, self, module).dump(module)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise Unmappable(f"its structure cannot be copied ({error})") from error
        return stream.getvalue()

    def keep(self, value: Any) -> int:
        """Hold `value`, which is not pickled, and return its number."""
        self._shared.append(value)
        return len(self._shared) - 1

    def restore(self, tensors: Mapping[str, torch.Tensor] | MappedTensors) -> Any:
        """A new module whose weights are `tensors`."""
        return _Unpickler(io.BytesIO(self._pickled), tensors, self._shared).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, template: Template, module: nn.Module) -> None:
        super().__init__(stream, protocol=5)
        self._template = template
        self._config = getattr(module, "config", None)
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if name := self._template.sources.get(id(value)):
                return "file", name, isinstance(value, nn.Parameter)
            return "real", self._number(value), isinstance(value, nn.Parameter)
        if value is self._config and value is not None:
            return "shared", self._number(value), False
        return None

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = self._template.keep(value)
        return self._numbers[id(value)]


class _Unpickler(pickle.Unpickler):
    """Reads only what a `Template` pickled in memory."""

    def __init__(self, stream: io.BytesIO, tensors: Any, shared: list[Any]) -> None:
        super().__init__(stream)
        self._tensors = tensors
        self._shared = shared
        self._made: dict[tuple[str, Any], Any] = {}  # because tied weights are one tensor with several names

    def persistent_load(self, reference: tuple[str, Any, bool]) -> Any:
        kind, key, is_parameter = reference
        if kind == "shared":
            return self._shared[key]
        if (kind, key) not in self._made:
            tensor = self._tensors[key] if kind == "file" else self._shared[key].detach().clone()
            self._made[kind, key] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
        return self._made[kind, key]


Named = dict[int, tuple[torch.Tensor, list[str]]]


def tensors_by_id(module: nn.Module) -> Named:
    """Every tensor of the module with all of its names, by Python's `id`."""
    named: Named = {}
    for tensors in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)):
        for name, tensor in tensors:
            named.setdefault(id(tensor), (tensor, []))[1].append(name)
    return named


def match_tensors(
    named: Named, saved: set[str], tensors: MappedTensors, unexpected: set[str]
) -> tuple[dict[int, str], set[str]]:
    """(the name in the file of each tensor that the file holds bit for bit, the file's names that match no tensor).

    A name counts only if the module reads it from a file. An old checkpoint may hold a buffer that is equal by chance,
    and another one of the same layout may hold a different buffer, which transformers ignores.
    """
    provided: dict[int, str] = {}
    for identity, (tensor, names) in named.items():
        for name in names:
            read = name in saved and name not in unexpected
            if read and name in tensors.entries and _same(tensor, tensors[name]):
                provided[identity] = name
                break
    unread = {name for _, names in named.values() for name in names if name not in saved}
    leftover = set(tensors.entries) - set(provided.values()) - unexpected - unread
    # Renamed tensors are found by their content, if that is unambiguous.
    by_shape: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in leftover:
        by_shape[tensors.entries[name].shape].append(name)
    for identity, (tensor, names) in named.items():
        if identity not in provided and not saved.isdisjoint(names):
            same = [name for name in by_shape[tuple(tensor.shape)] if _same(tensor, tensors[name])]
            rivals = [i for i, (other, _) in named.items() if i not in provided and _same(other, tensor)]
            if len(same) == 1 and rivals == [identity]:
                provided[identity] = same[0]
                by_shape[tuple(tensor.shape)].remove(same[0])
                leftover.discard(same[0])
    return provided, leftover


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.is_contiguous() and torch.equal(one, other)
