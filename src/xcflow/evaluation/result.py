"""The folder that an evaluation writes: figures, and the terms of each document behind them.

    metrics.json              all figures; the same bytes for the same model, data and settings
    timings.json              what differs from machine to machine
    report.html               the same for people
    labels/                   ids, texts and training documents of all labels, and the rows of
                              those that the candidate alone knows, if it and the champion differ
    shared/per_document/      candidate and champion on the labels that both know, if they differ
    per_document/             ids, excerpts, true labels, and the truth's terms
    per_document/<model>/     the model's terms and its best predictions

Documents without a true label left are not among the documents here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from xcflow.artifact import Manifest, read_manifest
from xcflow.catalogue.string_table import StringTable
from xcflow.errors import ArtifactError
from xcflow.evaluation.metrics import RankingPart, TruthPart
from xcflow.evaluation.ratios import KINDS, MetricName, Ratio, ratio
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK

KIND = "evaluation"
CANDIDATE = "fused"
CHAMPION = "champion"
BASELINES = ("baseline_tfidf", "baseline_untrained")
SHARED = "shared"
ENCODER = "encoder"
WITHOUT_AUXILIARY = "encoder_without_auxiliary"

METRICS = "metrics.json"
TIMINGS = "timings.json"
REPORT = "report.html"
LABEL_IDS = "labels/ids"
LABEL_TEXTS = "labels/texts"
LABEL_COUNTS = "labels/counts.npy"
LABELS_ALONE = "labels/candidate_alone.npy"
DOCUMENT_IDS = "per_document/ids"
EXCERPTS = "per_document/excerpts"
TRUTH = "per_document/truth"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A finished evaluation; arrays are memory-mapped.

    Attributes:
        path: The folder.
        digest: The identity of its content.
        metrics: The content of ``metrics.json``.
        timings: The content of ``timings.json``.
    """

    path: Path
    digest: str
    metrics: Mapping[str, Any]
    timings: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an evaluation's folder.

        Raises:
            ArtifactError: It is not a complete evaluation.
        """
        manifest: Manifest = read_manifest(path, KIND)
        return cls.load(path, manifest.digest)

    @classmethod
    def load(cls, path: Path, digest: str = "") -> Self:
        """Read a folder that has no manifest yet."""
        path = Path(path)
        return cls(path, digest, _read_json(path / METRICS), _read_json(path / TIMINGS))

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that were measured."""
        return tuple(self.metrics["models"])

    @property
    def ks(self) -> tuple[int, ...]:
        """The depths of the metrics."""
        return tuple(self.metrics["ks"])

    @property
    def documents(self) -> int:
        """Number of documents that were measured."""
        return int(self.metrics["counts"]["documents"])

    def metric_names(self) -> list[str]:
        """Names of all metrics, without slices."""
        return [str(MetricName(kind, k)) for kind in KINDS for k in self.ks]

    def shared(self) -> Self:
        """Candidate and champion on the labels that both know; itself where these are all."""
        figures = self.metrics["shared"]
        if not figures:
            return self
        return replace(self, path=self.path / SHARED, metrics={**self.metrics, **figures})

    def ratio(self, model: str, metric: str) -> Ratio:
        """The two terms of each document.

        Args:
            model: One of ``models``.
            metric: A name as in ``P@5`` or ``R@10/tail``.

        Raises:
            ArtifactError: The model or the depth was not measured.
        """
        name = MetricName.parse(metric)
        for what, value, known in (("model", model, self.models), ("k", name.k, self.ks)):
            if value not in known:
                listed = ", ".join(map(str, known))
                raise ArtifactError(f"{self.path}: {what} {value} was not measured, only {listed}")
        return ratio(read_truth(self.path), read_ranking(self.path, model), name, self.ks)

    def document_ids(self) -> StringTable:
        """[N] ids of the documents."""
        return StringTable.load(self.path / DOCUMENT_IDS)

    def excerpts(self) -> StringTable:
        """[N] how the documents' texts begin."""
        return StringTable.load(self.path / EXCERPTS)

    def truth(self) -> Ragged:
        """[N] rows of true labels, without filtered pairs."""
        return Ragged.load(self.path / TRUTH)

    def predictions(self, model: str) -> TopK:
        """The best few predictions of a model for each document."""
        return read_predictions(self.path, model)

    def label_ids(self) -> StringTable:
        """[L] ids of the labels that ``truth`` and ``predictions`` name by row."""
        return StringTable.load(self.path / LABEL_IDS)

    def label_texts(self) -> StringTable:
        """[L] texts of the labels."""
        return StringTable.load(self.path / LABEL_TEXTS)

    def label_counts(self) -> NDArray[np.int64]:
        """[L] number of training documents of each label."""
        path = self.path / LABEL_COUNTS
        counts: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
        return counts


class DocumentWriter:
    """Fills the arrays of an evaluation block by block; none is in memory as a whole.

    Args:
        folder: The evaluation's folder.
        documents: Number of documents ``N``.
        kept: Predictions to keep of each document.
    """

    def __init__(self, folder: Path, documents: int, kept: int) -> None:
        self._folder = folder
        self._documents = documents
        self._kept = kept
        self._open: dict[Path, np.memmap[Any, Any]] = {}

    def add_truth(self, start: int, part: TruthPart) -> None:
        """Write the truth's part of the documents from row ``start`` on."""
        for name, block in part._asdict().items():
            self._write(_file(self._folder, "", name), start, block)

    def add_ranking(self, model: str, start: int, part: RankingPart, top: TopK) -> None:
        """Write a model's part of the documents from row ``start`` on."""
        kept = top.keep(top.labels != NO_LABEL, self._kept)
        for name, block in (part._asdict() | kept._asdict()).items():
            self._write(_file(self._folder, model, name), start, block)

    def close(self) -> None:
        """Bring everything to disk."""
        for array in self._open.values():
            array.flush()
        self._open.clear()

    def _write(self, path: Path, start: int, block: NDArray[Any]) -> None:
        if path not in self._open:
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (self._documents, *block.shape[1:])
            self._open[path] = open_memmap(path, mode="w+", dtype=block.dtype, shape=shape)
            with path.open("r+b") as file:  # on a full disk the map's pages would kill the process
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self._open[path][start : start + len(block)] = block


def read_truth(folder: Path) -> TruthPart:
    """The truth's part of all documents, memory-mapped."""
    return TruthPart(*(_load(folder, "", name) for name in TruthPart._fields))


def read_ranking(folder: Path, model: str) -> RankingPart:
    """A model's part of all documents, memory-mapped."""
    return RankingPart(*(_load(folder, model, name) for name in RankingPart._fields))


def read_predictions(folder: Path, model: str) -> TopK:
    """The best few predictions of a model for all documents, memory-mapped."""
    return TopK(_load(folder, model, "labels"), _load(folder, model, "scores"))


def _file(folder: Path, model: str, name: str) -> Path:
    return folder / "per_document" / model / f"{name}.npy"


def _load(folder: Path, model: str, name: str) -> Any:
    return np.load(_file(folder, model, name), mmap_mode="r", allow_pickle=False)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    return tree
