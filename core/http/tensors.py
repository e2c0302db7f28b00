"""Tensors on the wire: texts in requests and results in answers, as JSON or as bytes after the JSON.

https://github.com/kserve/open-inference-protocol with its extension for binary tensors. In a tensor of BYTES, each
element is its length as a little-endian integer of four bytes, followed by a text in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidTensor
from ..tasks.classify import CLASSIFY
from ..tasks.embed import EMBED
from ..tasks.score import SCORE
from .dialects.dialect import to_list
from .schemas import FirstError, TopK

OutputName = Literal["label", "score", "embedding"]
STRICT = ConfigDict(strict=True, extra="forbid")
OPEN = ConfigDict(strict=True, extra="allow")  # clients have parameters of their own
LENGTH = struct.Struct("<I")
DATATYPES = {"label": "BYTES", "score": "FP32", "embedding": "FP32"}


class Tensors(NamedTuple):
    """The tensors of a task: texts come in one, or the texts of each pair in two."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dimensions: int = 1


TENSORS = {
    CLASSIFY.name: Tensors(("text",), ("label", "score")),
    EMBED.name: Tensors(("text",), ("embedding",), dimensions=2),
    SCORE.name: Tensors(("text", "text_pair"), ("score",)),
}
"""By task; the models of others have none."""
Size = Annotated[int, Field(ge=0, description="bytes of this tensor after the JSON")]
INFER_EXAMPLE: dict[str, Any] = {
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["I love it.", "Not worth the money."]}]
}


class InputParameters(BaseModel):
    model_config = OPEN

    binary_data_size: Size | None = None


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

    name: OutputName
    parameters: OutputParameters | None = None


class InferParameters(BaseModel):
    model_config = OPEN

    top_k: Annotated[TopK, Field(description="how many labels of each text to return; null: all")] = None
    binary_data_output: Annotated[bool, Field(description="for every output without `binary_data`")] = False


