"""A server process's end of the conversations with its fork servers and with their children. Linux only."""

from __future__ import annotations

import atexit
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ...errors import (
    ModelCrashed,
    ModelReferenceError,
    NoFiniteScore,
    NoTokens,
    UnknownToken,
)
from ...names import PACKAGE
from .fork_server import PACKET

START_SECONDS = 120.0  # for the imports, from the slowest disk
SPAWN_SECONDS = 10.0  # for a fork
END_SECONDS = 1.0  # between SIGKILL and the end of a process, unless the kernel itself hangs
FAILURES = {kind.__name__: kind for kind in (ModelReferenceError, NoFiniteScore, NoTokens, UnknownToken)}
LOADERS = f"{PACKAGE}.loaders"
PRELOAD = {  # by the loader that children use
    "onnxruntime": tuple(f"{LOADERS}.onnxruntime.{name}" for name in ("loader", "network", "session", "tokens")),
    "mapped": ("torch", f"{LOADERS}.stock", "transformers.modeling_utils", f"{LOADERS}.mapped.loader"),
}
BOOT = f"import json, sys; path, *rest = json.loads(sys.argv[1]); sys.path[:] = path; from {__package__}.fork_server \
import main; main(*rest)"


class ForkServerGone(ModelCrashed):
    """The process that children are forked from has ended, or hung; `fork_server` starts another one."""


