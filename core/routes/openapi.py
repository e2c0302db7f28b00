"""What the OpenAPI document says of several routes alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ..schemas import Problem
from ..serving.service import Service

Responses = dict[int | str, dict[str, Any]]
DESCRIPTIONS = {
    401: "The token is missing or wrong",
    404: "There is no such model or strategy",
    405: "The strategy decides alone when a model is in memory",
    409: "The model is in use, or pinned",
    413: "The body is over the limit",
    415: "The body is not JSON, or it is compressed",
    422: "The body, a header, or the query does not fit",
    503: "Overloaded, too late, not ready yet, or the model cannot be loaded",
}
PREDICTING = (404, 413, 415, 422, 503)


def problems(*statuses: int, model: type[Problem] = Problem) -> Responses:
    """The errors of a route. FastAPI itself would call them `application/json`."""
    content = {"application/problem+json": {"schema": model.model_json_schema()}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


def list_what_there_is(app: FastAPI, service: Service) -> None:
    """Let the document name the models and the strategies wherever a path holds one."""
    known = {"model_id": list(service.model_ids), "strategy": [mounted.name for mounted in service.mounted]}
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        for operation in (each for path in document["paths"].values() for each in path.values()):
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = known[parameter["name"]]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def steering_links(model: str, strategy: str) -> dict[str, Any]:
    """From an answer that names a model and a strategy (JSON pointers) to loading and unloading it."""
    return {
        action: {
            "operationId": f"{action}_model",
            "parameters": {"model_id": f"$response.body#{model}"},
            "requestBody": {"strategy": f"$response.body#{strategy}"},
        }
        for action in ("load", "unload")
    }
