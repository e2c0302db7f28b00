"""The app that a server runs: each chosen strategy, mounted as a route.

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
from .http.access import AccessLog, set_up_logs
from .http.admin import add_admin_routes
from .http.connections import ConnectionLimits
from .http.dialects.routes import add_dialect_routes, early_refusals
from .http.forward import close_forwarding, prepare_forwarding, refuse_websocket
from .http.limits import RequestLimits
from .http.open_inference import add_open_inference_routes
from .http.openapi import enumerate_parameters
from .http.page import add_page
from .http.predict import add_predict_routes
from .http.problems import add_problem_handlers
from .http.status import add_status_routes
from .plugins import load_plugins
from .serving.service import Service, listed
from .system.heap import use_one_heap
from .system.threads import limit_torch

log = logging.getLogger("residency")
MAX_LOGGED_MODELS = 3


class App(FastAPI):
    """FastAPI inside our own middlewares.

    They must be outermost: `add_middleware` would put them where they run too late and cannot reach uvicorn's
    configuration.
    """

    def __init__(self, settings: Settings, service: Service, configured_by: str) -> None:
        summary = "One model under several loading strategies"
        super().__init__(title="Residency", summary=summary, lifespan=_lifespan(service, configured_by))
        routes = {strategy.registered.route: strategy.name for strategy in service.strategies}
        routes |= early_refusals(service)
        limited = RequestLimits(super().__call__, settings, routes, service.check_queue_slots)
        self._outermost = ConnectionLimits(AccessLog(limited), settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outermost = refuse_websocket if scope["type"] == "websocket" else self._outermost
        await outermost(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app; without `settings`, from the environment.

    Raises ResidencyError for wrong `settings`. Wrong variables of the environment end the process with one line
    instead: an operator should not see a traceback.
    """
    if settings is not None:
        return _app(settings, "the program that made the app", None)
    try:
        return _app(settings_from_environment(), configured_by(), settings_from_environment)
    except ResidencyError as error:
        sys.exit(f"residency: {error}")


def _app(settings: Settings, configured_by: str, reread_settings: Callable[[], Settings] | None) -> FastAPI:
    limit_torch()
    use_one_heap()
    set_up_logs(settings.log)
    service = Service(settings, load_plugins(settings.plugins))
    app = App(settings, service, configured_by)
    add_problem_handlers(app)
    add_predict_routes(app, service, has_admin_routes=settings.token is not None)
    add_open_inference_routes(app, service)
    add_status_routes(app, service)
    if settings.token is not None:
        add_admin_routes(app, service, settings.token, reread_settings)
    enumerate_parameters(app, service)
    add_page(app)
    add_dialect_routes(app, service)
    return app


def _lifespan(service: Service, configured_by: str) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Start the strategies in a thread, so that `/healthz` answers while the start-up loads run."""

        def start() -> None:
            began = perf_counter()
            try:
                if service.has_engines:
                    prepare_forwarding()
                service.engine.start()
                log.info("%s", announcement(service, configured_by, perf_counter() - began))
            except Exception as error:
                is_known = isinstance(error, ResidencyError)
                log.critical("%s", error if is_known else "The server cannot start.", exc_info=not is_known)
                service.close()
                # uvicorn would report any other end from this thread as a success, or with a traceback.
                os._exit(1)
            try:
                service.engine.probe_models()
            except Exception:
                log.exception("Probing the models failed")

        Thread(target=start, name="start-up", daemon=True).start()
        try:
            yield
        finally:
            await close_forwarding(app)
            service.close()

    return lifespan


def announcement(service: Service, configured_by: str, seconds: float) -> str:
    """The log line of a server that is ready `seconds` after its start: what it serves, where, and why."""
    references = [f"{model_id} ({reference})" for model_id, reference in service.engine.models.items()]
    strategies = [f"{each.name} at {each.registered.route} ({each.loader.name})" for each in service.strategies]
    return (
        f"Ready after {seconds:.2f} s. Models: {listed(references, MAX_LOGGED_MODELS)}."
        f" Strategies: {listed(strategies)}. Configured by {configured_by}."
    )


def __getattr__(name: str) -> FastAPI:
    """`app`, which is built when a server asks for it, not when this module is imported."""
    if name == "app":
        globals()["app"] = create_app()  # a server asks more than once
        return cast("FastAPI", globals()["app"])
    raise AttributeError(name)
