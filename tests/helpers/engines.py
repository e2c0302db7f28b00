"""Settings of engines that are the fake one, and what a test asks of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx

from .support import wait_for

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


def engine(*flags: str, **settings: Any) -> dict[str, Any]:
    """The settings of a model that is the fake engine, with these flags."""
    return {"run": " ".join([sys.executable, "-I", "-S", str(FAKE_ENGINE), "--port ${port}", *flags]), **settings}


def state(client: httpx.Client, model_id: str, strategy: int = 0) -> dict[str, Any]:
    """What `/residency` says of the model."""
    models = client.get("/residency").json()["strategies"][strategy]["models"]
    found: dict[str, Any] = next(model for model in models if model["model"] == model_id)
    return found


def wait_until_idle(client: httpx.Client, model_id: str) -> None:
    """Wait until no request uses the model, or waits for it."""
    wait_for(lambda: not state(client, model_id)["in_use"] and not state(client, model_id)["waiting"])
