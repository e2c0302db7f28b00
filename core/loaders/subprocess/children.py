"""Client of the fork servers, and of the model processes that they fork. Linux only."""

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

from ...errors import ModelCrashed, ModelReferenceError, NoFiniteScore, NoTokens, UnknownToken
from ...names import PACKAGE
from .fork_server import PACKET

START_SECONDS = 120.0  # for the imports, on the slowest disk
SPAWN_SECONDS = 10.0  # for a fork
END_SECONDS = 1.0  # for a process to end after SIGKILL; longer only if the kernel itself hangs
FAILURES = {kind.__name__: kind for kind in (ModelReferenceError, NoFiniteScore, NoTokens, UnknownToken)}
LOADERS = f"{PACKAGE}.loaders"
PRELOAD = {  # the modules that a fork server imports, by the loader that its children use
    "onnxruntime": tuple(f"{LOADERS}.onnxruntime.{name}" for name in ("loader", "network", "session", "tokens")),
    "mapped": ("torch", f"{LOADERS}.stock", "transformers.modeling_utils", f"{LOADERS}.mapped.loader"),
}
BOOT = f"import json, sys; path, *rest = json.loads(sys.argv[1]); sys.path[:] = path; from {__package__}.fork_server \
import main; main(*rest)"


class ForkServerCrashed(ModelCrashed):
    """A fork server has ended, or hung and was killed. `fork_server` starts another one."""


