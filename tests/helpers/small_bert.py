"""Small checkpoints with random weights, for tests in which only the mechanics count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core.checkpoints.embedded import embedded_directory

VOCABULARY, POSITIONS, WIDTH, INNER, HEADS = 30522, 128, 32, 64, 4


def write_classifier(target: Path, labels: Sequence[str], seed: int = 0) -> Path:
    """A sequence classifier with these labels; with one, it scores pairs."""
    target.mkdir(parents=True)
    for file in embedded_directory().glob("*token*"):
        shutil.copyfile(file, target / file.name)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    (target / "config.json").write_text(json.dumps(config))
    chance = np.random.default_rng(seed)
    tensors = {
        name: chance.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in _shapes(len(labels)).items()
    }
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def _shapes(labels: int) -> dict[str, tuple[int, ...]]:
    layer = "bert.encoder.layer.0"
    matrices: dict[str, tuple[int, ...]] = {
        f"{layer}.attention.self.query": (WIDTH, WIDTH),
        f"{layer}.attention.self.key": (WIDTH, WIDTH),
        f"{layer}.attention.self.value": (WIDTH, WIDTH),
        f"{layer}.attention.output.dense": (WIDTH, WIDTH),
        f"{layer}.intermediate.dense": (INNER, WIDTH),
        f"{layer}.output.dense": (WIDTH, INNER),
        "bert.pooler.dense": (WIDTH, WIDTH),
        "classifier": (labels, WIDTH),
    }
    norms = ["bert.embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    tables: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    return (
        tables
        | {f"{name}.weight": shape for name, shape in matrices.items()}
        | {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
        | {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    )
