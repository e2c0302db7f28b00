"""The app that people write: FastAPI around `pipeline()`. `start_up.py` compares ours with it."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

from core.models.embedded import embedded

app = FastAPI()
classify: Any = pipeline("text-classification", model=str(embedded()))


class Request(BaseModel):
    """One text."""

    text: str


@app.post("/predict")
def predict(request: Request) -> Any:
    return classify(request.text)
