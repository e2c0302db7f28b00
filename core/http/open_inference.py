"""`/v2…`: the Open Inference Protocol, for existing clients. A model's versions are the names of the strategies."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ..errors import CannotDo, LoadFailed, NotReady
from ..serving.service import Service
from ..tasks.classify import CLASSIFY
from .openapi import PREDICTING, problem_responses
from .predict import TIMEOUT, add_prediction_route, answer_headers, run_prediction, validate_body
from .problems import CLIENT_GONE
from .schemas import ModelVersion, ProtocolProblem
from .status import version_of
from .tensors import DATATYPES, TENSORS, InferAnswer, InferRequest, Tensors, encode_outputs, items_of

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
JSON = "application/json"
_responses = partial(problem_responses, model=ProtocolProblem)
MODEL = "/v2/models/{model_id}"
VERSION = MODEL + "/versions/{strategy}"
INFER = f"""Takes texts in one tensor of BYTES, and returns the label and score of each. With the parameter `top_k` (a
number, or null for all) it returns that many labels of each text, the best first, in tensors of [texts, labels]. An
embedder returns a tensor of [texts, dimensions]. A model that scores pairs takes their texts in two tensors.

Tensors may be sent in binary after the JSON; the header {HEADER_LENGTH} then gives the length of the JSON. Outputs
are returned in binary if the parameters `binary_data` or `binary_data_output` ask for it."""


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
    parameters: Annotated[ModelVersion | None, Field(description="its checkpoint")]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(Ready):
    name: str


def add_open_inference_routes(app: FastAPI, service: Service) -> None:
    _add_server(app, service)
    _add_models(app, service)
    _add_infer(app, service)


def _add_server(app: FastAPI, service: Service) -> None:
    @app.get("/v2", summary="The server and its extensions")
    async def server_metadata() -> ServerMetadata:
        return ServerMetadata(name="residency", version=_package_version(), extensions=["binary_tensor_data"])

    @app.get("/v2/health/live", summary="Whether the process is alive")
    async def server_live() -> Live:
        return Live(live=True)

    @app.get("/v2/health/ready", summary="Whether start-up loads are answered", responses=_responses(503))
    async def server_ready() -> Ready:
        service.check_ready()
        return Ready(ready=True)


def _add_models(app: FastAPI, service: Service) -> None:
    unknown, not_ready = _responses(404, 422), _responses(404, 422, 503)

    @app.get(MODEL, summary="A model", responses=unknown)
    async def model_metadata(model_id: str) -> ModelMetadata:
        return await _metadata(service, model_id, None)

    @app.get(VERSION, summary="A model under one strategy", responses=unknown)
    async def version_metadata(model_id: str, strategy: str) -> ModelMetadata:
        return await _metadata(service, model_id, strategy)

    @app.get(f"{MODEL}/ready", summary="Whether a model can answer", responses=not_ready)
    async def model_ready(model_id: str) -> ModelReady:
        return _ready(service, model_id, None)

    @app.get(f"{VERSION}/ready", summary="Whether a model can answer under one strategy", responses=not_ready)
    async def version_ready(model_id: str, strategy: str) -> ModelReady:
        return _ready(service, model_id, strategy)


def _add_infer(app: FastAPI, service: Service) -> None:
    async def infer(request: Request) -> Response:
        model_id, strategy = request.path_params["model_id"], request.path_params.get("strategy")
        model_id, strategy = _find(service, model_id, strategy)
        asked, binary = parse(await request.body(), request.headers)
        name = await _task(service, model_id, strategy, tensors=len(asked.inputs))
        items = items_of(name, asked.inputs, binary)
        answered = await run_prediction(request, service, strategy, model_id, items, service.tasks[name])
        if answered is None:
            return Response(status_code=CLIENT_GONE)
        _, answer = answered
        outputs, binary = encode_outputs(name, asked, answer.results)
        body = InferAnswer(model_name=model_id, model_version=strategy, id=asked.id, outputs=outputs)
        content = body.model_dump_json(exclude_none=True).encode()
        headers = answer_headers(answer)
        if binary:
            headers[HEADER_LENGTH] = str(len(content))
        return Response(content + binary, headers=headers, media_type=BINARY if binary else JSON)

    # The signatures for the OpenAPI document.
    async def infer_model(model_id: str, body: InferRequest) -> None: ...
    async def infer_version(model_id: str, strategy: str, body: InferRequest) -> None: ...

    responses = {200: {"model": InferAnswer, "content": {BINARY: {}}}, **_responses(*PREDICTING)}
    for path, documented in ((f"{MODEL}/infer", infer_model), (f"{VERSION}/infer", infer_version)):
        add_prediction_route(
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
    """The request, and the bytes that follow its JSON. Raises RequestValidationError or HTTPException."""
    kind = headers.get("content-type", JSON).partition(";")[0].strip().lower()
    # Some clients send no content type. But neither does a page of another site, whose browser names its origin.
    foreign = "content-type" not in headers and "origin" in headers
    if foreign or (kind not in (JSON, BINARY) and not kind.endswith("+json")):
        raise HTTPException(415, "Send the body as JSON, or as application/octet-stream with tensors after the JSON.")
    length = headers.get(HEADER_LENGTH)
    if length is None:
        return validate_body(InferRequest, body), b""
    if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
        raise HTTPException(422, f"{HEADER_LENGTH} must be the length of the JSON, at most that of the body.")
    return validate_body(InferRequest, body[: int(length)]), body[int(length) :]


async def _metadata(service: Service, model_id: str, strategy: str | None) -> ModelMetadata:
    """An engine has no tensors."""
    model_id, found = _find(service, model_id, strategy)
    is_engine = service.is_engine(model_id)
    tensors = Tensors((), ()) if is_engine else TENSORS[await _task(service, model_id, found)]
    shape = [-1] * tensors.dimensions
    return ModelMetadata(
        name=model_id,
        versions=[each.name for each in service.strategies],
        platform="engine" if is_engine else "residency",
        inputs=[TensorMetadata(name=name, datatype="BYTES", shape=[-1]) for name in tensors.inputs],
        outputs=[TensorMetadata(name=name, datatype=DATATYPES[name], shape=shape) for name in tensors.outputs],
        parameters=version_of(service.engine.versions, model_id),
    )


async def _task(service: Service, model_id: str, strategy: str, tensors: int | None = None) -> str:
    """The first of the model's tasks that has tensors; CLASSIFY until they are known. Raises CannotDo.

    Of several tasks, the number of `tensors` in a request tells which one is asked for.
    """
    try:
        tasks = await service.tasks_of(model_id, strategy)
    except (NotReady, LoadFailed):
        return CLASSIFY.name
    found = [task for task in tasks if task in TENSORS]
    if not found:
        raise CannotDo("The model has no task with tensors.", model_id)
    return next((task for task in found if len(TENSORS[task].inputs) == tensors), found[0])


def _ready(service: Service, model_id: str, strategy: str | None) -> ModelReady:
    model_id, found = _find(service, model_id, strategy)
    service.check_ready()
    if failed := next((each for each in service.engine.unavailable(found) if each.model == model_id), None):
        raise NotReady(failed.reason)
    return ModelReady(name=model_id, ready=True)


def _find(service: Service, model: str, strategy: str | None) -> tuple[str, str]:
    """The id of the model, and the strategy's name, by default of the first one.

    Raises UnknownModel, or HTTPException if there is no such strategy.
    """
    model_id = service.find_model(model)
    names = [each.name for each in service.strategies]
    version = service.default_strategy if strategy is None else strategy
    if version not in names:
        raise HTTPException(404, f"There is no version '{version[:100]}'. Versions are strategies: {', '.join(names)}.")
    return model_id, version


def _package_version() -> str:
    try:
        return installed_version("residency")
    except PackageNotFoundError:  # it runs from a checkout
        return "unknown"
