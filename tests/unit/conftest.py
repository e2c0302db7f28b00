"""Holds the unit tests to what they promise: they start no process and import no engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
ENGINES = {"torch", "transformers", "onnxruntime", "openvino"}
_is_forbidden = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _is_forbidden:
        return
    if event in STARTS:
        raise AssertionError(f"{event}: a test that starts a process is marked `process`")
    if event == "import" and arguments[0] in ENGINES:
        raise AssertionError(f"import {arguments[0]}: a test that loads a model is marked `process`")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _keeps_its_promise(request: pytest.FixtureRequest) -> Iterator[None]:
    global _is_forbidden
    _is_forbidden = request.node.get_closest_marker("process") is None
    yield
    _is_forbidden = False
