"""A peer for `peers.py`: LitServe with batches and a worker for each of two cores.

python experiments/litserve_app.py CHECKPOINT --port 8000
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

WORKERS = 2


class Classify(litserve.LitAPI):  # type: ignore[misc]
    """One text in, its label and score out; the texts that wait are computed together."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(max_batch_size=16, batch_timeout=0.002)
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // WORKERS))  # else they stand in each other's way
        self.tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        self.model = AutoModelForSequenceClassification.from_pretrained(self.checkpoint).eval()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[tuple[str, float]]:
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            best = self.model(**inputs).logits.softmax(-1).max(-1)
        names = self.model.config.id2label
        return [(names[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def encode_response(self, prediction: tuple[str, float]) -> dict[str, Any]:
        return {"label": prediction[0], "score": prediction[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Classify(arguments.checkpoint), accelerator="cpu", devices=1, workers_per_device=WORKERS, fast_queue=True
    )
    server.run(host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False, generate_client_file=False)
