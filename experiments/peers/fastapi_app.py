"""A peer: FastAPI around ONNX Runtime or OpenVINO, without PyTorch and transformers.

The variable CLASSIFIER holds the arguments of `open_classifier` as JSON.
"""

import json
import os
from typing import Any

from engines import open_classifier
from fastapi import FastAPI
from pydantic import BaseModel

classify = open_classifier(**json.loads(os.environ["CLASSIFIER"]))
app = FastAPI()


class Request(BaseModel):
    """One text."""

    text: str


@app.post("/predict")
def predict(request: Request) -> Any:
    [(label, score)] = classify([request.text])
    return {"label": label, "score": score}
