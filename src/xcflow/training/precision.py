"""The choice of the precision in which a transformer answers, on the validation split alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.encoders.base import Encoder
from xcflow.encoders.frozen import has_transformer, load_frozen
from xcflow.encoders.frozen_transformer import Precision
from xcflow.errors import ConfigError, MissingExtraError
from xcflow.progress import log
from xcflow.ragged import Ragged
from xcflow.training.validation import in_points

MOST_LOST = 0.003  # of P@1, for int8: three tenths of a point
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


class Choice(NamedTuple):
    """The precision that was chosen.

    Attributes:
        precision: Which export answers.
        figures: P@1 on the validation documents, encoded by ``torch`` as the documents that vote
            are, and by each export. The fusion was fitted on the first of them.
        reason: Why.
    """

    precision: Precision
    figures: dict[str, float]
    reason: str


def export_and_choose(
    encoder: Encoder,
    folder: Path,
    tokens: Ragged,
    vectors: NDArray[np.float32],
    precision_at_1: Callable[[NDArray[np.float32]], float],
) -> Choice | None:
    """Write the exports of an encoder's transformers beside it, and choose one to answer.

    Args:
        encoder: The trained encoder.
        folder: Where it was saved.
        tokens: N validation documents.
        vectors: [N, D] what torch makes of them.
        precision_at_1: Measures the model on these documents by their vectors.

    Returns:
        None where torch has to answer (the log says why), or no transformer does.
    """
    if not has_transformer(encoder.settings()):
        return None
    try:
        import onnxruntime  # noqa: F401  # which is to answer

        from xcflow.encoders.onnx_export import export

        export(encoder, folder)
    except ImportError as error:
        log(f"answers will need torch: {MissingExtraError(error.name or 'onnx', 'onnx')}")
        return None
    except ConfigError as error:
        log(f"answers will need torch: {error}")
        return None
    figures, rates = {"torch": precision_at_1(vectors)}, []
    for precision in PRECISIONS:
        frozen = load_frozen(folder, precision)
        started = time.monotonic()
        found = frozen.encode(tokens)
        rates.append(f"{precision} {len(tokens) / (time.monotonic() - started):,.0f}")
        figures[precision] = precision_at_1(found)
    precision, reason = best_precision(figures)
    log(f"precision, texts encoded a second: {'  '.join(rates)}")
    log(f"precision, validation P@1: {in_points(figures)}: taking {precision}, {reason}")
    return Choice(precision, figures, reason)


def best_precision(figures: Mapping[str, float]) -> tuple[Precision, str]:
    """int8 unless it costs too much, and why.

    Args:
        figures: P@1 by ``fp32`` and by ``int8``.
    """
    lost = round(figures["fp32"] - figures["int8"], 9)  # three documents of a thousand are three
    most = f"{100 * MOST_LOST:.1f} points"
    if lost <= MOST_LOST:
        return "int8", f"which loses no more than {most} on fp32"
    return "fp32", f"on which int8 loses more than {most}"
