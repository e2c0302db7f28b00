"""Parts of the OpenAPI document that several routes share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from fastapi import FastAPI

from ..serving.service import Service
from .problems import dialect_of_path
from .schemas import Problem

Responses = dict[int | str, dict[str, Any]]
DESCRIPTIONS = {
    401: "The token is missing or wrong",
    404: "There is no such model or strategy",
    405: "The strategy loads a model for each request",
    409: "The model is in use, or pinned",
    413: "The body is over the limit",
    415: "The body is not JSON, or it is compressed",
    422: "The body, a header or the query is not valid",
    503: "Overloaded, deadline exceeded, not ready yet, or the model cannot be loaded",
}
PREDICTING = (404, 413, 415, 422, 503)


def problem_responses(*statuses: int, model: type[Problem] = Problem, path: str = "") -> Responses:
    """The errors of a route, with their media type; FastAPI would declare `application/json`.

    With `path`, they have the form that clients of the path expect.
    """
    if path:
        model = dialect_of_path(path)
    content = {"application/problem+json": {"schema": _schema(model)}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


@cache
def _schema(model: type[Problem]) -> dict[str, Any]:
    """The schema of an error, without definitions, which a part of a document cannot hold."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    for name, member in schema["properties"].items():
        schema["properties"][name] = parts.get(member.get("$ref", "").rpartition("/")[2], member)
    return schema


def enumerate_parameters(app: FastAPI, service: Service) -> None:
    """List the model ids and strategies as `enum` in the OpenAPI document, in paths and bodies."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        models = [*service.engine.model_ids, *service.aliases]
        schemas = document["components"]["schemas"]
        bodies: set[str] = set()  # that several paths have
        names = {"model_id": models, "strategy": [each.name for each in service.strategies]}
        for operation in (each for path in document["paths"].values() for each in path.values()):
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = names[parameter["name"]]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if shared := content["schema"].get("$ref", "").rpartition("/")[2]:
                    bodies.add(shared)
                elif "model" in content["schema"].get("properties", {}):
                    _name_models(content, models, service.default)
        for body in bodies:
            if "model" in schemas[body]["properties"]:
                _name_models({"schema": schemas[body]}, models, service.default)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _name_models(content: dict[str, Any], models: Sequence[str], default: str | None) -> None:
    """List the model ids in a body's schema. Without a default, `model` is required, in the examples, too."""
    schema = content["schema"]
    model_schema = schema["properties"]["model"]
    model_schema["anyOf"][0]["enum"] = list(models)
    if default is None:
        schema["properties"]["model"] = model_schema["anyOf"][0]
        schema["required"] = [*schema.get("required", ()), "model"]
    else:
        model_schema["default"] = default
    for example in content.get("examples", {}).values():
        if default is None or "model" in example["value"]:
            example["value"]["model"] = default or models[0]


def admin_links(model: str, strategy: str) -> dict[str, Any]:
    """OpenAPI links to load and unload the model of an answer; both arguments are JSON pointers into it."""
    return {
        action: {
            "operationId": f"{action}_model",
            "parameters": {"model_id": f"$response.body#{model}"},
            "requestBody": {"strategy": f"$response.body#{strategy}"},
        }
        for action in ("load", "unload")
    }
