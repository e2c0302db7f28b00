"""Starts one engine, and ends all of its processes when it, its server, or both have ended.

This file is run as a script, by its path and without site-packages, so that it starts within 20 ms. Its arguments are
the file descriptor of a socket and the command. It is the parent of the engine and, as a subreaper, of every descendant
whose own parent ends, whatever session it is in. So it can find all of them, also after `kill -9` of the server, which
it notices because the socket is closed.

It reads from the socket: `T`, send SIGTERM to the engine's process group; the end of the stream, kill all processes.
It writes `pid <number>` or `failed <errno>`, then `ended <status>` as soon as the command itself has ended, and closes
the socket when no process is left.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HEARD = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)  # they are for the server, which ends its engines in order
INHERITED = (*HEARD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)  # those that a child must find as usual
LINUX = sys.platform == "linux"


def main(control: int, command: Sequence[str]) -> None:
    """Start the command, and return when no process of it is left."""
    wakeup, waker = os.pipe()
    for fd in (wakeup, waker, control):
        os.set_inheritable(fd, False)
    os.set_blocking(waker, False)
    for number in (*HEARD, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        with suppress(OSError):  # the thread that started this process may be bound to one core
            os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
    child = start(command)
    report(control, f"pid {child}")
    is_running = True
    while is_running:
        ready, _, _ = select.select([control, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 512)
            is_running = reap(control, child)
        if control in ready:
            order = os.read(control, 1)
            if order == b"":
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGTERM)
    kill_all(control, child)


def start(command: Sequence[str]) -> int:
    """Start the command in a session of its own, and return its process id. Ends this process if it cannot."""
    failed, failure = os.pipe()  # closed by a successful exec
    guardian = os.getpid()
    if (child := os.fork()) == 0:
        try:
            os.setsid()
            for number in INHERITED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            if LINUX:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guardian:
                os.execvp(command[0], list(command))  # noqa: S606 - a shell is what it must not be
        except OSError as error:
            os.write(failure, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(failure)
    if failed_with := os.read(failed, 16):
        report(control_fd(), f"failed {failed_with.decode()}")
        os._exit(1)
    os.close(failed)
    return child


def control_fd() -> int:
    return int(sys.argv[1])


def reap(control: int, child: int) -> bool:
    """Reap what has ended, and return whether the command itself still runs."""
    is_running = True
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                report(control, f"ended {os.waitstatus_to_exitcode(status)}")
                is_running = False
    return is_running


def kill_all(control: int, child: int) -> None:
    """Kill the children of this process until it has none: those of a killed child become its own."""
    with suppress(ChildProcessError):
        while True:
            if not (pids := children()) and not LINUX:
                pids = [-child]  # the process group is all that can be found here
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            pid, status = os.waitpid(-1, 0)
            if pid == child:
                report(control, f"ended {os.waitstatus_to_exitcode(status)}")


def children() -> list[int]:
    """The process ids of this process's children."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes 10 ms
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def report(control: int, line: str) -> None:
    with suppress(OSError):  # the server has ended
        os.write(control, f"{line}\n".encode())


if __name__ == "__main__":
    main(control_fd(), sys.argv[2:])
