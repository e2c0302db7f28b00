"""Tensors on the wire: texts in requests and predictions in answers, as JSON or as bytes after the JSON.

https://github.com/kserve/open-inference-protocol with its extension for binary tensors. In a tensor of BYTES, each
element is its length as a little-endian integer of four bytes, followed by a text in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from ..contracts import Prediction
from ..errors import InvalidTensor
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
    """Report only the first wrong value of a list. pydantic's own class cannot be used in a union."""

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

    top_k: Annotated[TopK, Field(description="how many labels of each text to return; null: all")] = None
    binary_data_output: Annotated[bool, Field(description="for every output without `binary_data`")] = False


class InferRequest(BaseModel):
    """A request with one tensor of texts."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"example": INFER_EXAMPLE})

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=len(DATATYPES))] | None = None


class OutputTensor(BaseModel):
    """A tensor with one element for each text."""

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
    """The texts of a tensor. Raises InvalidTensor if its shape, its data and the bytes after the JSON do not agree."""
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if (tensor.data is None) == (size is None):
        raise InvalidTensor("inputs.0: give either 'data', or 'binary_data_size' and the tensor after the JSON.")
    if len(binary) != (size or 0):
        raise InvalidTensor(
            f"inputs.0: {len(binary)} bytes follow the JSON, but 'binary_data_size' is {size or 0}; the header"
            " Inference-Header-Content-Length must give the length of the JSON."
        )
    if tensor.data is None:
        texts = decode_texts(binary)
    else:
        texts = [item if isinstance(item, str) else item[0] for item in tensor.data]
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise InvalidTensor(f"inputs.0.shape: must be [n] or [n, 1], where n is the number of texts, {len(texts)}.")
    return texts


def decode_texts(binary: bytes) -> list[str]:
    """The texts of a binary tensor. Raises InvalidTensor."""
    texts: list[str] = []
    position = 0
    while position < len(binary):
        begin = position + LENGTH.size
        position = begin + LENGTH.unpack_from(binary, position)[0] if begin <= len(binary) else begin
        if position > len(binary):
            raise InvalidTensor(f"inputs.0: the binary tensor ends within text {len(texts)}.")
        try:
            texts.append(binary[begin:position].decode())
        except UnicodeDecodeError as error:
            raise InvalidTensor(f"inputs.0: text {len(texts)} of the binary tensor is not UTF-8.") from error
    return texts


def encode_outputs(request: InferRequest, predictions: Sequence[Prediction]) -> tuple[list[OutputTensor], bytes]:
    """The outputs that were asked for, and the bytes that follow the JSON."""
    shape, labelled = [len(predictions)], list[tuple[str, float]](predictions)
    if request.parameters is not None and "top_k" in request.parameters.model_fields_set:
        rows = [prediction.ranked()[: request.parameters.top_k] for prediction in predictions]
        shape, labelled = [len(rows), len(rows[0])], [pair for row in rows for pair in row]
    labels, scores = [label for label, _ in labelled], [score for _, score in labelled]
    all_binary = request.parameters is not None and request.parameters.binary_data_output
    outputs, binary = [], b""
    for output in request.outputs or [RequestedOutput(name="label"), RequestedOutput(name="score")]:
        tensor = OutputTensor(name=output.name, datatype=DATATYPES[output.name], shape=shape)
        is_binary = output.parameters.binary_data if output.parameters else None
        if all_binary if is_binary is None else is_binary:
            part = _encode_strings(labels) if output.name == "label" else struct.pack(f"<{len(scores)}f", *scores)
            tensor.parameters = {"binary_data_size": len(part)}
            binary += part
        else:
            tensor.data = labels if output.name == "label" else scores
        outputs.append(tensor)
    return outputs, binary


def _encode_strings(labels: Sequence[str]) -> bytes:
    elements = [label.encode() for label in labels]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)
