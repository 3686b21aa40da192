"""Which labels the rows of a split have: ``trn_X_Y.txt`` or ``Y.trn.npz`` (``tst`` likewise)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from xcflow.catalogue.formats.csr_file import CsrFile
from xcflow.catalogue.formats.finding_files import find, plain_or_gzip
from xcflow.catalogue.formats.repository_files import Side
from xcflow.catalogue.formats.sparse_text import SparseText
from xcflow.catalogue.readers import Fault

TRAIN, TEST = "train labels", "test labels"
NAMES = {
    TRAIN: [*plain_or_gzip("trn_X_Y.txt"), "Y.trn.npz"],
    TEST: [*plain_or_gzip("tst_X_Y.txt"), "Y.tst.npz"],
}


def find_matrices(folder: Path) -> dict[str, Path]:
    """The label matrices of both splits.

    Raises:
        DataError: One is missing, or stands there twice.
    """
    return find(folder, NAMES)


class LabelMatrix:
    """One file of either kind.

    Attributes:
        path: The file.
        documents: Its rows, as it says itself.
        labels: Its columns, as it says itself.
        said: The latter in words.
    """

    def __init__(self, path: Path) -> None:
        """Read the sizes.

        Raises:
            DataError: The file cannot be read.
        """
        self.path = path
        self._matrix = CsrFile(path) if path.suffix == ".npz" else SparseText(path, "labels")
        matrix = self._matrix
        self.documents, self.labels = matrix.shape if isinstance(matrix, CsrFile) else matrix.sizes
        self.said = f"{path.name} says {self.labels:,} labels"

    def side(self) -> Side[Sequence[int]]:
        """Its rows, to be read beside those of the texts."""
        rows: Iterator[tuple[int, Sequence[int] | Fault]] = self._matrix.columns()
        return Side(self.path, rows, self.documents)
