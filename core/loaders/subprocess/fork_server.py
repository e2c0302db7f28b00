"""The process that children are forked from, and the children. Linux only.

It has done the imports of one loader, holds what that one's loads have in common, and never starts a thread or
opens a checkpoint: a child does that. `children.py` is the other end of both conversations.
"""

from __future__ import annotations

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

from ...system.threads import spread_forwards

if TYPE_CHECKING:
    from ..classifier import Classifier

PACKET = 1 << 16  # bytes; no message of the control conversation is larger
PR_SET_PDEATHSIG = 1
WORDS = ["What the forward imports when it first runs is imported, too."]
Common = tuple[dict[Any, Any], ...]


class Order(NamedTuple):
    """What a child is to load, and how."""

    loader: str  # a name that `_loader_class` knows
    options: str  # the loader's, as JSON
    directory: str


class Loader(Protocol):
    """A loader whose loads have something in common, which a child makes for all later ones."""

    def load(self, directory: Path) -> Classifier: ...

    def common(self) -> Common: ...

    def adopt(self, common: Common) -> None: ...


def main(control: int, lifeline: int, preload: Sequence[str]) -> None:
    """Import, say so, then do what the control conversation asks for, until its other end is gone."""
    gc.disable()  # its full runs would cost a second of the imports
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a server that ignores it has handed that down
    _die_with_peer(lifeline)
    server = _Server(socket.socket(fileno=control))
    try:
        greeting = server.import_modules(preload)
    except BaseException as error:
        greeting = {"error": f"{type(error).__name__}: {error}"}
    server.say(greeting)
    if "error" not in greeting:
        server.serve()


def _die_with_peer(lifeline: int) -> None:
    """Let the kernel kill this process when the socket's other end is closed, whatever is running here.

    (fcntl(2), F_SETSIG; a death signal would come when the thread ends that started this process.)
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(lifeline, 1) == b"":  # it was closed before the kernel watched
            os._exit(1)
    except BlockingIOError:
        pass


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._modules: list[str] = []
        self._loaders: dict[tuple[str, str], Loader] = {}  # by their names and options
        self._ended: set[int] = set()  # children that were killed, and may still be dying

    def serve(self) -> None:
        while True:
            message, fds, _, _ = socket.recv_fds(self._control, PACKET, 2)
            if not message:
                os._exit(0)
            request = json.loads(message)
            try:
                if request["do"] == "spawn":
                    self._spawn(fds)
                elif request["do"] == "keep":
                    self.say(self._keep(fds[0]))
                else:
                    self._ended.add(request["pid"])  # nobody waits for an answer
            except Exception as error:
                self.say({"error": f"{type(error).__name__}: {error}"})
                if _threads() > 1:
                    os._exit(1)  # no fork is safe any more
            for fd in fds:
                os.close(fd)
            self._ended = {pid for pid in self._ended if not _reaped(pid)}

    def say(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def import_modules(self, names: Sequence[str]) -> dict[str, Any]:
        """Raises what an import raises, and RuntimeError when a thread was started: no fork is safe then."""
        for name in names:
            importlib.import_module(name)
        if (threads := _threads()) > 1:
            raise RuntimeError(f"{threads - 1} threads were started by importing {', '.join(names)}")
        self._modules += [name for name in names if name not in self._modules]
        gc.freeze()  # a child's collector must not write to the pages that it shares
        return {"preloaded": self._modules}

    def _keep(self, prepared: int) -> dict[str, Any]:
        """Adopt what a child has prepared; it comes through memory, never from a disk."""
        with os.fdopen(os.dup(prepared), "rb") as stream:
            stream.seek(0)
            order, common, modules = pickle.load(stream)  # noqa: S301 - a child of ours has written it
        self._loader(order).adopt(common)
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
        # Sent before the child can be reaped, so that the handle can mean no other process.
        handle = os.pidfd_open(pid)
        self.say({"pid": pid}, [handle])
        os.close(handle)

    def _run_child(self, conversation: int, prepared: int | None = None) -> None:
        """Load what the first line says, then answer the others, until the conversation ends."""
        with socket.socket(fileno=conversation) as connection, connection.makefile("rw", encoding="utf-8") as lines:
            if not (first := lines.readline()):
                os._exit(0)  # whoever wanted this child has gone
            try:
                spread_forwards()
                model = self._load(Order(*json.loads(first)), prepared)
            except Exception as error:
                _answer(lines, _failure(error))
                return
            about = {"loaded_by": model.loaded_by, "dtype": model.dtype, "labels": model.labels}
            _answer(lines, {"nbytes": model.nbytes, "phases": model.phases, "preloaded": self._modules, **about})
            for line in lines:
                try:
                    _answer(lines, _answered(model, json.loads(line)))
                except Exception as error:
                    _answer(lines, _failure(error))
        os._exit(0)

    def _load(self, order: Order, prepared: int | None) -> Classifier:
        """The model; where this is the first child for it, the file `prepared` has what later ones need not make."""
        modules = set(sys.modules)
        loader = self._loader(order)
        before = loader.common()
        model = loader.load(Path(order.directory))
        if prepared is not None:
            model.check()
            model.predict(WORDS)
            new = sorted(name for name in set(sys.modules) - modules if _importable(name))
            with os.fdopen(prepared, "wb") as stream:
                pickle.dump((order, _made_since(before, loader.common()), new), stream)
        return model


def _loader_class(name: str) -> type[Any]:
    """The class that loads in a child; imported here, because its imports are what the server wants to share."""
    if name == "onnxruntime":
        from ..onnxruntime.loader import OnnxRuntimeLoader

        return OnnxRuntimeLoader
    from ..mapped.loader import MappedLoader

    return MappedLoader


def _made_since(before: Common, now: Common) -> Common:
    """What of `now` was not there before, so that a child need not pass on what it has from others."""
    return tuple(
        {key: value for key, value in new.items() if key not in old or old[key] is not value}
        for old, new in zip(before, now, strict=True)
    )


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the kernel has done it
        return True


def _die_with_server(server: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it had died before
        os._exit(1)


def _importable(name: str) -> bool:
    """Whether an import of that name finds the module: some are made by others, or known under a second name."""
    return getattr(getattr(sys.modules[name], "__spec__", None), "name", None) == name


def _answered(model: Classifier, question: list[str] | None) -> dict[str, Any]:
    """The scores of each text, in the order of the labels; to no texts, whether the model can answer all that come."""
    if question is None:
        model.check()
        return {}
    return {"scores": [[score for _, score in prediction.scores] for prediction in model.predict(question)]}


def _answer(lines: IO[str], answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


def _failure(error: BaseException) -> dict[str, Any]:
    kind, sentence = type(error).__name__, str(error) or type(error).__name__
    return {"error": sentence, "kind": kind, "traceback": traceback.format_exc()}
