"""Exports a checkpoint as an ordinary ONNX graph, in float32 and in int8, and compares both with transformers.

python experiments/peers/export_onnx.py CHECKPOINT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic
from transformers import AutoModelForSequenceClassification

INPUTS = ["input_ids", "attention_mask"]
SHAPES = ((1, 20), (3, 41))
TOLERANCE = {"float32": 1e-4, "int8": 0.1}  # of a probability


class Logits(torch.nn.Module):
    """The checkpoint's model with two inputs and one output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def main(checkpoint: str, folder: Path) -> None:
    float32, int8 = folder / "float32.onnx", folder / "int8.onnx"
    torch.manual_seed(0)
    # ONNX Runtime computes this attention implementation fastest.
    stock = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager")
    model = Logits(stock).eval()  # the export puts all modules into the mode of the wrapper
    names: dict[str, Any] = {"input_names": INPUTS, "output_names": ["logits"]}
    names["dynamic_axes"] = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    torch.onnx.export(model, inputs(stock, 2, 8), float32, dynamo=False, **names)
    quantize_dynamic(float32, int8, per_channel=True)
    for name, graph in (("float32", float32), ("int8", int8)):
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        for shape in SHAPES:
            difference = largest_difference(session, model, *inputs(stock, *shape))
            if not difference <= TOLERANCE[name]:
                sys.exit(f"a probability of the {name} graph differs by {difference:.2g} from the model's at {shape}")


def inputs(stock: Any, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of texts that are all padded, except the first."""
    ids = torch.randint(stock.config.vocab_size, (batch, length))
    mask = torch.ones_like(ids)
    mask[1:, length // 2 :] = 0
    return ids, mask


def largest_difference(session: Any, model: Logits, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """The largest difference of a probability between the graph and the model."""
    [logits] = session.run(None, dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True)))
    with torch.inference_mode():
        expected = model(ids, mask).softmax(-1)
    return float((torch.from_numpy(logits).softmax(-1) - expected).abs().max())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
