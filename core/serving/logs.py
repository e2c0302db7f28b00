"""The log: which request a line is about, as text or as JSON."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str] = ContextVar("request_id", default="")
log = logging.getLogger("residency")
access = logging.getLogger("residency.access")


def set_up(style: Literal["text", "json"]) -> None:
    """Let loads and failures appear in uvicorn's log, at its level, where uvicorn has set one up.

    As JSON, each line is an object, and each request a line of ours with what it cost, in place of uvicorn's.
    """
    server, server_access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    if server.handlers and not log.handlers:
        log.handlers, log.propagate = server.handlers, False
        log.setLevel(logging.getLogger("uvicorn.error").getEffectiveLevel())  # which has what --log-level says
    access.disabled = style == "text" or not server_access.handlers  # as after `--no-access-log`
    if style == "json":
        server_access.handlers, server_access.propagate = [], False
        for handler in server.handlers or logging.getLogger().handlers:
            handler.addFilter(_with_request_id)
            handler.setFormatter(
                JsonFormatter(
                    ["levelname", "name", "message", "request_id"],
                    rename_fields={"levelname": "level", "name": "logger"},
                    timestamp="time",
                    reserved_attrs=[*RESERVED_ATTRS, "color_message"],
                )
            )
    else:
        for handler in log.handlers:
            handler.addFilter(_with_request_id_in_front)


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get() or None
    return True


def _with_request_id_in_front(record: logging.LogRecord) -> bool:
    """For a log of text; a record that passes several handlers is changed once."""
    if request_id.get() and record.name == log.name and not hasattr(record, "request_id"):
        _with_request_id(record)
        record.msg = f"[{request_id.get()}] {record.msg}"
    return True