class Child:
    """A process with one model, which answers each line with a line. Only `kill` may be called from several threads."""

    def __init__(self, server: ForkServer, pid: int, handle: int, connection: socket.socket) -> None:
        self.pid = pid
        self._server = server
        self._lock = Lock()  # protects the handle, because another file may get its number once it is closed
        self._handle: int | None = handle
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.is_asked = False  # whether it has a question that it has not answered

    def ask(self, question: Any, seconds: float) -> dict[str, Any]:
        """Send a question, and return the answer.

        Raises ModelCrashed if the process ends before it answers, or does not answer in time, after which it is killed.
        A failure inside the process is raised as one of `FAILURES`, or as RuntimeError, with its traceback as a note.
        """
        self._connection.settimeout(seconds)
        try:
            self._connection.sendall(json.dumps(question).encode() + b"\n")
            self.is_asked = True
            line = self._lines.readline()
        except TimeoutError:
            self.end()
            raise ModelCrashed(f"The model's process gave no answer within {seconds:g} s and was killed.") from None
        except OSError:
            line = b""
        except BaseException:  # interrupted: the pending answer would be taken for that to the next question
            self.end()
            raise
        finally:
            self.is_asked = False
        if not line.endswith(b"\n"):
            raise ModelCrashed(f"The model's process {self.end()} before it answered.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            failure = FAILURES.get(answer["kind"], RuntimeError)(answer["error"])
            failure.add_note(answer["traceback"])
            raise failure
        return answer

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._handle is None or _has_ended_within(self._handle, 0)

    def kill(self) -> None:
        """Send SIGKILL. A thread that waits for an answer gets ModelCrashed. May be called from any thread."""
        with self._lock, suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def end(self) -> str:
        """Kill the process, wait until its memory is freed, and return how it ended, as the end of a sentence."""
        self.kill()
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is None:
            return "has ended"
        ended = _has_ended_within(handle, END_SECONDS)
        os.close(handle)
        self._lines.close()
        self._connection.close()
        outcome = _describe_end(self.pid) if ended else "hangs in the kernel"
        self._server.reap(self.pid)
        return outcome


class ForkServer:
    """A process that imports what one loader needs, and forks the processes of this process's models.

    It begins to import at once. It ends when this process ends, however that happens, and its children end with it.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline, lifeline = socket.socketpair()
        arguments = [sys.path, control.fileno(), lifeline.fileno(), preload]
        with control, lifeline:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(arguments)],
                pass_fds=(control.fileno(), lifeline.fileno()),
                # Importing NumPy would start threads, and a process with threads cannot fork safely.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends the fork server itself
            )
        self._has_crashed = False  # or was found hanging
        self._lock = Lock()  # protects the control connection and the attributes below
        self._preloaded: list[str] | None = None  # None until it has reported them
        self._making: defaultdict[object, Lock] = defaultdict(Lock)
        self._made: set[object] = set()
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process runs, and has not been found hanging."""
        return not self._has_crashed and self._process.poll() is None

    def preloaded(self) -> list[str]:
        """The modules that are imported before a fork. Waits for the imports, and raises RuntimeError if one fails."""
        with self._lock:
            if self._preloaded is None:
                self._preloaded = self._receive(START_SECONDS)[0]["preloaded"]
            return self._preloaded

    def spawn(self, *, prepared: int | None = None) -> Child:
        """Fork a child, which waits for its order. It writes what later children can share to the file `prepared`."""
        self.preloaded()
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), *([] if prepared is None else [prepared])]
        try:
            with theirs:
                answer, handles = self._call({"do": "spawn"}, fds, SPAWN_SECONDS)
            if not handles:  # this process cannot open more files; the child ends when its connection is closed
                self.reap(answer["pid"])
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except BaseException:
            ours.close()
            raise
        return Child(self, answer["pid"], handles[0], ours)

    def keep(self, prepared: int) -> None:
        """Give what a child prepared to all later children. Raises RuntimeError if it cannot be imported."""
        preloaded = self._call({"do": "keep"}, [prepared], START_SECONDS)[0]["preloaded"]
        with self._lock:
            self._preloaded = preloaded

    def reap(self, pid: int) -> None:
        """Ask the fork server to reap an ended child. Does not wait; sending one packet needs no lock."""
        with suppress(OSError):
            self._control.send(json.dumps({"do": "reap", "pid": pid}).encode(), socket.MSG_DONTWAIT)

    def once(self, key: object, make: Callable[[], None]) -> None:
        """Call `make` once for each `key`. Other callers wait for it, and call it again if it failed."""
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
                raise self._mark_crashed(error) from error
            return self._receive(seconds)

    def _receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        """The next message of the process, and the file descriptors that come with it."""
        try:
            self._control.settimeout(seconds)
            message, fds, _, _ = socket.recv_fds(self._control, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._mark_crashed(error) from error
        except BaseException as error:  # interrupted: the pending answer would be taken for the next one
            self._mark_crashed(error)
            raise
        if not message:
            raise self._mark_crashed("it has ended")
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            raise RuntimeError(f"the process that loads models failed: {answer['error']}")
        return answer, fds

    def _mark_crashed(self, why: object) -> ForkServerCrashed:
        self._has_crashed = True
        self._process.kill()  # in case it hangs
        return ForkServerCrashed(f"The process that loads models has crashed ({why}).")


def _describe_end(pid: int) -> str:
    """How a process ended that its parent has not reaped, as the end of a sentence. Read from /proc (proc(5))."""
    try:
        status = int(Path(f"/proc/{pid}/stat").read_text().rsplit(maxsplit=1)[1])
    except OSError:
        return "has ended"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    hint = ", because its weights vanished or shrank," if -code == signal.SIGBUS else ""
    return f"was ended by {signal.Signals(-code).name}{hint}"


def _has_ended_within(handle: int, seconds: float) -> bool:
    """Wait for the process of a pidfd for up to `seconds`, and return whether it has ended."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1e3))


_starting = Lock()
_servers: dict[str, ForkServer] = {}


def fork_server(loader: str) -> ForkServer:
    """This process's fork server for the loader. It is started at the first call, and again after it has ended.

    Each loader has its own, because imports that a child does not need would cost it memory and time.
    """
    with _starting:
        server = _servers.get(loader)
        if server is None or not server.is_alive():
            if server is not None:
                server.close()
            server = _servers[loader] = ForkServer(PRELOAD[loader])
        return server