class Child:
    """A process with one model, which is asked line by line. For one thread at a time, except `kill`."""

    def __init__(self, server: ForkServer, pid: int, handle: int, connection: socket.socket) -> None:
        self.pid = pid
        self._server = server
        self._lock = Lock()  # protects the handle, whose number another file may get once it is closed
        self._handle: int | None = handle
        self._connection = connection
        self._lines = connection.makefile("rb")

    def ask(self, question: Any, seconds: float) -> dict[str, Any]:
        """Raises ModelCrashed when the process ends before it answers, or does not answer in time; it is gone then.

        What failed inside it is raised as one of `FAILURES` or as RuntimeError, with its traceback as a note.
        """
        self._connection.settimeout(seconds)
        try:
            self._connection.sendall(json.dumps(question).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError:
            self.end()
            raise ModelCrashed(f"The model's process gave no answer within {seconds:g} s and was ended.") from None
        except OSError:
            line = b""
        except BaseException:  # interrupted: the answer to come would be taken for that to the next question
            self.end()
            raise
        if not line.endswith(b"\n"):
            raise ModelCrashed(f"The model's process {self.end()} before it had answered.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            failure = FAILURES.get(answer["kind"], RuntimeError)(answer["error"])
            failure.add_note(answer["traceback"])
            raise failure
        return answer

    def has_ended(self) -> bool:
        return self._handle is None or _ends(self._handle, 0)

    def kill(self) -> None:
        """From any thread; whoever waits for an answer gets ModelCrashed."""
        with self._lock, suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def end(self) -> str:
        """Kill the process, unless it has ended, and return when its memory is back: what became of it."""
        self.kill()
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is None:
            return "has ended"
        ended = _ends(handle, END_SECONDS)
        os.close(handle)
        self._lines.close()
        self._connection.close()
        outcome = _became_of(self.pid) if ended else "hangs in the kernel"
        self._server.reap(self.pid)
        return outcome


class ForkServer:
    """A process that has done the imports of one loader, for all models of this process; its children end with it.

    It begins to import at once, and ends with this process, however that ends.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline, lifeline = socket.socketpair()
        arguments = [sys.path, control.fileno(), lifeline.fileno(), preload]
        with control, lifeline:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(arguments)],
                pass_fds=(control.fileno(), lifeline.fileno()),
                # NumPy's threads would be started by its import, and a process with threads cannot fork safely.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends this one itself
            )
        self._gone = False  # whether it was found dead, or hanging
        self._lock = Lock()  # protects the control conversation and what stands below
        self._preloaded: list[str] | None = None  # until it has said so
        self._making: defaultdict[object, Lock] = defaultdict(Lock)
        self._made: set[object] = set()
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return not self._gone and self._process.poll() is None

    def preloaded(self) -> list[str]:
        """The modules that children find imported. Raises RuntimeError when one cannot be imported."""
        with self._lock:
            if self._preloaded is None:
                self._preloaded = self._listen(START_SECONDS)[0]["preloaded"]
            return self._preloaded

    def spawn(self, *, prepared: int | None = None) -> Child:
        """A new child, which waits for its order; what it prepares goes into the file `prepared`."""
        self.preloaded()
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), *([] if prepared is None else [prepared])]
        try:
            with theirs:
                answer, handles = self._call({"do": "spawn"}, fds, SPAWN_SECONDS)
            if not handles:  # this process may open no more files; the child ends when nobody talks to it
                self.reap(answer["pid"])
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except BaseException:
            ours.close()
            raise
        return Child(self, answer["pid"], handles[0], ours)

    def keep(self, prepared: int) -> None:
        """Let all later children have what one has prepared. Raises RuntimeError when that cannot be imported."""
        preloaded = self._call({"do": "keep"}, [prepared], START_SECONDS)[0]["preloaded"]
        with self._lock:
            self._preloaded = preloaded

    def reap(self, pid: int) -> None:
        """Have the entry of a child that is no more removed; waits for nothing, and a packet needs no lock."""
        with suppress(OSError):
            self._control.send(json.dumps({"do": "reap", "pid": pid}).encode(), socket.MSG_DONTWAIT)

    def once(self, key: object, make: Callable[[], None]) -> None:
        """Call `make` unless it has been done for `key`; others wait for it, whoever finds it failed tries again."""
        with self._lock:
            making = self._making[key]
        with making:
            if key not in self._made:
                make()
                self._made.add(key)

    def close(self) -> None:
        """End the process, and with it all its children."""
        atexit.unregister(self.close)
        self._process.kill()
        self._process.wait()
        self._control.close()
        self._lifeline.close()

    def _call(self, request: dict[str, Any], fds: Sequence[int], seconds: float) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            try:
                self._control.settimeout(seconds)
                socket.send_fds(self._control, [json.dumps(request).encode()], fds)
            except OSError as error:
                raise self._crashed(error) from error
            return self._listen(seconds)

    def _listen(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        """What the process says next, and the file descriptors that come with it."""
        try:
            self._control.settimeout(seconds)
            message, fds, _, _ = socket.recv_fds(self._control, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._crashed(error) from error
        except BaseException as error:  # interrupted: the answer to come would be taken for the next one
            self._crashed(error)
            raise
        if not message:
            raise self._crashed("it has ended")
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            raise RuntimeError(f"the process that loads models cannot do it: {answer['error']}")
        return answer, fds

    def _crashed(self, why: object) -> ForkServerGone:
        self._gone = True
        self._process.kill()  # if it only hangs
        return ForkServerGone(f"The process that loads models is gone ({why}).")


def _became_of(pid: int) -> str:
    """How a process has ended that its parent has not reaped; from /proc, which answers at once (proc(5))."""
    try:
        status = int(Path(f"/proc/{pid}/stat").read_text().rsplit(maxsplit=1)[1])
    except OSError:
        return "has ended"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    hint = ", because its weights vanished or shrank," if -code == signal.SIGBUS else ""
    return f"was ended by {signal.Signals(-code).name}{hint}"


def _ends(handle: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends within that time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1e3))


_starting = Lock()
_servers: dict[str, ForkServer] = {}


def fork_server(loader: str) -> ForkServer:
    """This process's one for that loader, begun when it is first asked for, and again when it has ended.

    Each loader has its own: a child shares all that is imported, and what it does not need costs it memory and time.
    """
    with _starting:
        server = _servers.get(loader)
        if server is None or not server.is_alive():
            if server is not None:
                server.close()
            server = _servers[loader] = ForkServer(PRELOAD[loader])
        return server
