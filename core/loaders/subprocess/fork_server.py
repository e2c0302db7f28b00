"""The fork server, and the model processes that it forks. Linux only.

The fork server has imported what one loader needs, and holds what its loads share. It never starts a thread or opens a
checkpoint; only its children do. `children.py` is the other end of both connections.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ...system.threads import spread_forwards

if TYPE_CHECKING:
    from ..text_model import TextModel

PACKET = 1 << 16  # bytes of the largest message on the control connection
PR_SET_PDEATHSIG = 1
WARM_UP = ["The first forward may import modules, which later children then share."]
SharedState = tuple[dict[Any, Any], ...]


class Order(NamedTuple):
    """What a child has to load, and how."""

    loader: str  # `onnxruntime` or `mapped`
    options: str  # the loader's, as JSON
    directory: str


class Loader(Protocol):
    """A loader whose loads share state, which the first child makes for all later ones."""

    def load(self, directory: Path) -> TextModel: ...

    def shared_state(self) -> SharedState: ...

    def adopt(self, state: SharedState) -> None: ...


def main(control: int, lifeline: int, preload: Sequence[str]) -> None:
    """Import the modules, report that, then serve requests on the control connection until it is closed."""
    gc.disable()  # full collections would add a second to the imports
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it is inherited from a server that may ignore it
    _die_with_peer(lifeline)
    server = _Server(socket.socket(fileno=control))
    try:
        greeting = server.import_modules(preload)
    except BaseException as error:
        greeting = {"error": f"{type(error).__name__}: {error}"}
    server.send(greeting)
    if "error" not in greeting:
        server.serve()


def _die_with_peer(lifeline: int) -> None:
    """Make the kernel kill this process when the socket's other end is closed, whatever runs here.

    See F_SETSIG in fcntl(2). A parent-death signal would already be sent when the thread that started it ends.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(lifeline, 1) == b"":  # it was closed before F_SETSIG took effect
            os._exit(1)
    except BlockingIOError:
        pass


