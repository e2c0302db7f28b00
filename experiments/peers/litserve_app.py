"""A peer: LitServe, which batches waiting texts, in one or more workers.

python experiments/peers/litserve_app.py CLASSIFIER --workers 2 --batch 16 --wait 0.002 --port 8000

CLASSIFIER holds the arguments of `open_classifier` as JSON.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import litserve
from engines import Answers, open_classifier


class Classify(litserve.LitAPI):  # type: ignore[misc]
    """Takes one text, and returns its label and score."""

    def __init__(self, classifier: dict[str, Any], batch: int, wait: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait)
        self.classifier = classifier

    def setup(self, device: str) -> None:
        self.classify = open_classifier(**self.classifier)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> Answers:
        return self.classify(texts)

    def encode_response(self, answer: tuple[str, float]) -> dict[str, Any]:
        return {"label": answer[0], "score": answer[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=json.loads)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="most texts in a batch")
    parser.add_argument("--wait", type=float, required=True, help="seconds for a batch to fill")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Classify(arguments.classifier, arguments.batch, arguments.wait),
        accelerator="cpu",
        devices=1,
        workers_per_device=arguments.workers,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False, generate_client_file=False)
