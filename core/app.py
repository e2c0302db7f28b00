"""The served app: each chosen strategy, mounted as a route.

uvicorn core.app:app --port 8001
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from threading import Thread
from typing import Annotated, Any, cast

from fastapi import Body, FastAPI, Response

from .errors import NotReady, ResidencyError
from .plugins import load_plugins
from .schemas import REQUEST_EXAMPLES, Health, LabelScore, PredictAnswer, PredictRequest, Problem, StrategiesAnswer
from .serving.dispatcher import Answer
from .serving.limits import BodyLimit
from .serving.problems import add_problem_handlers
from .serving.service import Mounted, Service
from .settings import Settings, settings_from_environment
from .threads import limit_torch

log = logging.getLogger("residency")
NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such model"},
    413: {"model": Problem, "description": "The body is over the limit"},
    422: {"model": Problem, "description": "The body does not fit"},
    503: {"model": Problem, "description": "The model cannot be loaded, or start-up has not ended"},
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; without `settings`, from the environment.

    Raises ResidencyError for wrong `settings`. Wrong variables end the process with a sentence instead:
    who starts a server from a shell has no use for a traceback.
    """
    if settings is None:
        try:
            return create_app(settings_from_environment())
        except ResidencyError as error:
            sys.exit(f"residency: {error}")
    limit_torch()
    _log_beside_the_server()
    service = Service(settings, load_plugins(settings.plugins))
    app = FastAPI(
        title="Residency",
        summary="One model under several loading strategies",
        lifespan=_lifespan(service),
    )
    app.add_middleware(BodyLimit, max_body=settings.max_body)
    add_problem_handlers(app)
    for mounted in service.mounted:
        app.post(mounted.route, summary=mounted.registered.summary, name=mounted.name, responses=PROBLEMS)(
            _predict_route(service, mounted)
        )
    _add_status_routes(app, service)
    return app


def _log_beside_the_server() -> None:
    """Let loads and failures appear in uvicorn's log, at its level, where uvicorn has set one up."""
    server = logging.getLogger("uvicorn")
    if server.handlers and not log.handlers:
        log.handlers, log.propagate = server.handlers, False
        log.setLevel(server.getEffectiveLevel())


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Listen at once, so that health answers while the start-up loads run."""

        def start() -> None:
            try:
                service.start()
            except Exception as error:
                known = isinstance(error, ResidencyError)
                log.critical("%s", error if known else "The server cannot start.", exc_info=not known)
                service.close()
                # Nothing is served yet, and every softer end is reported as success or by a traceback.
                os._exit(1)

        Thread(target=start, name="start-up", daemon=True).start()
        try:
            yield
        finally:
            service.close()

    return lifespan


def _predict_route(
    service: Service, mounted: Mounted
) -> Callable[[PredictRequest, Response], Awaitable[PredictAnswer]]:
    async def predict(
        request: Annotated[PredictRequest, Body(openapi_examples=REQUEST_EXAMPLES)], response: Response
    ) -> PredictAnswer:
        model_id, answer = await service.predict(mounted, request.model, request.all_texts())
        response.headers["Server-Timing"] = _server_timing(answer)
        return PredictAnswer(
            strategy=mounted.name,
            model=model_id,
            predictions=[LabelScore(label=label, score=score) for label, score in answer.predictions],
            cold=answer.cold,
        )

    return predict


def _server_timing(answer: Answer) -> str:
    """https://www.w3.org/TR/server-timing/, in milliseconds; a load's phases are named `load-<phase>`."""
    parts = {"queue": answer.queue, "load": answer.load}
    # A plugin names its phases; a header takes only tokens.
    parts |= {f"load-{NO_TOKEN.sub('-', phase)}": seconds for phase, seconds in answer.phases.items()}
    parts["inference"] = answer.inference
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())


def _add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/strategies", summary="What is mounted, and what it holds in memory")
    async def strategies() -> StrategiesAnswer:
        return StrategiesAnswer.model_validate({"strategies": [service.status(m) for m in service.mounted]})

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", summary="Whether start-up loads are done", responses={503: PROBLEMS[503]})
    async def readyz() -> Health:
        if not service.ready:
            raise NotReady("The models that are loaded at start-up are not in memory yet.")
        return Health(status="ready")


def __getattr__(name: str) -> FastAPI:
    """`core.app:app` is built when a server asks for it, not when this module is imported."""
    if name == "app":
        globals()["app"] = create_app()  # a server asks more than once
        return cast("FastAPI", globals()["app"])
    raise AttributeError(name)
