"""The client of a guardian: starts a command, all of whose processes end with this process."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic

from ...errors import EngineFailed

log = logging.getLogger("residency")
GUARDIAN = str(Path(__file__).with_name("guardian.py"))
START_SECONDS = 30.0  # for the guardian to start the command, on the busiest machine
MAX_LINE = 2000  # characters of its output that are logged as one line
LINES_PER_SECOND = 200  # that are logged; the others are counted
LAST_LINES = 5  # that are kept, to say why it has ended
READ = 1 << 16


class Guarded:
    """A command that a guardian has started. Its output is logged, each line with the `name`.

    `ended` is set when the command itself has ended, and `gone` when none of its processes is left.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it. Raises EngineFailed if that fails, and OSError if this process can start no more."""
        self.name = name
        self.ended = Event()
        self.gone = Event()
        self.status: int | None = None  # of the command, once it has ended
        self.lines: deque[str] = deque(maxlen=LAST_LINES)  # the last ones of its output
        self._lock = Lock()  # protects the connection, because another file may get its number once it is closed
        self._started = Event()
        self._failure = 0  # errno of a failed start
        self._logged = _Rate(LINES_PER_SECOND)
        self._control, control = socket.socketpair()
        output, theirs = os.pipe()
        try:
            with control:
                arguments = [sys.executable, "-I", "-S", GUARDIAN, str(control.fileno()), *command]
                self._process = subprocess.Popen(
                    arguments,
                    env=dict(environment),
                    pass_fds=(control.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    start_new_session=True,  # Ctrl-C is for the server, which ends its engines in order
                )
        except BaseException:
            os.close(output)
            self._control.close()
            raise
        finally:
            os.close(theirs)
        Thread(target=self._watch, args=[output], name=f"engine-{name}", daemon=True).start()
        self._wait_for_start(command[0])

    def _wait_for_start(self, program: str) -> None:
        if not self._started.wait(START_SECONDS):
            self.kill()
            raise EngineFailed(f"its command could not be started within {START_SECONDS:g} s.")
        if self._failure:
            self.gone.wait(START_SECONDS)
            why = f"could not be started: {os.strerror(self._failure)}."
            raise EngineFailed(f"its command '{program}' {why}", f"its command {why}")

    @property
    def pid(self) -> int:
        """The process id of the guardian, whose descendants are the processes of the command."""
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM to the process group of the command."""
        with self._lock, suppress(OSError):
            self._control.send(b"T", socket.MSG_DONTWAIT)

    def kill(self) -> None:
        """Kill all of its processes. Does not wait until they are gone."""
        with self._lock, suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    def last_words(self) -> str:
        """The last line of its output that is not empty, as the end of a sentence; "" without one. Not for callers."""
        line = next((line for line in reversed(self.lines) if line.strip()), "")
        return f"; its last line was: {line[:300]}" if line else ""

    def _watch(self, output: int) -> None:
        """Read what guardian and command write until both have ended. Never let the command wait."""
        os.set_blocking(output, False)
        reports, text = _Lines(), _Lines()
        with selectors.DefaultSelector() as selector, os.fdopen(output, "rb", buffering=0) as stream:
            selector.register(self._control, selectors.EVENT_READ, self._control.fileno())
            selector.register(stream, selectors.EVENT_READ, output)
            is_guarded = True
            while is_guarded:
                for key, _ in selector.select():
                    if key.data == output:
                        if not self._log_some(output, text):
                            selector.unregister(stream)
                    elif data := _read(key.data):
                        for line in reports.split(data):
                            self._note(line.decode())
                    else:
                        is_guarded = False
            while self._log_some(output, text):  # what it wrote last
                pass
        self._finish(text)

    def _log_some(self, output: int, text: _Lines) -> bool:
        """Log what the command has written. Returns False if there is nothing, now or for ever."""
        if not (data := _read(output)):
            return False
        self._log(text.split(data))
        return True

    def _note(self, line: str) -> None:
        word, _, number = line.partition(" ")
        if word == "ended":
            self.status = int(number)
            self.ended.set()
        else:
            self._failure = int(number) if word == "failed" else 0
            self._started.set()

    def _log(self, lines: Sequence[bytes]) -> None:
        """Log as many lines as the rate allows, and remember the last ones. The others cost next to nothing."""
        left_out = self._logged.left_out
        if (allowed := self._logged.allow(len(lines))) and left_out:
            log.info("%s: … %d lines left out", self.name, left_out)
            self._logged.left_out -= left_out
        for line in lines[:allowed]:
            log.info("%s: %s", self.name, _shown(line))
        self.lines.extend(map(_shown, lines[-LAST_LINES:]))

    def _finish(self, text: _Lines) -> None:
        if text.rest:
            self._log([text.take_rest()])
        if self._logged.left_out:
            log.info("%s: … %d lines left out", self.name, self._logged.left_out)
        with self._lock:
            self._control.close()
        self._process.wait()
        self.ended.set()
        self.gone.set()
        self._started.set()  # the guardian itself may have been killed before it reported


class _Lines:
    """Splits bytes that come in parts into lines, and lines that are too long into several."""

    def __init__(self) -> None:
        self.rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MAX_LINE:
            lines, self.rest = [*lines, self.rest], b""
        return [line[at : at + MAX_LINE] for line in lines for at in range(0, max(1, len(line)), MAX_LINE)]

    def take_rest(self) -> bytes:
        """The last line, which has no end."""
        rest, self.rest = self.rest, b""
        return rest


class _Rate:
    """Allows a limited number of events each second, and counts the others."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._left = 0
        self.left_out = 0  # events that were not allowed

    def allow(self, count: int) -> int:
        """How many of these events are allowed."""
        if (second := int(monotonic())) != self._second:
            self._second, self._left = second, self._per_second
        allowed = min(count, self._left)
        self._left -= allowed
        self.left_out += count - allowed
        return allowed


def _shown(line: bytes) -> str:
    """The line without what could move a terminal's cursor."""
    text = line.decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def _read(fd: int) -> bytes:
    """Some bytes; none at the end of the stream, or if there are none now."""
    try:
        return os.read(fd, READ)
    except OSError:
        return b""
