"""What the OpenAPI document says of several routes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from ..serving.service import Service
from .schemas import Problem

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
    """Let the document name the models and the strategies wherever a path or a body holds one."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = made()
        models = service.engine.model_ids
        known = {"model_id": list(models), "strategy": [each.name for each in service.strategies]}
        for operation in (each for path in document["paths"].values() for each in path.values()):
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = known[parameter["name"]]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if "model" in content["schema"].get("properties", {}):
                    _name_models(content, models, service.default)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _name_models(content: dict[str, Any], models: Sequence[str], default: str | None) -> None:
    """In a body's schema and its examples, which must have a model where there is no default."""
    schema = content["schema"]
    named = schema["properties"]["model"]
    named["anyOf"][0]["enum"] = list(models)
    if default is None:
        schema["properties"]["model"] = named["anyOf"][0]
        schema["required"] = ["model"]
    else:
        named["default"] = default
    for example in content.get("examples", {}).values():
        if default is None or "model" in example["value"]:
            example["value"]["model"] = default or models[0]


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
