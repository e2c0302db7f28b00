"""The routes of the table of paths: for the default strategy, and under `/{strategy}` for each."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route, request_response
from starlette.types import Receive, Scope, Send

from ...errors import CannotDo, LoadFailed, NotReady, SettingsError
from ...serving.batch import estimate_tokens
from ...serving.service import Service, listed
from ...tasks.classify import CLASSIFY
from ..forward import forward
from ..named import model_named
from ..openapi import PREDICTING, problem_responses
from ..predict import (
    TIMEOUT,
    Endpoint,
    add_prediction_route,
    answer_headers,
    check_json,
    run_prediction,
    validate_body,
)
from ..problems import CLIENT_GONE, dialect_of, problem, route_path
from .dialect import Answered, Body, Path
from .openai import ListedModel, ModelList
from .table import METHODS, PIPELINE, UPSTREAM, paths_of

OPERATORS = ("/load", "/unload")  # paths with these ends are for operators, and name no model
UNDER = (
    "The first strategy answers; with `/{strategy}` before the path, that one does. If the model cannot answer this"
    " path, the answer is 404, and names the paths that it can answer."
)
MAX_PATHS = 20
LIST, ONE = "/v1/models", "/v1/models/{model_id:path}"
PIPELINES = PIPELINE.path.replace("}", ":path}")  # an alias may hold a slash


class Table:
    """Answers the paths of the table for a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.paths = paths_of(service.tasks)
        self._began = int(time.time())

    async def models(self) -> ModelList:
        """All models by their ids and aliases."""
        names = [*((each, each) for each in self._service.engine.model_ids), *self._service.aliases.items()]
        return ModelList(data=[await self._listed(name, model_id) for name, model_id in names])

    async def model(self, name: str) -> ListedModel:
        """The model with this id or alias. Raises UnknownModel."""
        return await self._listed(name, self._service.find_model(name))

    async def _listed(self, name: str, model_id: str) -> ListedModel:
        return ListedModel(id=name, created=self._began, tasks=list(await self._known_tasks(model_id)))

    async def _known_tasks(self, model_id: str) -> tuple[str, ...]:
        try:
            return await self._service.tasks_of(model_id)
        except (NotReady, LoadFailed):
            return ()

    def endpoint(self, path: Path, strategy: str) -> Endpoint:
        """What forwards a request to the engine that it names, or answers it by a task of the model that it names."""
        service = self._service

        async def answer(request: Request) -> Response:
            in_path = _name_in(request)
            name = await model_named(request) if in_path is None else in_path
            model_id = service.default if name is None else service.find_model(name)
            if model_id is not None and service.is_engine(model_id):
                return await forward(request, service, strategy, model_id, path.forwarded or path.path)
            if path.body is None:
                raise CannotDo("Only engines answer this path.", service.find_model(model_id))
            check_json(request)
            asked = validate_body(path.body, await request.body())
            return await self._answer(request, path, strategy, service.find_model(model_id), asked)

        return answer

    async def _answer(self, request: Request, path: Path, strategy: str, model_id: str, asked: Body) -> Response:
        service = self._service
        tasks = await service.tasks_of(model_id, strategy)
        if not path.serves(tasks):
            raise CannotDo("The model has no task of this path.", model_id)
        dialect = path.dialect_for(asked, tasks)
        if dialect is None:
            raise HTTPException(
                422, f"inputs: do not fit the model '{model_id}', which has {_named(tasks)}; see /docs."
            )
        task, items = service.tasks[dialect.task], dialect.items(asked)
        answered = await run_prediction(request, service, strategy, model_id, items, task)
        if answered is None:
            return Response(status_code=CLIENT_GONE)
        _, answer = answered
        tokens = sum(estimate_tokens(task.length(item)) for item in items)
        body = dialect.write(asked, Answered(strategy, model_id, answer.results, answer.cold, tokens))
        content = body.model_dump_json(exclude_unset=True)
        return Response(content, media_type="application/json", headers=answer_headers(answer))

    def routes_with_names(self, strategy: str | None = None) -> list[BaseRoute]:
        """The routes whose paths hold a model's name, under the strategy; without one, the undocumented ones."""
        if strategy is None:
            return [Route(UPSTREAM, self._upstream(self._service.default_strategy), methods=METHODS)]

        async def models(request: Request) -> Response:
            return _json(await self.models())

        async def model(request: Request) -> Response:
            return _json(await self.model(request.path_params["model_id"]))

        return [
            Route(f"/{strategy}{LIST}", models, methods=["GET"]),
            Route(f"/{strategy}{ONE}", model, methods=["GET"]),
            Route(f"/{strategy}{PIPELINES}", self.endpoint(PIPELINE, strategy), methods=["POST"]),
            Route(f"/{strategy}{UPSTREAM}", self._upstream(strategy), methods=METHODS),
        ]

    def _upstream(self, strategy: str) -> Endpoint:
        """What forwards any path to the engine that is named before it."""
        service = self._service

        async def pass_on(request: Request) -> Response:
            model_id, rest = self._split(request.path_params["path"])
            if not service.is_engine(model_id):
                raise CannotDo("Only engines have paths under /upstream/.", model_id)
            return await forward(request, service, strategy, model_id, f"/{rest}")

        return pass_on

    def _split(self, path: str) -> tuple[str, str]:
        """The id of the model whose id or alias the path begins with, and the rest. Raises UnknownModel."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            if name in self._service.engine.models or name in self._service.aliases:
                return self._service.find_model(name), "/".join(parts[end:])
        return self._service.find_model(parts[0]), ""

    async def sentence(self, model_id: str) -> str:
        """Why a model cannot answer a path, with those that it answers."""
        if self._service.is_engine(model_id):
            paths = ", ".join(["/v1/chat/completions", "/v1/embeddings", f"/upstream/{model_id}/…"])
            return f"Model '{model_id}' is an engine: requests are forwarded to it at {paths} and other paths."
        if not (tasks := await self._known_tasks(model_id)):
            return f"Model '{model_id}' cannot answer this path."
        paths = listed(self._answered(model_id, tasks), MAX_PATHS)
        return f"Model '{model_id}' cannot answer this path. It has {_named(tasks)}, at {paths}."

    def _answered(self, model_id: str, tasks: tuple[str, ...]) -> Iterator[str]:
        if CLASSIFY.name in tasks:
            yield from (each.registered.route for each in self._service.strategies)
        for path in (*self.paths, PIPELINE):
            if path.serves(tasks):
                yield path.path.replace("{model_id}", model_id)
        yield f"/v2/models/{model_id}/infer"


class FixedPaths(BaseRoute):
    """The route of all paths without a model's name: a look-up, since they are too many to try one by one."""

    def __init__(self, table: Table, service: Service) -> None:
        self._found: dict[str, Scope] = {
            prefix + path.path: {"endpoint": table.endpoint(path, strategy), "path_params": {}, "methods": path.methods}
            for prefix, strategy in _prefixes(service).items()
            for path in table.paths
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = self._found.get(route_path(scope)) if scope["type"] == "http" else None
        if found is None:
            return Match.NONE, {}
        return Match.FULL if scope["method"] in found["methods"] else Match.PARTIAL, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in scope["methods"]:
            raise HTTPException(405, headers={"Allow": ", ".join(scope["methods"])})
        await request_response(scope["endpoint"])(scope, receive, send)


def _prefixes(service: Service) -> dict[str, str]:
    """The strategy that answers, by the beginning of the path: the first one without any."""
    return {"": service.default_strategy} | {f"/{each.name}": each.name for each in service.strategies}


def early_refusals(service: Service) -> dict[str, str]:
    """The strategy of each fixed path that reads a body: its requests are refused early while all queues are full."""
    paths = [path.path for path in paths_of(service.tasks)]
    return {prefix + path: name for prefix, name in _prefixes(service).items() for path in paths}


def add_dialect_routes(app: FastAPI, service: Service) -> None:
    """Add all routes of the table, after all others. Raises SettingsError for a strategy with a name of theirs."""
    table, strategies = Table(service), [each.name for each in service.strategies]
    own = {each.registered.route for each in service.strategies}
    _check_names(
        strategies, [*_paths(app.routes), LIST, PIPELINES, UPSTREAM, *(path.path for path in table.paths)], own
    )
    _add_documented(app, table, service.default_strategy)
    routes = app.router.routes
    after = max(index for index, route in enumerate(routes) if isinstance(route, Route) and route.path in own) + 1
    # Before the routes that are tried one by one.
    routes.insert(after, FixedPaths(table, service))
    for name in (None, *strategies):
        routes += table.routes_with_names(name)

    @app.exception_handler(CannotDo)
    async def name_paths(request: Request, error: CannotDo) -> Response:
        sentence = await table.sentence(error.model_id) if error.model_id else str(error)
        return problem(404, sentence, dialect=dialect_of(request.scope))


def _add_documented(app: FastAPI, table: Table, strategy: str) -> None:
    @app.get(LIST, summary="All models, by their ids and aliases")
    async def models() -> ModelList:
        return await table.models()

    @app.get(ONE, summary="A model, by its id or an alias", responses=problem_responses(404, path=LIST))
    async def model(model_id: str) -> ListedModel:
        return await table.model(model_id)

    for path in (*table.paths, PIPELINE):
        if path.body is None:
            continue

        async def documented(**parameters: Any) -> None: ...

        documented.__signature__ = _signature(path)  # type: ignore[attr-defined]
        add_prediction_route(
            app,
            PIPELINES if path is PIPELINE else path.path,
            table.endpoint(path, strategy),
            documented,
            summary=path.summary,
            name=path.path,
            description=UNDER,
            responses={200: {"model": path.answer}, **problem_responses(*PREDICTING, path=path.path)},
            openapi_extra={"parameters": [TIMEOUT]},
        )


def _signature(path: Path) -> Signature:
    """The parameters of a path for the OpenAPI document."""
    names = {"model_id": str} if path is PIPELINE else {}
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in (names | {"body": path.body}).items()
    ]
    return Signature(parameters)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _name_in(request: Request) -> str | None:
    """The model that the path names, or None. Raises HTTPException for a path of operators."""
    name: str | None = request.path_params.get("model_id")
    if name is not None and f"/{name}".endswith(OPERATORS) and "/" in name:
        raise HTTPException(404, "Not Found")
    return name


def _named(tasks: Sequence[str]) -> str:
    return f"the task{'s' * (len(tasks) > 1)} {', '.join(tasks)}"


def _paths(routes: Sequence[BaseRoute]) -> list[str]:
    return [route.path for route in routes if isinstance(route, Route)]


def _check_names(strategies: Sequence[str], paths: Sequence[str], own: Collection[str]) -> None:
    """Raise SettingsError for a strategy under whose name other paths stand; `own` are the paths of strategies."""
    reserved = {path.split("/")[1] for path in paths if path not in own}
    for name in strategies:
        if name in reserved:
            raise SettingsError(
                f"The strategy '{name}' cannot be mounted, because this server has paths that begin with /{name};"
                " give its class another name."
            )
