"""What the OpenAPI document says of several routes alike."""

from __future__ import annotations

from typing import Any

from ..schemas import Problem

Responses = dict[int | str, dict[str, Any]]
DESCRIPTIONS = {
    401: "The token is missing or wrong",
    404: "There is no such model or strategy",
    405: "The strategy decides alone when a model is in memory",
    409: "The model is in use, or pinned",
    413: "The body is over the limit",
    415: "The body is not JSON",
    422: "The body, or a header, does not fit",
    503: "Overloaded, too late, not ready yet, or the model cannot be loaded",
}


def problems(*statuses: int) -> Responses:
    """The errors of a route. FastAPI itself would call them `application/json`."""
    schema = Problem.model_json_schema()
    return {
        status: {"description": DESCRIPTIONS[status], "content": {"application/problem+json": {"schema": schema}}}
        for status in statuses
    }


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
