"""Transformers written as ONNX, in float32 and in int8, for answering without torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from xcflow.encoders.base import Encoder, evaluating
from xcflow.encoders.frozen_transformer import onnx_file
from xcflow.encoders.side_by_side import SideBySide
from xcflow.encoders.transformer import Transformer
from xcflow.errors import ConfigError

_INPUTS = ("input_ids", "attention_mask")
_QUANTISED = ["MatMul", "Gemm", "Gather"]  # products with weights, and the token table


class _TokensIn(nn.Module):
    """A transformer from token ids to pooled vectors, as plain tensors."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self._transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lookup = self._transformer.model.get_input_embeddings()  # type: ignore[operator]
        return self._transformer.pool(lookup(input_ids), attention_mask)


def export(encoder: Encoder, folder: Path) -> None:
    """Write each transformer in an encoder twice: in float32 and in int8.

    The same weights give the same bytes.

    Args:
        encoder: A transformer, or encoders side by side.
        folder: An existing folder; ``onnx_file`` tells the names.

    Raises:
        ConfigError: The exporter cannot follow the model's code.
    """
    members = enumerate(encoder.members) if isinstance(encoder, SideBySide) else [(None, encoder)]
    for number, member in members:
        if isinstance(member, Transformer):
            exact = onnx_file(folder, "fp32", number)
            onnx.save(_as_onnx(member), exact)
            _quantise(exact, onnx_file(folder, "int8", number))


def _as_onnx(transformer: Transformer) -> onnx.ModelProto:
    ids = torch.ones(3, 7, dtype=torch.int64)  # no size of 0 or 1, which would be taken as fixed
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=transformer.limit)}
    with evaluating(transformer), _quiet():
        try:
            program = torch.onnx.export(
                _TokensIn(transformer).eval(),
                (ids, torch.ones_like(ids)),
                input_names=_INPUTS,
                output_names=["vectors"],
                dynamic_shapes=(sizes, sizes),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            name = transformer.settings()["architecture"]["model_type"]
            raise ConfigError(f"a transformer of type {name} cannot be written as ONNX") from error
    model = program.model_proto  # type: ignore[union-attr]
    _strip(model)
    return model


def _quantise(exact: Path, rounded: Path) -> None:
    """Weights in int8 by output channel; activations are rounded when a text is answered."""
    with _quiet():
        quantize_dynamic(
            exact,
            rounded,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            # Seven bits: processors without units for int8 add two products in 16 bits, where
            # eight would overflow and give other vectors than those that were measured.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(rounded)
    _strip(model)
    onnx.save(model, rounded)


def _strip(model: onnx.ModelProto) -> None:
    """Leave out what says how the model came about: the lines of code and where they stand."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own code from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
