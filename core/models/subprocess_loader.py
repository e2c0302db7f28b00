"""A model in a process of its own, whose memory goes back whole when it ends."""

from __future__ import annotations

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

from ..contracts import Prediction, Reason
from . import checkpoint
from .checkpoint import identity
from .heads import named
from .mapped_loader import MappedLoader
from .precision import BYTES, Dtype, computable

if TYPE_CHECKING:
    from .children import Child, ForkServer


class SubprocessLoader:
    """Loads as `mapped` does, in a child process that is forked when the imports are done.

    Closing a model ends its process. One that crashes, or gives no answer within `deadline` seconds, fails
    the requests that it was answering, and no others.
    """

    name = "subprocess"

    def __init__(
        self,
        *,
        dtype: Dtype = "float32",
        linear: Literal["auto", "stock"] = "auto",
        deadline: Annotated[float, Field(gt=0, le=3600)] = 120.0,
    ) -> None:
        """Raises ValueError on a system other than Linux."""
        if sys.platform != "linux":
            raise ValueError("the loader 'subprocess' needs Linux; use 'mapped'")
        from . import children

        self._children = children
        self._dtype = computable(dtype)
        self._options = json.dumps({"dtype": self._dtype, "linear": linear})
        self._deadline = deadline
        children.fork_server()  # it imports while the rest of the start-up goes on

    def size(self, directory: Path) -> int:
        return checkpoint.size(directory, float_bytes=BYTES[self._dtype])

    def prepare(self, directory: Path) -> None:
        """Have a child make what all later ones begin with: the architecture's template and the tokenizer."""
        self._prepared(directory)

    def load(self, directory: Path) -> SubprocessModel:
        """Raises ModelReferenceError for what is no checkpoint, RuntimeError for what fails in the child, ModelCrashed
        when it ends or hangs. Only the child reads files: where a disk hangs, it can be killed.
        """
        return SubprocessModel(lambda: self._spawn(directory), self._order(directory), self._deadline)

    def _spawn(self, directory: Path) -> Child:
        try:
            return self._prepared(directory).spawn()
        except self._children.ForkServerGone:  # it was not known to be gone
            return self._prepared(directory).spawn()

    def _order(self, directory: Path) -> dict[str, str]:
        return {"options": self._options, "directory": str(directory)}

    def _prepared(self, directory: Path) -> ForkServer:
        server = self._children.fork_server()
        server.once((self._options, identity(directory)), lambda: self._prepare(server, directory))
        return server

    def _prepare(self, server: ForkServer, directory: Path) -> None:
        memory = os.memfd_create("prepared")
        try:
            child = server.spawn(prepared=memory)
            try:
                child.ask(self._order(directory), self._children.START_SECONDS)
            finally:
                child.end()
            server.keep(memory)
        finally:
            os.close(memory)


class SubprocessModel:
    """`core.contracts.Model` in a child process; a crashed one is replaced at the next `predict`."""

    own_process = True

    def __init__(self, spawn: Callable[[], Child], order: Mapping[str, str], deadline: float) -> None:
        self.phases: Mapping[str, float] = {}
        self.nbytes = 0
        self.loaded_by = self.dtype = ""
        self.preloaded: list[str] = []  # modules that the child has found imported
        self.reloading: Callable[[Callable[[], None]], None] = lambda load: load()
        self._spawn = spawn
        self._order = order
        self._labels: Sequence[str] = ()
        self._deadline = deadline
        self._turn = Lock()  # held by the one thread that talks to the child
        self._closed = False
        self._child: Child | None = None
        self._load()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises ModelCrashed, what the child's model raises, and RuntimeError after `close`."""
        return named(self._labels, np.array(self._ask(list(texts))["scores"]))

    def check(self) -> None:
        """Raise ModelReferenceError where a text can have a token for which there is no embedding."""
        self._ask(None)

    def _ask(self, question: list[str] | None) -> dict[str, Any]:
        with self._turn:
            if self._child is None or self._child.has_ended():
                self.reloading(self._load)
            assert self._child is not None
            return self._child.ask(question, self._deadline)

    def close(self, reason: Reason) -> None:
        self._closed = True
        if (child := self._child) is not None:
            child.kill()  # whoever talks to it is done at once
        with self._turn:
            self._end_child()

    def _load(self) -> None:
        began = perf_counter()
        self._end_child()
        self._child = self._spawn()
        if self._closed:  # `close` may have looked for the child before it was there
            self._end_child()
            raise RuntimeError("this model is closed; a strategy must not lend it out any more")
        try:
            answer = self._child.ask(self._order, self._deadline)
        except BaseException:
            self._end_child()
            raise
        phases: dict[str, Any] = answer["phases"]
        self.phases = {"fork": perf_counter() - began - sum(phases.values()), **phases}
        self.nbytes = answer["nbytes"]
        fell_back = answer["loaded_by"] != MappedLoader.name
        self.loaded_by = answer["loaded_by"] if fell_back else SubprocessLoader.name
        self.dtype = answer["dtype"]
        self._labels = answer["labels"]
        self.preloaded = answer["preloaded"]

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[SubprocessLoader]]:
    return [SubprocessLoader]
