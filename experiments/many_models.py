"""What does a server of a thousand models cost besides their weights: start-up time, memory, and `/metrics`?

python -m experiments.many_models [--models 1000]

The checkpoints are small and of one architecture. Each has its own weights and its own tokenizer files.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from core.bench.client import connect
from core.bench.server import serve
from core.checkpoints.embedded import copy_tokenizer
from core.loaders.onnxruntime.conversion import ensure_converted
from core.system.memory import pss_and_private

TEXT = "I absolutely love this product."
BUDGET = 8 << 20  # bytes, enough for about twenty models
SECONDS = 600.0
ROWS = ("ready (s)", "private memory (MiB)", "/metrics (KiB)", "/metrics (ms)")
HIDDEN = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=1000, help="number of checkpoints to serve")
    count = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = make(Path(folder), count)
        ensure_converted(next(iter(checkpoints.values())))
        idle = measure(dict([next(iter(checkpoints.items()))]))
        print(f"{'':24}{'one model':>12}{f'{count} models':>16}")
        for name, one, many in zip(
            ("ready (s)", "private memory (MiB)", "/metrics (KiB)", "/metrics (ms)"),
            idle,
            measure(checkpoints),
            strict=True,
        ):
            print(f"{name:24}{one:12.1f}{many:16.1f}")
    print(f"(memory_budget: {BUDGET >> 20} MiB; memory and /metrics after one request for each model)")


def make(folder: Path, count: int) -> dict[str, Path]:
    """Write checkpoints that differ in the classifier's bias. Returns their directories by model id."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    first = folder / "m0"
    first.mkdir()
    copy_tokenizer(first)
    config = AutoConfig.for_model("bert", vocab_size=11_150, **HIDDEN)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(first)
    tensors = load_file(first / "model.safetensors")
    directories = {"m0": first}
    for number in range(1, count):
        directories[f"m{number}"] = directory = folder / f"m{number}"
        shutil.copytree(first, directory)
        bias = tensors["classifier.bias"] + np.float32(number / count)
        save_file(tensors | {"classifier.bias": bias}, directory / "model.safetensors", metadata={"format": "pt"})
    return directories


def measure(checkpoints: dict[str, Path]) -> tuple[float, float, float, float]:
    """Seconds until ready; after a request for each model, private MiB, and `/metrics` in KiB and milliseconds."""
    models = {model_id: str(directory) for model_id, directory in checkpoints.items()}
    strategies = [{"strategy": "lru-cached", "options": {"memory_budget": BUDGET}}]
    with serve({"strategies": strategies, "models": models}) as server, connect(server.url, SECONDS) as client:
        ready = server.wait_until_ready(client, SECONDS)
        for model_id in models:
            client.post("/predict-lru-cached", json={"text": TEXT, "model": model_id}).raise_for_status()
        began = time.perf_counter()
        metrics = client.get("/metrics")
        seconds = time.perf_counter() - began
        _, private = pss_and_private(server.pid)
    return ready, private or 0.0, len(metrics.content) / 1024, seconds * 1e3


if __name__ == "__main__":
    main()
