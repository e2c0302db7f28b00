"""The log of a cluster's own processes, in the form of the nodes' log."""

from __future__ import annotations

import logging
from typing import Literal

from pythonjsonlogger.json import JsonFormatter


class _TextFormatter(logging.Formatter):
    """`INFO:     sentence`, as uvicorn writes it."""

    def __init__(self, process: str) -> None:
        super().__init__(f"{process} | %(level)s %(message)s" if process else "%(level)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.level = f"{record.levelname}:".ljust(9)
        return super().format(record)


def set_up_log(style: Literal["text", "json"], process: str = "") -> None:
    """Write the log to standard error. `process` says who writes."""
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger"},
                static_fields={"process": process or "cluster"},
                timestamp="time",
            )
        )
    else:
        handler.setFormatter(_TextFormatter(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("residency").setLevel(logging.INFO)
