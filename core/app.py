"""The served app: each chosen strategy, mounted as a route.

uvicorn core.app:app --port 8001
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Thread
from time import perf_counter
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from .config.settings import Settings, configured_by, settings_from_environment
from .errors import ResidencyError
from .http.connections import ConnectionLimits
from .http.edge import Edge
from .http.metrics import add_metrics
from .http.open_inference import add_open_inference
from .http.openapi import list_what_there_is
from .http.page import add_page
from .http.predict import add_predict_routes
from .http.problems import add_problem_handlers
from .http.status import add_status_routes
from .http.steering import add_steering
from .plugins import load_plugins
from .serving.logs import set_up
from .serving.served import announcement
from .serving.service import Service
from .system.heap import use_one_heap
from .system.threads import limit_torch

log = logging.getLogger("residency")


class App(FastAPI):
    """FastAPI within our own limits, which as middlewares inside it would come late, and not see the server."""

    def __init__(self, settings: Settings, service: Service, configured_by: str) -> None:
        summary = "One model under several loading strategies"
        super().__init__(title="Residency", summary=summary, lifespan=_lifespan(service, configured_by))
        self._outermost = ConnectionLimits(Edge(super().__call__, settings, service.admit), settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; without `settings`, from the environment.

    Raises ResidencyError for wrong `settings`. Wrong variables end the process with a sentence instead:
    who starts a server from a shell has no use for a traceback.
    """
    if settings is not None:
        return _app(settings, "the program that made the app", None)
    try:
        return _app(settings_from_environment(), configured_by(), settings_from_environment)
    except ResidencyError as error:
        sys.exit(f"residency: {error}")


def _app(settings: Settings, configured_by: str, reread: Callable[[], Settings] | None) -> FastAPI:
    limit_torch()
    use_one_heap()
    set_up(settings.log)
    service = Service(settings, load_plugins(settings.plugins))
    app = App(settings, service, configured_by)
    add_problem_handlers(app)
    add_predict_routes(app, service, steered=settings.token is not None)
    add_open_inference(app, service)
    add_status_routes(app, service)
    add_metrics(app, service)
    if settings.token is not None:
        add_steering(app, service, settings.token, reread)
    list_what_there_is(app, service)
    add_page(app)
    return app


def _lifespan(service: Service, configured_by: str) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Listen at once, so that health answers while the start-up loads run."""

        def start() -> None:
            began = perf_counter()
            try:
                service.engine.start()
                log.info("%s", announcement(service, configured_by, perf_counter() - began))
            except Exception as error:
                known = isinstance(error, ResidencyError)
                log.critical("%s", error if known else "The server cannot start.", exc_info=not known)
                service.close()
                # Nothing is served yet, and every softer end is reported as success or by a traceback.
                os._exit(1)
            try:
                service.engine.check_models()
            except Exception:
                log.exception("Probing the models failed")

        Thread(target=start, name="start-up", daemon=True).start()
        try:
            yield
        finally:
            service.close()

    return lifespan


def __getattr__(name: str) -> FastAPI:
    """`core.app:app` is built when a server asks for it, not when this module is imported."""
    if name == "app":
        globals()["app"] = create_app()  # a server asks more than once
        return cast("FastAPI", globals()["app"])
    raise AttributeError(name)
