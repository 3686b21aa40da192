"""Texts, one on each line, with label matrices beside them.

``trn_X.txt`` and ``tst_X.txt`` hold the documents, ``Y.txt`` (or ``lbl_X.txt``) the labels, and
``trn_X_Y.txt`` or ``Y.trn.npz`` (``tst`` likewise) which document has which label. Ids are the
numbers of the rows, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xcflow.catalogue.formats.finding_files import find, plain_or_gzip, standing
from xcflow.catalogue.formats.label_matrix import TEST, TRAIN, LabelMatrix, find_matrices
from xcflow.catalogue.formats.repository_files import (
    FILTERS,
    LABEL_TEXTS,
    Side,
    documents,
    filter_rows,
    numbered_labels,
    texts,
)
from xcflow.catalogue.formats.row_reader import Row, RowReader
from xcflow.catalogue.readers import Fault, Role

NAMES: Mapping[Role, list[str]] = {
    "labels": LABEL_TEXTS,
    "train": plain_or_gzip("trn_X.txt"),
    "test": plain_or_gzip("tst_X.txt"),
    "test_filter": FILTERS,
}


class RepositoryTextReader(RowReader):
    """Reads texts and label matrices; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files: Mapping[Role, Path] = find(self.folder, NAMES, optional=["test_filter"])
        self._matrices = find_matrices(self.folder)
        parts = [*self.files.items(), *self._matrices.items()]
        self.parts: Mapping[str, Path] = {f"repository-text {name}": path for name, path in parts}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the texts of one of the splits stand there."""
        return bool(standing(folder, [*NAMES["train"], *NAMES["test"]]))

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        return "trn_X.txt, tst_X.txt and Y.txt with trn_X_Y.txt and tst_X_Y.txt (or Y.*.npz)"

    def rows(self, role: Role) -> Iterator[Row | Fault]:
        """See ``RowReader.rows``."""
        path = self.files[role]
        if role == "test_filter":
            return filter_rows(path, str, str)
        matrix = LabelMatrix(self._matrices[TEST if role == "test" else TRAIN])
        if role == "labels":
            return numbered_labels(texts(path), path, matrix.labels, matrix.said)
        return documents(Side(path, texts(path)), matrix.side())
