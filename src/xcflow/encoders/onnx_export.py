"""Transformers written as ONNX, in float32 and in int8, for answering without torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from xcflow.encoders.base import Encoder, evaluating
from xcflow.encoders.frozen_transformer import onnx_file
from xcflow.encoders.int8 import in_int8
from xcflow.encoders.side_by_side import SideBySide
from xcflow.encoders.transformer import Transformer
from xcflow.errors import ConfigError

_INPUTS = ("input_ids", "attention_mask")


class _TokensIn(nn.Module):
    """A transformer from token ids to pooled vectors, as plain tensors."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self._transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lookup = self._transformer.model.get_input_embeddings()  # type: ignore[operator]
        hidden = self._transformer.hidden(lookup(input_ids), attention_mask)
        # The same mean as a product: onnxruntime's sums over tokens round by the number of texts.
        weights = attention_mask[:, None].to(hidden.dtype)
        return (weights @ hidden)[:, 0] / weights.sum(2)


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
            exact = _as_onnx(member)
            onnx.save(exact, onnx_file(folder, "fp32", number))
            onnx.save(in_int8(exact), onnx_file(folder, "int8", number))


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
