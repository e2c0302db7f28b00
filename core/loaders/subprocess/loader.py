"""The loader `subprocess`: a model in a separate process, whose memory is freed completely when it ends."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pluggy
from pydantic import Field

from ...checkpoints import checkpoint, dtypes
from ...checkpoints.checkpoint import identity
from ...checkpoints.heads import Heads, read_heads
from ...errors import ModelGone
from ...tasks.task import Text
from ..onnxruntime import conversion
from ..onnxruntime import loader as onnx
from ..onnxruntime.facts import CannotConvert
from ..onnxruntime.packed import Packed
from ..shared_cache import SharedCache
from ..text_model import CLOSED

if TYPE_CHECKING:
    from .children import Child, ForkServer
    from .fork_server import Order

BYTES = onnx.BYTES | dtypes.BYTES


class SubprocessLoader:
    """Loads as `onnxruntime` or `mapped` does, in a child process that is forked after all imports.

    Closing a model ends its process. A process that crashes, or does not answer within `deadline` seconds, fails only
    the requests that it was answering.
    """

    name = "subprocess"

    def __init__(
        self,
        *,
        inner: Annotated[
            Literal["onnxruntime", "mapped"], Field(description="The loader by which the child loads.")
        ] = "onnxruntime",
        dtype: Annotated[
            Literal["float32", "bfloat16", "int8"],
            Field(description="As of the inner loader: `bfloat16` with `mapped`, `int8` with `onnxruntime`."),
        ] = "float32",
        linear: Annotated[Literal["auto", "stock"], Field(description="As of `mapped`.")] = "auto",
        pack: Annotated[Literal["auto"] | bool, Field(description="As of `onnxruntime`.")] = "auto",
        deadline: Annotated[
            float, Field(gt=0, le=3600, description="Seconds after which a child that does not answer is ended.")
        ] = 120.0,
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
        self._tried: SharedCache[str, CannotConvert | None] = SharedCache("conversions", 4096)  # by the files' identity
        children.fork_server(inner)  # starts its imports, which run during the rest of the start-up

    def size(self, directory: Path) -> int:
        """The bytes of all weights in the loader\'s dtype."""
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Convert the checkpoint, and let a child prepare what later children share, such as the tokenizer."""
        self._prepare_order(directory)

    def load(self, directory: Path) -> SubprocessModel:
        """Load the model in a new child. Only the child maps the files, so truncating one crashes no other process.

        Raises ModelReferenceError for a broken checkpoint, RuntimeError for another failure in the child, and
        ModelCrashed if the child ends or hangs.
        """
        return SubprocessModel(lambda: self._spawn(directory), self._inner, self._deadline, read_heads(directory))

    def _spawn(self, directory: Path) -> tuple[Child, Order]:
        """A new child, and its order."""
        try:
            server, order = self._prepare_order(directory)
            return server.spawn(), order
        except self._children.ForkServerCrashed:  # this was not known before; the next call starts another one
            server, order = self._prepare_order(directory)
            return server.spawn(), order

    def _prepare_order(self, directory: Path) -> tuple[ForkServer, Order]:
        """The fork server for the checkpoint, and a child's order, after the first child has prepared shared state."""
        state = identity(directory)
        order = self._order(directory, state)
        server = self._children.fork_server(order.loader)
        server.once((order.loader, order.options, state), lambda: self._prepare(server, order))
        return server, order

    def _order(self, directory: Path, state: str) -> Order:
        """A child's order. It names `mapped` if `onnxruntime` cannot load the checkpoint."""
        if self._inner == "onnxruntime" and (reason := self._tried.get(state, lambda: self._convert(directory))):
            if importlib.util.find_spec("torch") is None:
                raise reason
            dtypes.warn_once(f"Loader 'subprocess' uses 'mapped' for {directory}: {reason}.")
            return self._new_order("mapped", "{}", str(directory))
        return self._new_order(self._inner, self._options, str(directory))

    def _convert(self, directory: Path) -> CannotConvert | None:
        """Convert the checkpoint here, as a child has only `deadline` seconds. Returns why it cannot be, or None."""
        try:
            converted = conversion.ensure_converted(directory)
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
    """The options of the inner loader. Raises ValueError for one that it does not have."""
    if inner == "mapped":
        if dtype == "int8" or pack != "auto":
            raise ValueError("'dtype: int8' and 'pack' need 'inner: onnxruntime'; with 'inner: mapped' leave them out")
        return {"dtype": dtypes.supported_dtype(dtype), "linear": linear}
    if dtype == "bfloat16" or linear != "auto":
        raise ValueError(
            "'dtype: bfloat16' and 'linear' need 'inner: mapped'; with 'inner: onnxruntime' leave them out"
        )
    onnx.check_options(dtype, pack)
    return {"dtype": dtype, "pack": pack}


class SubprocessModel:
    """`core.contracts.Model` in a child process."""

    own_process = True

    def __init__(self, spawn: Callable[[], tuple[Child, Order]], inner: str, deadline: float, heads: Heads) -> None:
        """`inner` is the name of the loader that the child should use; it may fall back to another."""
        self.phases: Mapping[str, float] = {}
        self.nbytes = 0
        self.loaded_by = self.dtype = ""
        self.preloaded: list[str] = []  # the modules that were imported before the fork
        self._inner = inner
        self.task = next(iter(heads.results))
        self._heads = heads
        self._deadline = deadline
        self._turn = Lock()  # held by the thread that uses the connection to the child
        self._closed = False
        began = perf_counter()
        self._child, order = spawn()
        self._load(order, began)

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._child.pid

    @property
    def is_asked(self) -> bool:
        """Whether the child has a question that it has not answered."""
        return self._child.is_asked

    @property
    def also(self) -> dict[str, Callable[[Sequence[Text]], list[Any]]]:
        """The further tasks by name."""
        return {name: partial(self.results, name) for name in self._heads.results if name != self.task}

    def predict(self, items: Sequence[Text]) -> list[Any]:
        """One result of the main task for each item.

        Raises what the child's model raises, ModelCrashed if the child ends or hangs, ModelGone if it had ended before,
        and RuntimeError after `close`.
        """
        return self.results(self.task, items)

    def results(self, task: str, items: Sequence[Text]) -> list[Any]:
        """One result of the task for each item. Raises what `predict` raises."""
        answer = self._ask(list(items))
        numbers = np.frombuffer(base64.b64decode(answer["numbers"]), np.float32).reshape(answer["shape"])
        return self._heads.results[task](numbers)

    def check(self) -> None:
        """Raise ModelReferenceError if a weight is not a number, or if a text can have a token without an embedding."""
        self._ask(None)

    def _ask(self, question: list[Text] | None) -> dict[str, Any]:
        with self._turn:
            if self._closed:
                raise RuntimeError(CLOSED)
            if self._child.has_ended():
                raise ModelGone("The model's process has ended.")
            return self._child.ask(question, self._deadline)

    def close(self) -> None:
        """End the child, and wait until its memory is freed."""
        self._closed = True
        self._child.kill()  # ends the wait of a thread that holds the turn
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
        self.preloaded = answer["preloaded"]


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[SubprocessLoader]]:
    return [SubprocessLoader]
