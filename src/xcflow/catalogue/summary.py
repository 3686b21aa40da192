"""What a catalogue looks like in figures: sizes, lengths, frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.ingest import Facts, TokenFacts
from xcflow.catalogue.readers import Role
from xcflow.ragged import Ragged

PERCENTILES = (50, 95, 99)
MAX_BARS = 24


@dataclass(frozen=True)
class Histogram:
    """Counts of values in consecutive ranges.

    Attributes:
        title: What is counted.
        ranges: Name of each range.
        counts: Values in each range.
    """

    title: str
    ranges: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """The figures of a data set.

    Attributes:
        sizes: Name -> number, plain JSON values.
        histograms: Label frequency and text length.
    """

    sizes: Mapping[str, Any]
    histograms: tuple[Histogram, ...]


def summarise(
    folder: Path, facts: Mapping[Role, Facts], tokens: Mapping[Role, TokenFacts], limit: int
) -> Summary:
    """The figures of a data set folder that is complete but for its reports.

    Args:
        folder: The folder.
        facts: What was seen while reading.
        tokens: What tokenising showed.
        limit: Tokens that are kept of a document.
    """
    pairs = {role: Ragged.load(folder / role / "labels") for role in ("train", "test")}
    frequency = pairs["train"].counts(len(facts["labels"]))
    documents = tokens["train"].lengths
    all_tokens = sum(int(t.lengths.sum()) for t in tokens.values())
    rows = {name: _rows(folder / "split" / f"{name}_rows.npy") for name in ("fit", "validation")}
    sizes = {
        "labels": len(facts["labels"]),
        "train_documents": len(facts["train"]),
        "test_documents": len(facts["test"]),
        "fit_documents": rows["fit"],
        "validation_documents": rows["validation"],
        "train_pairs": len(pairs["train"].data),
        "test_pairs": len(pairs["test"].data),
        "filter_pairs": len(Ragged.load(folder / "test" / "filter").data),
        "labels_per_document": _mean(pairs["train"].lengths),
        "documents_per_label": _mean(frequency),
        "documents_per_label_median": float(np.median(frequency)),
        "cold_labels": int((frequency == 0).sum()),
        "document_tokens": _percentiles(documents),
        "label_tokens": _percentiles(tokens["labels"].lengths),
        "tokens": all_tokens,
        "cut_documents_share": _mean(documents > limit),
        "unknown_tokens_share": sum(t.unknown for t in tokens.values()) / max(all_tokens, 1),
    }
    by_frequency = by_doubling("Labels by number of training documents", frequency)
    return Summary(sizes, (by_frequency, text_lengths(documents)))


def by_doubling(title: str, values: NDArray[np.integer[Any]]) -> Histogram:
    """Values of at least 0 in ranges that double: 0, 1, 2-3, 4-7 ..."""
    exponent = np.frexp(values)[1]  # 0 for 0, else 1 + floor(log2)
    counts = np.bincount(exponent)
    bounds = [(2 ** (e - 1), 2**e - 1) for e in range(1, len(counts))]
    ranges = ("0", *(f"{a}" if a == b else f"{a:,}–{b:,}" for a, b in bounds))
    return Histogram(title, ranges, tuple(counts.tolist()))


def text_lengths(tokens: NDArray[np.int32]) -> Histogram:
    """Training documents by number of tokens; the last range takes the longest hundredth."""
    top = int(np.percentile(tokens, 99)) if len(tokens) else 0
    width = top // MAX_BARS + 1
    bars = top // width + 1
    counts = np.bincount(np.minimum(tokens // width, bars - 1), minlength=bars)
    starts = [i * width for i in range(bars)]
    ranges = [str(a) if width == 1 else f"{a}–{a + width - 1}" for a in starts[:-1]]
    ranges.append(f"{starts[-1]}+")
    title = "Training documents by number of tokens"
    return Histogram(title, tuple(ranges), tuple(counts.tolist()))


def _rows(path: Path) -> int:
    return len(np.load(path, mmap_mode="r", allow_pickle=False))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _percentiles(lengths: NDArray[np.int32]) -> dict[str, float]:
    if not len(lengths):
        return {}
    values = np.percentile(lengths, PERCENTILES).tolist()
    named = {f"p{p}": round(v, 1) for p, v in zip(PERCENTILES, values, strict=True)}
    return {"mean": round(_mean(lengths), 1), **named, "max": int(lengths.max())}