class _Server:
    """The fork server's side of the control connection."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._modules: list[str] = []
        self._loaders: dict[tuple[str, str], Loader] = {}  # by name and options
        self._ended: set[int] = set()  # children that were killed, and may not have ended yet

    def serve(self) -> None:
        """Serve requests until the connection is closed."""
        while True:
            message, fds, _, _ = socket.recv_fds(self._control, PACKET, 2)
            if not message:
                os._exit(0)
            request = json.loads(message)
            try:
                if request["do"] == "spawn":
                    self._spawn(fds)
                elif request["do"] == "keep":
                    self.send(self._keep(fds[0]))
                else:
                    self._ended.add(request["pid"])  # a request to reap gets no answer
            except Exception as error:
                self.send({"error": f"{type(error).__name__}: {error}"})
                if _count_threads() > 1:
                    os._exit(1)  # forking is not safe any more
            for fd in fds:
                os.close(fd)
            self._ended = {pid for pid in self._ended if not _reap(pid)}

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message with file descriptors."""
        socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def import_modules(self, names: Sequence[str]) -> dict[str, Any]:
        """Import the modules, and return the message that reports all that are imported.

        Raises what an import raises, and RuntimeError if an import started a thread, because forking is then not safe.
        """
        for name in names:
            importlib.import_module(name)
        if (threads := _count_threads()) > 1:
            raise RuntimeError(f"{threads - 1} threads were started by importing {', '.join(names)}")
        self._modules += [name for name in names if name not in self._modules]
        gc.freeze()  # so that a child's collector does not write to the pages that it shares
        return {"preloaded": self._modules}

    def _keep(self, prepared: int) -> dict[str, Any]:
        """Adopt what a child prepared. It is read from memory, never from a disk."""
        with os.fdopen(os.dup(prepared), "rb") as stream:
            stream.seek(0)
            order, state, modules = pickle.load(stream)  # noqa: S301 - written by a child of this process
        self._loader(order).adopt(state)
        return self.import_modules(modules)

    def _loader(self, order: Order) -> Loader:
        key = order.loader, order.options
        if key not in self._loaders:
            self._loaders[key] = _loader_class(order.loader)(**json.loads(order.options))
        return self._loaders[key]

    def _spawn(self, fds: Sequence[int]) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                _die_with_server(server)
                self._control.close()
                gc.enable()
                self._run_child(*fds)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        # Opened before the child can be reaped, so that the handle cannot refer to another process.
        handle = os.pidfd_open(pid)
        self.send({"pid": pid}, [handle])
        os.close(handle)

    def _run_child(self, conversation: int, prepared: int | None = None) -> None:
        """Load the model that the first line names, then answer each line until the connection is closed."""
        with socket.socket(fileno=conversation) as connection, connection.makefile("rw", encoding="utf-8") as lines:
            if not (first := lines.readline()):
                os._exit(0)  # the client has closed the connection
            try:
                spread_forwards()
                model = self._load(Order(*json.loads(first)), prepared)
            except Exception as error:
                _write_answer(lines, _failure(error))
                return
            about = {"loaded_by": model.loaded_by, "dtype": model.dtype}
            _write_answer(lines, {"nbytes": model.nbytes, "phases": model.phases, "preloaded": self._modules, **about})
            for line in lines:
                try:
                    _write_answer(lines, _answer(model, json.loads(line)))
                except Exception as error:
                    _write_answer(lines, _failure(error))
        os._exit(0)

    def _load(self, order: Order, prepared: int | None) -> TextModel:
        """Load the model. The first child for a checkpoint also writes to the file `prepared` what later ones share."""
        modules = set(sys.modules)
        loader = self._loader(order)
        before = loader.shared_state()
        model = loader.load(Path(order.directory))
        if prepared is not None:
            model.check()
            model.numbers(WARM_UP)
            new = sorted(name for name in set(sys.modules) - modules if _is_importable(name))
            with os.fdopen(prepared, "wb") as stream:
                pickle.dump((order, _made_since(before, loader.shared_state()), new), stream)
        return model


def _loader_class(name: str) -> type[Any]:
    """The class of a loader. Imported here, because the caller decides when its imports happen."""
    if name == "onnxruntime":
        from ..onnxruntime.loader import OnnxRuntimeLoader

        return OnnxRuntimeLoader
    from ..mapped.loader import MappedLoader

    return MappedLoader


def _made_since(before: SharedState, now: SharedState) -> SharedState:
    """The entries of `now` that are not in `before`, so that a child does not pass on what it got from others."""
    return tuple(
        {key: value for key, value in new.items() if key not in old or old[key] is not value}
        for old, new in zip(before, now, strict=True)
    )


def _count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _reap(pid: int) -> bool:
    """Reap the child if it has ended, and return whether it is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the kernel has reaped it
        return True


def _die_with_server(server: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it had ended before the call
        os._exit(1)


def _is_importable(name: str) -> bool:
    """Whether `import name` would find the module. Other modules create some, or register them under a second name."""
    return getattr(getattr(sys.modules[name], "__spec__", None), "name", None) == name


def _answer(model: TextModel, question: list[Any] | None) -> dict[str, Any]:
    """The numbers of each item, as bytes in base64. If `question` is None, checks the model instead."""
    if question is None:
        model.check()
        return {}
    items = [tuple(item) if isinstance(item, list) else item for item in question]  # JSON has no tuples
    numbers = model.numbers(items)
    data = np.ascontiguousarray(numbers, np.float32).tobytes()
    return {"numbers": base64.b64encode(data).decode(), "shape": numbers.shape}


def _write_answer(lines: IO[str], answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


def _failure(error: BaseException) -> dict[str, Any]:
    kind, sentence = type(error).__name__, str(error) or type(error).__name__
    return {"error": sentence, "kind": kind, "traceback": traceback.format_exc()}
