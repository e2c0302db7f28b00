"""A peer: FastAPI around `pipeline()`, the app that most people write.

The variable PIPELINE_MODEL names another checkpoint. PIPELINE_PER_REQUEST builds a new pipeline for each request.
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

from core.checkpoints.embedded import embedded_directory

MODEL = os.environ.get("PIPELINE_MODEL") or str(embedded_directory())


def load() -> Any:
    return pipeline("text-classification", model=MODEL)


app = FastAPI()
classify: Any = None if os.environ.get("PIPELINE_PER_REQUEST") else load()


class Request(BaseModel):
    """One text."""

    text: str


@app.post("/predict")
def predict(request: Request) -> Any:
    return (classify or load())(request.text)
