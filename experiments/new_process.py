"""A plugin with a loader that starts a new Python process for each load, to compare `subprocess` with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import pluggy

SCRIPT = """
import json, sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
print(sum(tensor.nbytes for tensor in model.parameters()), flush=True)
for line in sys.stdin:
    with torch.inference_mode():
        inputs = tokenizer(json.loads(line), padding=True, truncation=True, return_tensors="pt")
        best = model(**inputs).logits.softmax(-1).max(-1)
    labels = [model.config.id2label[i] for i in best.indices.tolist()]
    print(json.dumps(list(zip(labels, best.values.tolist()))), flush=True)
"""


class NewProcess:
    """Starts a Python process with transformers for each load."""

    name = "new-process"

    def size(self, checkpoint: Path) -> int:
        return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))

    def load(self, checkpoint: Path) -> NewProcessModel:
        return NewProcessModel(checkpoint)


class NewProcessModel:
    """A model in a process, which answers each line of its input."""

    def __init__(self, checkpoint: Path) -> None:
        command = [sys.executable, "-c", SCRIPT, str(checkpoint)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._turn = Lock()
        self.nbytes = int(self._process.stdout.readline())  # type: ignore[union-attr]

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._turn:
            stdin.write(json.dumps(list(texts)) + "\n")
            stdin.flush()
            return [(label, score) for label, score in json.loads(stdout.readline())]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pluggy.HookimplMarker("residency")
def register_loaders() -> list[type[NewProcess]]:
    return [NewProcess]
