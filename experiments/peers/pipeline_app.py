"""The app that people write: FastAPI around `pipeline()`. `start_up.py` and `peers.py` compare ours with it.

PIPELINE_MODEL names another checkpoint, PIPELINE_PER_REQUEST builds the pipeline anew for each request.
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

from core.checkpoints.embedded import embedded

MODEL = os.environ.get("PIPELINE_MODEL") or str(embedded())


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
