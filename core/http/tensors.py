"""Tensors on the wire: texts come in and predictions go out, as JSON or as bytes after the JSON.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensors: in one of BYTES,
each element is its length in four bytes, the lowest first, and the element itself, a text in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from ..contracts import Prediction
from ..errors import WrongTensor
from .schemas import TopK

STRICT = ConfigDict(strict=True, extra="forbid")
OPEN = ConfigDict(strict=True, extra="allow")  # clients have parameters of their own
LENGTH = struct.Struct("<I")
DATATYPES = {"label": "BYTES", "score": "FP32"}
Size = Annotated[int, Field(ge=0, description="bytes of this tensor after the JSON")]
INFER_EXAMPLE: dict[str, Any] = {
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["I love it.", "Not worth the money."]}]
}


class InputParameters(BaseModel):
    model_config = OPEN

    binary_data_size: Size | None = None


class FirstError(FailFast):
    """In a list of wrong values one is told; pydantic's own class cannot stand in a union."""

    __hash__ = object.__hash__


class InputTensor(BaseModel):
    """Texts, in `data` or after the JSON."""

    model_config = STRICT

    name: str
    datatype: Literal["BYTES"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2, description="[n] or [n, 1], for n texts")
    ]
    parameters: InputParameters | None = None
    data: Annotated[list[str], FirstError()] | Annotated[list[tuple[str]], FirstError()] | None = None


class OutputParameters(BaseModel):
    model_config = STRICT

    binary_data: bool | None = None


class RequestedOutput(BaseModel):
    model_config = STRICT

    name: Literal["label", "score"]
    parameters: OutputParameters | None = None


class InferParameters(BaseModel):
    model_config = OPEN

    top_k: Annotated[TopK, Field(description="tell so many labels of each text; null: all")] = None
    binary_data_output: Annotated[bool, Field(description="for every output that does not say otherwise")] = False


class InferRequest(BaseModel):
    """One tensor of texts."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"example": INFER_EXAMPLE})

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=len(DATATYPES))] | None = None


class OutputTensor(BaseModel):
    """One element for each text."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[Literal["binary_data_size"], Size] | None = None
    data: list[str] | list[float] | None = None


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def texts_of(tensor: InputTensor, binary: bytes) -> list[str]:
    """Raises WrongTensor unless shape, data and what follows the JSON fit together."""
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if (tensor.data is None) == (size is None):
        raise WrongTensor("inputs.0: give either 'data' or the parameter 'binary_data_size', and the tensor after.")
    if len(binary) != (size or 0):
        raise WrongTensor(
            f"inputs.0: {len(binary)} bytes follow the JSON, and 'binary_data_size' does not say so; the header"
            " Inference-Header-Content-Length must give the length of the JSON."
        )
    if tensor.data is None:
        texts = decode(binary)
    else:
        texts = [item if isinstance(item, str) else item[0] for item in tensor.data]
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise WrongTensor(f"inputs.0.shape: must be [n] or [n, 1], where n is the number of texts, {len(texts)}.")
    return texts


def decode(binary: bytes) -> list[str]:
    """The texts of a binary tensor. Raises WrongTensor."""
    texts: list[str] = []
    at = 0
    while at < len(binary):
        begin = at + LENGTH.size
        at = begin + LENGTH.unpack_from(binary, at)[0] if begin <= len(binary) else begin
        if at > len(binary):
            raise WrongTensor(f"inputs.0: the binary tensor ends within text {len(texts)}.")
        try:
            texts.append(binary[begin:at].decode())
        except UnicodeDecodeError as error:
            raise WrongTensor(f"inputs.0: text {len(texts)} of the binary tensor is not UTF-8.") from error
    return texts


def encode(request: InferRequest, predictions: Sequence[Prediction]) -> tuple[list[OutputTensor], bytes]:
    """The outputs that were asked for, and the bytes that follow the JSON."""
    shape, told = [len(predictions)], list[tuple[str, float]](predictions)
    if request.parameters is not None and "top_k" in request.parameters.model_fields_set:
        rows = [prediction.ranked()[: request.parameters.top_k] for prediction in predictions]
        shape, told = [len(rows), len(rows[0])], [pair for row in rows for pair in row]
    labels, scores = [label for label, _ in told], [score for _, score in told]
    all_binary = request.parameters is not None and request.parameters.binary_data_output
    outputs, binary = [], b""
    for wanted in request.outputs or [RequestedOutput(name="label"), RequestedOutput(name="score")]:
        tensor = OutputTensor(name=wanted.name, datatype=DATATYPES[wanted.name], shape=shape)
        chosen = wanted.parameters.binary_data if wanted.parameters else None
        if all_binary if chosen is None else chosen:
            part = _bytes(labels) if wanted.name == "label" else struct.pack(f"<{len(scores)}f", *scores)
            tensor.parameters = {"binary_data_size": len(part)}
            binary += part
        else:
            tensor.data = labels if wanted.name == "label" else scores
        outputs.append(tensor)
    return outputs, binary


def _bytes(labels: Sequence[str]) -> bytes:
    elements = [label.encode() for label in labels]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)
