"""The Open Inference Protocol, version 2, over HTTP (kserve/open-inference-protocol, rest).

A request's input ``text`` is a BYTES tensor of texts. The outputs ``label_ids``, ``label_texts``
(BYTES), ``scores`` and ``probabilities`` (FP32) are [N, k]; where a text has fewer labels, ids and
texts are empty and numbers 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt

from xcflow.serving.http.answering import Answer
from xcflow.serving.http.schemas import Text

INPUT = "text"
OUTPUTS = {
    "label_ids": "BYTES",
    "label_texts": "BYTES",
    "scores": "FP32",
    "probabilities": "FP32",
}
_FIELDS = dict(zip(OUTPUTS, ("id", "text", "score", "probability"), strict=True))
_DEFAULT_K = 10
_MOST_DIMENSIONS = 8
_EXAMPLE = {
    "name": INPUT,
    "shape": [1],
    "datatype": "BYTES",
    "data": ["web server with many modules"],
}


class RequestedTensor(BaseModel):
    """An input."""

    name: str
    shape: Annotated[list[StrictInt], Field(fail_fast=True, max_length=_MOST_DIMENSIONS)]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """The input ``text``; ``parameters`` may hold ``k`` and ``min_probability``.

    What may be left out may be null: so clients write it who know the fields by their types.
    """

    id: Text | None = None
    parameters: dict[str, Any] | None = None
    inputs: Annotated[
        list[RequestedTensor], Field(fail_fast=True, min_length=1, examples=[[_EXAMPLE]])
    ]
    outputs: Annotated[
        list[RequestedOutput] | None, Field(fail_fast=True, max_length=len(OUTPUTS))
    ] = None


class Tensor(BaseModel):
    """An output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | float]


class InferResponse(BaseModel):
    """The outputs."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


class MalformedError(Exception):
    """A request that does not keep to the protocol; says why."""


def texts_of(request: InferRequest) -> list[str]:
    """The texts of a request.

    Raises:
        MalformedError: Another tensor than one of texts.
    """
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        raise MalformedError(f"one input is expected, {INPUT!r}; these are {names[:3]}")
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise MalformedError(f"input {INPUT}: datatype BYTES is expected, not {tensor.datatype!r}")
    texts = list(_flat(tensor.data))
    if not tensor.shape or min(tensor.shape) < 0 or math.prod(tensor.shape) != len(texts):
        raise MalformedError(f"input {INPUT}: {len(texts)} texts do not fill {tensor.shape}")
    if not texts:
        raise MalformedError(f"input {INPUT}: there is no text")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise MalformedError(f"input {INPUT}: value {number} is no string")
        try:
            text.encode()
        except UnicodeEncodeError:
            reason = "is no valid Unicode: half a surrogate pair"
            raise MalformedError(f"input {INPUT}: value {number} {reason}") from None
    return texts


def wishes_of(request: InferRequest) -> tuple[int, float]:
    """``k`` and ``min_probability`` of a request.

    Raises:
        MalformedError: They have another type or are out of range.
    """
    parameters = request.parameters or {}
    k = parameters.get("k", _DEFAULT_K)
    if type(k) is not int or k < 1:
        raise MalformedError("parameters.k must be a whole number above 0")
    least = parameters.get("min_probability", 0.0)
    if type(least) not in (int, float) or not 0.0 <= least <= 1.0:
        raise MalformedError("parameters.min_probability must be a share from 0 to 1")
    return k, float(least)


def outputs_of(request: InferRequest) -> list[str]:
    """Names of the outputs that a request wants; all by default.

    Raises:
        MalformedError: An output is wanted that there is not, or twice.
    """
    wanted = [output.name for output in request.outputs or ()] or list(OUTPUTS)
    if unknown := sorted(set(wanted) - set(OUTPUTS)):
        raise MalformedError(f"no output {unknown[0]!r}: there are {', '.join(OUTPUTS)}")
    if len(set(wanted)) < len(wanted):
        raise MalformedError("an output is wanted twice")
    return wanted


def response_to(
    request: InferRequest, outputs: Sequence[str], answers: Sequence[Answer], k: int
) -> dict[str, Any]:
    """The body of the response."""
    model = answers[0].model
    return {
        "model_name": model.name,
        "model_version": model.version,
        "id": request.id or "",
        "outputs": [
            {
                "name": name,
                "shape": [len(answers), k],
                "datatype": OUTPUTS[name],
                "data": list(_padded(answers, _FIELDS[name], k, OUTPUTS[name])),
            }
            for name in outputs
        ],
    }


def metadata(name: str, versions: Sequence[str]) -> dict[str, Any]:
    """What the protocol tells of a model."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": "xcflow",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": output, "datatype": kind, "shape": [-1, -1]}
            for output, kind in OUTPUTS.items()
        ],
    }


def _padded(answers: Sequence[Answer], field: str, k: int, kind: str) -> Iterator[str | float]:
    nothing: str | float = "" if kind == "BYTES" else 0.0
    for answer in answers:
        values = [label[field] for label in answer.labels]
        yield from values + [nothing] * (k - len(values))


def _flat(values: list[Any]) -> Iterator[Any]:
    """The values of nested lists, without recursion: bodies come from outside."""
    stack = [iter(values)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()
