"""Text classifiers without Residency, as one would write them by hand, for the peers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

Answers = list[tuple[str, float]]  # label and score
Classify = Callable[[Sequence[str]], Answers]
Forward = Callable[[Any, Any], Any]  # ids and attention mask, int64, to logits


def open_classifier(engine: str, checkpoint: str, threads: int, **options: Any) -> Classify:
    """A function that classifies texts by `onnxruntime` or `openvino`, over an ONNX `graph`, or by `transformers`."""
    if engine == "transformers":
        return with_transformers(checkpoint, threads)
    forwards: dict[str, Callable[..., Forward]] = {"onnxruntime": onnxruntime_forward, "openvino": openvino_forward}
    return with_tokenizers(checkpoint, forwards[engine](threads, **options))


def onnxruntime_forward(threads: int, graph: str) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def openvino_forward(threads: int, graph: str, precision: str) -> Forward:
    import openvino

    options = {
        "CACHE_DIR": str(Path(graph).with_suffix("")),  # only the first start compiles
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(graph, "CPU", options)
    request, logits = model.create_infer_request(), model.output(0)
    return lambda ids, mask: request.infer({"input_ids": ids, "attention_mask": mask})[logits]


def with_tokenizers(checkpoint: str, forward: Forward) -> Classify:
    """A function that classifies texts. Calls tokenize in parallel, and run forwards one at a time."""
    from tokenizers import Tokenizer

    config = json.loads(Path(checkpoint, "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(Path(checkpoint, "tokenizer.json")))
    tokenizer.enable_truncation(config["max_position_embeddings"])
    tokenizer.enable_padding()
    turn = Lock()

    def classify(texts: Sequence[str]) -> Answers:
        encoded = tokenizer.encode_batch(list(texts)) if len(texts) > 1 else [tokenizer.encode(texts[0])]
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        with turn:
            logits = forward(ids, mask)
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return [(config["id2label"][str(each.argmax())], float(each.max())) for each in scores]

    return classify


def with_transformers(checkpoint: str, threads: int) -> Classify:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    def classify(texts: Sequence[str]) -> Answers:
        inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            best = model(**inputs).logits.softmax(-1).max(-1)
        names = model.config.id2label
        return [(names[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    return classify
