"""`/v2…`: the Open Inference Protocol, whose clients there are already. A version is a strategy's name."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ..errors import NotReady
from ..serving.service import Service
from .openapi import PREDICTING, problems
from .predict import (
    TIMEOUT,
    add_post,
    headers_of,
    predicted,
    validated,
)
from .problems import CLIENT_GONE
from .residency import version_of
from .schemas import ModelVersion, ProtocolProblem
from .tensors import (
    DATATYPES,
    InferAnswer,
    InferRequest,
    encode,
    texts_of,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
JSON = "application/json"
_problems = partial(problems, model=ProtocolProblem)
MODEL = "/v2/models/{model_id}"
VERSION = MODEL + "/versions/{strategy}"
INFER = f"""Texts in one tensor of BYTES, and for each its label and score; with the parameter `top_k`, a number or
null for all, so many of them, the best first, in tensors of [texts, labels].

Tensors may be sent in binary after the JSON, whose length the header {HEADER_LENGTH} gives; they come back so
where the parameters `binary_data` or `binary_data_output` ask for it."""


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model; its versions are the mounted strategies."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: Annotated[ModelVersion | None, Field(description="which checkpoint it is")]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(Ready):
    name: str


def add_open_inference(app: FastAPI, service: Service) -> None:
    _add_server(app, service)
    _add_models(app, service)
    _add_infer(app, service)


def _add_server(app: FastAPI, service: Service) -> None:
    @app.get("/v2", summary="The server and its extensions")
    async def server_metadata() -> ServerMetadata:
        return ServerMetadata(name="residency", version=_version(), extensions=["binary_tensor_data"])

    @app.get("/v2/health/live", summary="Whether the process is alive")
    async def server_live() -> Live:
        return Live(live=True)

    @app.get("/v2/health/ready", summary="Whether start-up loads are done", responses=_problems(503))
    async def server_ready() -> Ready:
        service.check_ready()
        return Ready(ready=True)


def _add_models(app: FastAPI, service: Service) -> None:
    unknown, not_ready = _problems(404, 422), _problems(404, 422, 503)

    @app.get(MODEL, summary="A model", responses=unknown)
    async def model_metadata(model_id: str) -> ModelMetadata:
        return _metadata(service, model_id, None)

    @app.get(VERSION, summary="A model under one strategy", responses=unknown)
    async def version_metadata(model_id: str, strategy: str) -> ModelMetadata:
        return _metadata(service, model_id, strategy)

    @app.get(f"{MODEL}/ready", summary="Whether a model can be asked", responses=not_ready)
    async def model_ready(model_id: str) -> ModelReady:
        return _ready(service, model_id, None)

    @app.get(f"{VERSION}/ready", summary="Whether a model can be asked under one strategy", responses=not_ready)
    async def version_ready(model_id: str, strategy: str) -> ModelReady:
        return _ready(service, model_id, strategy)


def _add_infer(app: FastAPI, service: Service) -> None:
    async def infer(request: Request) -> Response:
        model_id, strategy = request.path_params["model_id"], request.path_params.get("strategy")
        strategy = _find(service, model_id, strategy)
        wanted, binary = parse(await request.body(), request.headers)
        done = await predicted(request, service, strategy, model_id, texts_of(wanted.inputs[0], binary))
        if done is None:
            return Response(status_code=CLIENT_GONE)
        _, answer = done
        outputs, binary = encode(wanted, answer.predictions)
        body = InferAnswer(model_name=model_id, model_version=strategy, id=wanted.id, outputs=outputs)
        content = body.model_dump_json(exclude_none=True).encode()
        headers = headers_of(answer)
        if binary:
            headers[HEADER_LENGTH] = str(len(content))
        return Response(content + binary, headers=headers, media_type=BINARY if binary else JSON)

    # For the documentation only.
    async def with_a_model(model_id: str, body: InferRequest) -> None: ...
    async def with_a_strategy(model_id: str, strategy: str, body: InferRequest) -> None: ...

    responses = {200: {"model": InferAnswer, "content": {BINARY: {}}}, **_problems(*PREDICTING)}
    for path, documented in ((f"{MODEL}/infer", with_a_model), (f"{VERSION}/infer", with_a_strategy)):
        add_post(
            app,
            path,
            infer,
            documented,
            summary="Predict, in the Open Inference Protocol",
            description=INFER,
            responses=responses,
            openapi_extra={"parameters": [TIMEOUT]},
        )


def parse(body: bytes, headers: Headers) -> tuple[InferRequest, bytes]:
    """The request, and the bytes that follow its JSON."""
    kind = headers.get("content-type", JSON).partition(";")[0].strip().lower()
    # Some clients name none; a browser that was sent here by another site's page would not, either.
    foreign = "content-type" not in headers and "origin" in headers
    if foreign or (kind not in (JSON, BINARY) and not kind.endswith("+json")):
        raise HTTPException(415, "Send the body as JSON, or as application/octet-stream with tensors after the JSON.")
    length = headers.get(HEADER_LENGTH)
    if length is None:
        return validated(InferRequest, body), b""
    if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
        raise HTTPException(422, f"{HEADER_LENGTH} must be the length of the JSON, at most that of the body.")
    return validated(InferRequest, body[: int(length)]), body[int(length) :]


def _metadata(service: Service, model_id: str, strategy: str | None) -> ModelMetadata:
    _find(service, model_id, strategy)
    return ModelMetadata(
        name=model_id,
        versions=[each.name for each in service.strategies],
        platform="residency",
        inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
        outputs=[TensorMetadata(name=name, datatype=kind, shape=[-1]) for name, kind in DATATYPES.items()],
        parameters=version_of(service.engine.versions, model_id),
    )


def _ready(service: Service, model_id: str, strategy: str | None) -> ModelReady:
    found = _find(service, model_id, strategy)
    service.check_ready()
    if failed := next((each for each in service.engine.unavailable(found) if each.model == model_id), None):
        raise NotReady(failed.reason)
    return ModelReady(name=model_id, ready=True)


def _find(service: Service, model_id: str, strategy: str | None) -> str:
    """Without a strategy the first one. Raises UnknownModel, or HTTPException for a version that there is not."""
    service.find_model(model_id)
    names = [each.name for each in service.strategies]
    wanted = names[0] if strategy is None else strategy
    if wanted not in names:
        raise HTTPException(404, f"There is no version '{wanted[:100]}'. Versions are strategies: {', '.join(names)}.")
    return wanted


def _version() -> str:
    try:
        return version("residency")
    except PackageNotFoundError:  # it runs from a folder
        return "unknown"