class InferRequest(BaseModel):
    """A request with one tensor of texts; for a model that scores pairs, with two."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"example": INFER_EXAMPLE})

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=2)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] | None = None


class OutputTensor(BaseModel):
    """A tensor with one element for each item, or a row."""

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


def items_of(task: str, inputs: Sequence[InputTensor], binary: bytes) -> Sequence[str] | Sequence[tuple[str, str]]:
    """The items of a request for the task. Raises InvalidTensor if its tensors and the bytes do not agree."""
    names = TENSORS[task].inputs
    if len(inputs) != len(names):
        count = "one tensor" if len(names) == 1 else "two tensors"
        raise InvalidTensor(f"inputs: must be {count}, {' and '.join(names)}, for a model with the task '{task}'.")
    sizes = [tensor.parameters.binary_data_size if tensor.parameters else None for tensor in inputs]
    for index, (tensor, size) in enumerate(zip(inputs, sizes, strict=True)):
        if (tensor.data is None) == (size is None):
            raise InvalidTensor(
                f"inputs.{index}: give either 'data', or 'binary_data_size' and the tensor after the JSON."
            )
    if len(binary) != sum(size or 0 for size in sizes):
        said = "'binary_data_size' is" if len(inputs) == 1 else "the sum of each 'binary_data_size' is"
        raise InvalidTensor(
            f"inputs.0: {len(binary)} bytes follow the JSON, but {said} {sum(size or 0 for size in sizes)}; the header"
            " Inference-Header-Content-Length must give the length of the JSON."
        )
    columns, begin = [], 0
    for index, (tensor, size) in enumerate(zip(inputs, sizes, strict=True)):
        end = begin + (size or 0)
        columns.append(_texts_of(tensor, None if size is None else binary[begin:end], f"inputs.{index}"))
        begin = end
    if len(columns) == 1:
        return columns[0]
    first, second = _in_order(inputs, columns)
    if len(first) != len(second):
        raise InvalidTensor(f"inputs: must hold as many texts each, not {len(first)} and {len(second)}.")
    return list(zip(first, second, strict=True))


def _in_order(inputs: Sequence[InputTensor], columns: Sequence[list[str]]) -> Iterator[list[str]]:
    """The first and the second texts of pairs: by the names of their tensors, if both are known, or as they stand."""
    names = TENSORS[SCORE.name].inputs
    found = [tensor.name for tensor in inputs]
    return iter(columns) if set(found) != set(names) else (columns[found.index(name)] for name in names)


def _texts_of(tensor: InputTensor, binary: bytes | None, place: str) -> list[str]:
    """The texts of a tensor, from its data or `binary`. Raises InvalidTensor if its shape is another."""
    if binary is not None:
        texts = decode_texts(binary, place)
    else:
        texts = [item if isinstance(item, str) else item[0] for item in tensor.data or ()]
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise InvalidTensor(f"{place}.shape: must be [n] or [n, 1], where n is the number of texts, {len(texts)}.")
    return texts


def decode_texts(binary: bytes, place: str = "inputs.0") -> list[str]:
    """The texts of a binary tensor. Raises InvalidTensor."""
    texts: list[str] = []
    position = 0
    while position < len(binary):
        begin = position + LENGTH.size
        position = begin + LENGTH.unpack_from(binary, position)[0] if begin <= len(binary) else begin
        if position > len(binary):
            raise InvalidTensor(f"{place}: the binary tensor ends within text {len(texts)}.")
        try:
            texts.append(binary[begin:position].decode())
        except UnicodeDecodeError as error:
            raise InvalidTensor(f"{place}: text {len(texts)} of the binary tensor is not UTF-8.") from error
    return texts


def encode_outputs(task: str, request: InferRequest, results: Sequence[Any]) -> tuple[list[OutputTensor], bytes]:
    """The outputs that were asked for, and the bytes that follow the JSON. Raises InvalidTensor for others' names."""
    names = TENSORS[task].outputs
    for index, wanted in enumerate(request.outputs or ()):
        if wanted.name not in names:
            raise InvalidTensor(f"outputs.{index}.name: must be one of {', '.join(names)} for the task '{task}'.")
    shape, columns = _columns(task, request, results)
    all_binary = request.parameters is not None and request.parameters.binary_data_output
    outputs, binary = [], b""
    for output in request.outputs or [RequestedOutput(name=name) for name in columns]:
        tensor = OutputTensor(name=output.name, datatype=DATATYPES[output.name], shape=shape)
        data = columns[output.name]
        is_binary = output.parameters.binary_data if output.parameters else None
        if all_binary if is_binary is None else is_binary:
            part = _encode_strings(data) if output.name == "label" else struct.pack(f"<{len(data)}f", *data)
            tensor.parameters = {"binary_data_size": len(part)}
            binary += part
        else:
            tensor.data = data
        outputs.append(tensor)
    return outputs, binary


def _columns(task: str, request: InferRequest, results: Sequence[Any]) -> tuple[list[int], dict[OutputName, Any]]:
    """The shape of the outputs, and the elements of each."""
    if task == EMBED.name:
        return [len(results), len(results[0])], {"embedding": list(chain(*map(to_list, results)))}
    if task == SCORE.name:
        return [len(results)], {"score": list(results)}
    rows: Sequence[Sequence[tuple[str, float]]] = [[prediction] for prediction in results]
    shape = [len(results)]
    if request.parameters is not None and "top_k" in request.parameters.model_fields_set:
        rows = [prediction.ranked()[: request.parameters.top_k] for prediction in results]
        shape = [len(rows), len(rows[0])]
    pairs = [pair for row in rows for pair in row]
    return shape, {"label": [label for label, _ in pairs], "score": [score for _, score in pairs]}


def _encode_strings(labels: Sequence[str]) -> bytes:
    elements = [label.encode() for label in labels]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)
