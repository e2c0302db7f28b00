"""Checkpoints of known architectures at their true size, with seeded random weights, for use offline.

The labels that such a model returns mean nothing. Its size, load time and speed are real.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import ModelReferenceError
from .cache import cache_directory, write_once
from .embedded import copy_tokenizer, shipped_sha256

FORMAT = 2  # part of the name in the cache; raise it when the files change
LABELS = {0: "NEGATIVE", 1: "POSITIVE"}

# As published: DistilBERT (Sanh et al., 2019), BERT (Devlin et al., 2019), MiniLM-L6-H384 (Wang et al., 2020).
BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
DISTILBERT = {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
ARCHITECTURES: dict[str, tuple[str, dict[str, int], int]] = {  # name: model type, sizes, parameters
    "minilm-l6": ("bert", MINILM, 22_714_000),
    "distilbert-base": ("distilbert", DISTILBERT, 66_956_000),
    "bert-base": ("bert", BERT, 109_484_000),
    "bert-large": ("bert", LARGE, 335_144_000),
}
VOCABULARY = 30_522


def parse(text: str) -> tuple[str, int]:
    """The architecture and the number of the copy: ("distilbert-base", 3) for `distilbert-base#3`.

    Raises ModelReferenceError if it is unknown.
    """
    name, hash_sign, copy = text.partition("#")
    if name not in ARCHITECTURES:
        raise ModelReferenceError(f"There is no 'synthetic:{name}'. Known: {', '.join(ARCHITECTURES)}.")
    if hash_sign and not (copy.isascii() and copy.isdigit() and 1 <= int(copy) <= 9999):
        raise ModelReferenceError(f"'synthetic:{text}': a copy is numbered 1 to 9999, as in 'synthetic:{name}#3'.")
    return name, int(copy or 1)


def synthetic_directory(text: str) -> Path:
    """The directory of the checkpoint, such as `distilbert-base`, or `distilbert-base#3`, a copy with other weights.

    Writes it to the cache if it is not there. Raises ModelReferenceError.
    """
    name, number = parse(text)
    model_type, sizes, _ = ARCHITECTURES[name]
    directory, nbytes = cache_entry(text)
    return write_once(directory.name, nbytes, lambda to: _write(to, model_type, sizes, seed=number))


def cache_entry(text: str) -> tuple[Path, int]:
    """The directory in the cache that the checkpoint has or would have, and its approximate size in bytes.

    Raises ModelReferenceError.
    """
    name, number = parse(text)
    _, sizes, parameters = ARCHITECTURES[name]
    made_of = [str(FORMAT), str(sizes), version("torch"), version("transformers"), shipped_sha256()]
    key = sha256(" ".join(made_of).encode()).hexdigest()[:12]
    return cache_directory() / f"synthetic-{name}-{number}-{key}", 4 * parameters


def _write(directory: Path, model_type: str, sizes: dict[str, int], *, seed: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    labels: dict[str, Any] = {"id2label": LABELS, "label2id": {label: i for i, label in LABELS.items()}}
    config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **sizes, **labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    copy_tokenizer(directory)
