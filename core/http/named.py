"""Which model a request names, wherever the clients of model servers put its name."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from .predict import KEY_CHECK, MODEL_HEADER

SAID = "residency.said"  # key of a request's scope: what its body says
BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
# The name of a file stands in quotes, where `; name=model` is no parameter.
PARAMETER = rb';\s*[\w*-]+=(?:"(?:[^"\\\r\n]|\\.)*"|[^";\r\n]*)'
FIELD_NAME = re.compile(
    rb'^content-disposition:[^";\r\n]*(?:%s)*?;\s*name="?model"?\s*(?:[;\r]|$)' % PARAMETER,
    re.IGNORECASE | re.MULTILINE,
)
WHERE = f"the header {MODEL_HEADER}, the body and the query"


class Said(NamedTuple):
    """What the body of a request says: the models that it names, and whether the answer is to be a stream."""

    models: tuple[str, ...] = ()
    stream: bool = False


class _Body(BaseModel):
    """The two members of a JSON body that matter here."""

    model: Any = None
    stream: Any = None


async def model_named(request: Request) -> str | None:
    """The name of a model in the header X-Model, the JSON body, the form or the query; None if there is none.

    Raises HTTPException if the names differ, or if the body has one that is not text.
    """
    said = await read_said(request)
    in_headers = (_as_utf8(value) for value in request.headers.getlist(MODEL_HEADER))
    named = {*in_headers, *said.models, *request.query_params.getlist("model")} - {""}
    if len(named) > 1:
        raise HTTPException(422, f"The request names several models: {WHERE} must name the same one.")
    return next(iter(named), None)


def _as_utf8(value: str) -> str:
    """The value of a header, which is read as Latin-1. An alias may have other letters, which clients send as UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


async def read_said(request: Request) -> Said:
    """What the body says; read once for each request. A body that cannot be read says nothing."""
    if SAID not in request.scope:
        request.scope[SAID] = _said(await request.body(), request.headers.get("content-type", ""))
    said: Said = request.scope[SAID]
    return said


def _said(body: bytes, content_type: str) -> Said:
    """A body that begins like a JSON object is taken for one, since model servers ask for no content type."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return Said(tuple(_multipart_models(body, content_type)))
    text = body.removeprefix(codecs.BOM_UTF8)
    if text.lstrip()[:1] == b"{":
        return _said_in_json(text)
    if kind == "application/x-www-form-urlencoded":
        return Said(tuple(parse_qs(body.decode("latin-1"), encoding="utf-8").get("model", ())))
    return Said()


def _said_in_json(text: bytes) -> Said:
    try:
        asked = _Body.model_validate_json(text)
    except ValidationError:  # half of a surrogate pair, say: it is for the engine to accept it or not
        try:
            asked = _Body.model_validate(json.loads(text.decode()))
        except (ValueError, RecursionError):
            return Said()
    # Only a body that can hold a key twice is read by the slower parser that sees it; a key may be escaped.
    if text.count(b'"model"') > 1 or rb"\u00" in text:
        KEY_CHECK.decode(text.decode())
    if not isinstance(asked.model, str | None):
        raise HTTPException(422, "model: must be text, the name of a model.")
    return Said((asked.model,) if asked.model else (), asked.stream is True)


def _multipart_models(body: bytes, content_type: str) -> Iterator[str]:
    """The values of the fields named `model`. Found without parsing the files beside them, which may be large."""
    found = BOUNDARY.search(content_type)
    if found is None:
        return
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1")
    begin = body.find(delimiter)
    while begin >= 0:
        end = body.find(b"\r\n" + delimiter, begin + len(delimiter))
        head_end = body.find(b"\r\n\r\n", begin, end if end >= 0 else None)
        if head_end >= 0 and end >= 0 and FIELD_NAME.search(body, begin, head_end):
            yield body[head_end + 4 : end].decode("utf-8", "replace")
        begin = end + 2 if end >= 0 else -1
