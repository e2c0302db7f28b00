"""Finding the reason of a failure in a server's log."""

from __future__ import annotations

import re
from itertools import takewhile

# The part of a cluster that wrote a line: `n1 | `, or Ray's `(ServeReplica:default:Nodes pid=7) `.
PART = re.compile(r"^(?:\w+ \| |\([^()\n]* ?pid=\d+\) )+", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last):"
LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL):\s*")
ENDED = re.compile(rf"{LEVEL.pattern}|-|.*{re.escape(TRACEBACK)}")
GRAVE = ("ERROR", "CRITICAL")
# Lines that give no reason.
EMPTY = ("Application startup failed", "Application shutdown failed", "Exception in ASGI application")
IDLE = ("INFO:", "DEBUG:")
MOST = 400  # characters


def find_reason(log: str) -> str:
    """The last exception or error in the log, or else its last line; "" if it is empty."""
    lines = [line.rstrip() for line in PART.sub("", log).split("\n") if line.strip()]
    reason = ""
    for number, line in enumerate(lines):
        if TRACEBACK in line:
            reason = _exception(lines[number + 1 :]) or reason
        elif line.startswith(GRAVE) and not any(empty in line for empty in EMPTY):
            has_traceback = TRACEBACK in "".join(lines[number + 1 : number + 2])
            reason = reason if has_traceback else LEVEL.sub("", line)
    candidates = [line for line in lines if not line.startswith(IDLE)] or lines or [""]
    return (reason or candidates[-1].strip())[:MOST]


def _exception(lines: list[str]) -> str:
    """The exception at the end of a traceback, whose lines are not indented. Those of a group begin with `|` or `+`."""
    plain = [re.sub(r"^ *[|+][-+| ]?", "", line) for line in lines]
    begin = next((n for n, line in enumerate(plain) if not line.startswith((" ", "\t", "-"))), len(plain))
    return " ".join(takewhile(lambda line: not ENDED.match(line), plain[begin : begin + 3]))
