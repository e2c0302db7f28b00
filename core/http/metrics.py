"""`GET /metrics`, in Prometheus' text format."""

from __future__ import annotations

import anyio
from fastapi import FastAPI, Response

from ..serving.service import Service


def add_metrics(app: FastAPI, service: Service) -> None:
    @app.get(
        "/metrics", summary="For Prometheus", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        return Response(await anyio.to_thread.run_sync(service.metrics.scrape), media_type=service.metrics.media_type)
