"""A model in a process of its own, whose memory goes back whole when it ends."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pluggy
from pydantic import Field

from ...checkpoints import checkpoint
from ...checkpoints import dtypes as precision
from ...checkpoints.checkpoint import identity
from ...checkpoints.heads import named
from ...contracts import Prediction
from ...errors import ModelGone
from ..kept import Kept
from ..onnxruntime import conversion
from ..onnxruntime import loader as onnx
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.packed import Packed

if TYPE_CHECKING:
    from .children import Child, ForkServer
    from .fork_server import Order

BYTES = onnx.BYTES | precision.BYTES


class SubprocessLoader:
    """Loads as `onnxruntime` or `mapped` does, in a child process that is forked when the imports are done.

    Closing a model ends its process. One that crashes, or gives no answer within `deadline` seconds, fails
    the requests that it was answering, and no others.
    """

    name = "subprocess"

    def __init__(
        self,
        *,
        inner: Literal["onnxruntime", "mapped"] = "onnxruntime",
        dtype: Literal["float32", "bfloat16", "int8"] = "float32",
        linear: Literal["auto", "stock"] = "auto",
        pack: Literal["auto"] | bool = "auto",
        deadline: Annotated[float, Field(gt=0, le=3600)] = 120.0,
    ) -> None:
        """Raises ValueError on a system other than Linux, and for an option that the inner loader does not have."""
        if sys.platform != "linux":
            raise ValueError("the loader 'subprocess' needs Linux; use 'onnxruntime' or 'mapped'")
        from . import children, fork_server

        options = _options(inner, dtype, linear, pack)
        self._children, self._new_order = children, fork_server.Order
        self._inner = inner
        self._dtype: str = options["dtype"]
        self._options = json.dumps(options)
        self._packs = pack is True or dtype == "int8"
        self._deadline = deadline
        self._tried: Kept[str, CannotConvert | None] = Kept("conversions", 4096)  # by the files' identity
        children.fork_server(inner)  # it imports while the rest of the start-up goes on

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Have the checkpoint converted, and a child make what all later ones begin with: a template, a tokenizer."""
        self._prepared(directory)

    def load(self, directory: Path) -> SubprocessModel:
        """Raises ModelReferenceError for what is no checkpoint, RuntimeError for what fails in the child, ModelCrashed
        when it ends or hangs. Only the child maps the files, so that whoever truncates one ends a child.
        """
        return SubprocessModel(lambda: self._spawn(directory), self._inner, self._deadline)

    def _spawn(self, directory: Path) -> tuple[Child, Order]:
        """A new child, and what it is to be told."""
        try:
            server, order = self._prepared(directory)
            return server.spawn(), order
        except self._children.ForkServerGone:  # it was not known to be gone
            server, order = self._prepared(directory)
            return server.spawn(), order

    def _prepared(self, directory: Path) -> tuple[ForkServer, Order]:
        state = identity(directory)
        order = self._order(directory, state)
        server = self._children.fork_server(order.loader)
        server.once((order.loader, order.options, state), lambda: self._prepare(server, order))
        return server, order

    def _order(self, directory: Path, state: str) -> Order:
        """What a child is told: to load by `mapped` what the inner loader cannot load."""
        if self._inner == "onnxruntime" and (reason := self._tried.get(state, lambda: self._convert(directory))):
            if importlib.util.find_spec("torch") is None:
                raise reason
            precision.warn_once(f"Loader 'subprocess' uses 'mapped' for {directory}: {reason}.")
            return self._new_order("mapped", "{}", str(directory))
        return self._new_order(self._inner, self._options, str(directory))

    def _convert(self, directory: Path) -> CannotConvert | None:
        """Have the checkpoint converted, for which a child would have no more than its deadline, or say why not."""
        try:
            converted = conversion.converted(directory)
            if self._packs:
                Packed(directory, converted, self._dtype).make()
        except CannotConvert as reason:
            return reason
        return None

    def _prepare(self, server: ForkServer, order: Order) -> None:
        memory = os.memfd_create("prepared")
        try:
            child = server.spawn(prepared=memory)
            try:
                child.ask(order, self._children.START_SECONDS)
            finally:
                child.end()
            server.keep(memory)
        finally:
            os.close(memory)


def _options(
    inner: str, dtype: Literal["float32", "bfloat16", "int8"], linear: str, pack: Literal["auto"] | bool
) -> dict[str, Any]:
    """Those of the inner loader. Raises ValueError for one that it does not have."""
    if inner == "mapped":
        if dtype == "int8" or pack != "auto":
            raise ValueError("'dtype: int8' and 'pack' need 'inner: onnxruntime'; with 'inner: mapped' leave them out")
        return {"dtype": precision.computable(dtype), "linear": linear}
    if dtype == "bfloat16" or linear != "auto":
        raise ValueError(
            "'dtype: bfloat16' and 'linear' need 'inner: mapped'; with 'inner: onnxruntime' leave them out"
        )
    onnx.check_options(dtype, pack)
    return {"dtype": dtype, "pack": pack}


class SubprocessModel:
    """`core.contracts.Model` in a child process."""

    own_process = True

    def __init__(self, spawn: Callable[[], tuple[Child, Order]], inner: str, deadline: float) -> None:
        """`inner` is the loader that children are meant to use."""
        self.phases: Mapping[str, float] = {}
        self.nbytes = 0
        self.loaded_by = self.dtype = ""
        self.preloaded: list[str] = []  # modules that the child has found imported
        self._inner = inner
        self._labels: Sequence[str] = ()
        self._deadline = deadline
        self._turn = Lock()  # held by the one thread that talks to the child
        self._closed = False
        began = perf_counter()
        self._child, order = spawn()
        self._load(order, began)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_asked(self) -> bool:
        """Whether a thread waits for the child's answer."""
        return self._turn.locked()

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises ModelCrashed when the child ends or hangs, ModelGone when it had ended before, what its model raises,
        and RuntimeError after `close`.
        """
        return named(self._labels, np.array(self._ask(list(texts))["scores"]))

    def check(self) -> None:
        """Raise ModelReferenceError where a text can have a token for which there is no embedding."""
        self._ask(None)

    def _ask(self, question: list[str] | None) -> dict[str, Any]:
        with self._turn:
            if self._closed:
                raise RuntimeError("this model is closed; nobody may use it any more")
            if self._child.has_ended():
                raise ModelGone("The model's process has ended.")
            return self._child.ask(question, self._deadline)

    def close(self) -> None:
        self._closed = True
        self._child.kill()  # whoever talks to it is done at once
        with self._turn:
            self._child.end()

    def _load(self, order: Order, began: float) -> None:
        try:
            answer = self._child.ask(order, self._deadline)
        except BaseException:
            self._child.end()
            raise
        phases: dict[str, Any] = answer["phases"]
        self.phases = {"fork": perf_counter() - began - sum(phases.values()), **phases}
        self.nbytes = answer["nbytes"]
        fell_back = answer["loaded_by"] != self._inner
        self.loaded_by = answer["loaded_by"] if fell_back else SubprocessLoader.name
        self.dtype = answer["dtype"]
        self._labels = answer["labels"]
        self.preloaded = answer["preloaded"]


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[SubprocessLoader]]:
    return [SubprocessLoader]
