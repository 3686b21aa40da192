"""A transformer that answers by onnxruntime, without torch.

A text is answered by one thread, several texts by as many as there are cores. So a vector does not
depend on the number of threads, and no thread waits in a loop for work.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcflow.cores import allowed_threads
from xcflow.encoders.files import unreadable
from xcflow.encoders.padding import like_lengths, of_one_width, padded
from xcflow.encoders.unit import unit_rows
from xcflow.errors import MissingExtraError
from xcflow.ragged import Ragged

Precision = Literal["fp32", "int8"]

# Tokens that are run at a time: what a layer makes of them stays in a core's cache.
_TOKENS_PER_PART = 256
# In int8 texts are padded to a multiple of this, and only those of one width are run together: all
# sums have the same terms in the same order then, and a text the same vector whatever is encoded
# with it. (In float32 a product's last digit depends on the number of its rows.)
_WIDTH_STEP = 8


def onnx_file(folder: Path, precision: Precision, member: int | None = None) -> Path:
    """Where a transformer stands in a bundle; ``member`` is its number among encoders side by side.

    It maps ``input_ids`` and ``attention_mask``, int64 [B, T], to ``vectors``, float32 [B, D].
    """
    number = "" if member is None else f"{member}."
    return folder / f"encoder.{number}{precision}.onnx"


class FrozenTransformer:
    """What ``Transformer`` computes, from its export.

    Args:
        settings: What ``Transformer.settings`` gave.
        folder: Holds the encoder.
        precision: Of weights and products.
        member: Number among encoders side by side.

    Raises:
        ArtifactError: The export is missing or damaged.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        precision: Precision,
        member: int | None = None,
    ) -> None:
        self._limit = int(settings["architecture"]["max_position_embeddings"])
        self._ends = (int(settings["cls_id"]), int(settings["sep_id"]))
        self._in_int8 = precision == "int8"
        self._session = _session(onnx_file(folder, precision, member))
        self.dim = int(self._session.get_outputs()[0].shape[1])
        self.parts: tuple[int, ...] = (self.dim,)

    def encode(self, tokens: Ragged, *, unit: bool = True) -> NDArray[np.float32]:
        """Vectors [N, D] of N token rows, normalised unless told otherwise."""
        lengths, threads = np.minimum(tokens.lengths + 2, self._limit), allowed_threads()
        vectors = np.empty((len(tokens), self.dim), np.float32)

        def run(rows: NDArray[np.int64]) -> None:
            width = int(widths[rows].max())
            ids, mask = padded(tokens.take(rows), self._ends, self._limit, width)
            inputs = {"input_ids": ids, "attention_mask": mask}
            vectors[rows] = self._session.run(["vectors"], inputs)[0]

        if self._in_int8:
            widths = np.minimum(-(-lengths // _WIDTH_STEP) * _WIDTH_STEP, self._limit)
            parts = of_one_width(widths, _TOKENS_PER_PART, threads)
        else:
            widths = lengths
            parts = like_lengths(lengths, _TOKENS_PER_PART)
        if min(threads, len(parts)) > 1:
            with ThreadPoolExecutor(min(threads, len(parts))) as workers:
                list(workers.map(run, reversed(parts)))  # long ones first: all end together
        else:
            for rows in parts:
                run(rows)
        return unit_rows(vectors) if unit else vectors


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes differ from run to run
    options.log_severity_level = 3  # errors
    # Its own operation for a sum and its normalisation takes five times as long as both alone.
    slow = ["SkipLayerNormFusion"]
    try:
        return onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"], disabled_optimizers=slow
        )
    except Exception as error:  # its errors have no class in common
        raise unreadable(file.parent, error) from error
