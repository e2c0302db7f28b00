"""What a server's log says of why something went wrong."""

from __future__ import annotations

import re
from itertools import takewhile

TRACEBACK = "Traceback (most recent call last):"
LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL):\s*")
ENDED = re.compile(rf"{LEVEL.pattern}|-|.*{re.escape(TRACEBACK)}")
GRAVE = ("ERROR", "CRITICAL")
# What says only that something failed, or nothing of it.
EMPTY = ("Application startup failed", "Application shutdown failed", "Exception in ASGI application")
IDLE = ("INFO:", "DEBUG:")
MOST = 400  # characters


def reason_in(log: str) -> str:
    """The last exception, or error, that the log tells of; else its last line; empty if it holds nothing."""
    lines = [line.rstrip() for line in log.split("\n") if line.strip()]
    found = ""
    for number, line in enumerate(lines):
        if TRACEBACK in line:
            found = _exception(lines[number + 1 :]) or found
        elif line.startswith(GRAVE) and not any(empty in line for empty in EMPTY):
            explained = TRACEBACK in "".join(lines[number + 1 : number + 2])
            found = found if explained else LEVEL.sub("", line)
    telling = [line for line in lines if not line.startswith(IDLE)] or lines or [""]
    return (found or telling[-1].strip())[:MOST]


def _exception(lines: list[str]) -> str:
    """What a traceback ends with: what is not indented in it. The lines of an exception group begin with `|` or `+`."""
    plain = [re.sub(r"^ *[|+][-+| ]?", "", line) for line in lines]
    begin = next((n for n, line in enumerate(plain) if not line.startswith((" ", "\t", "-"))), len(plain))
    return " ".join(takewhile(lambda line: not ENDED.match(line), plain[begin : begin + 3]))
