"""The canonical data set on disk: string tables, ragged token and label rows, splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import Manifest, read_manifest
from xcflow.catalogue.string_table import StringTable
from xcflow.ragged import Ragged

KIND = "dataset"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Labels:
    """The ``L`` labels in the order of the catalogue; a label's row is its number everywhere.

    Attributes:
        ids: The stable id of each label.
        texts: The text of each label (its id where the catalogue gives none).
        tokens: Token ids of each text, without special tokens, never an empty row.
    """

    ids: StringTable
    texts: StringTable
    tokens: Ragged

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the part of a data set folder that holds the labels."""
        return cls(
            StringTable.load(folder / "ids"),
            StringTable.load(folder / "texts"),
            Ragged.load(folder / "tokens"),
        )


@dataclass(frozen=True, eq=False)
class Documents:
    """The ``N`` documents of a split in the order of the catalogue.

    Attributes:
        ids: The id of each document.
        texts: The text of each document.
        tokens: Token ids of each text, without special tokens, never an empty row.
        labels: int32 label rows of each document, sorted, each once; a row may be empty.
    """

    ids: StringTable
    texts: StringTable
    tokens: Ragged
    labels: Ragged

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open the part of a data set folder that holds a split."""
        return cls(
            StringTable.load(folder / "ids"),
            StringTable.load(folder / "texts"),
            Ragged.load(folder / "tokens"),
            Ragged.load(folder / "labels"),
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A validated catalogue, tokenised and split; everything large is memory-mapped.

    Attributes:
        path: The folder.
        manifest: Its description; ``meta`` has the sizes, the tokenizer, the catalogue's digest.
        labels: The labels.
        train: All training documents, used or not.
        test: The frozen test documents.
        test_filter: int32 label rows to leave out of each test document's predictions and truth.
        fit_rows: int64 rows of ``train`` to learn from, sorted: they have a text and a label.
        validation_rows: int64 rows of ``train`` held out for every choice, sorted, never empty.
            They share no row with ``fit_rows``, unless there is but one usable document.
        tokenizer_file: The tokenizer that made the token ids.
    """

    path: Path
    manifest: Manifest
    labels: Labels
    train: Documents
    test: Documents
    test_filter: Ragged
    fit_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    tokenizer_file: Path

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Self:
        """Open a data set folder.

        Args:
            path: What the step ``validate_data`` wrote.
            verify: Whether the sha256 of each file is checked too.

        Raises:
            ArtifactError: It is not a complete data set of this layout.
        """
        path = Path(path)
        return cls(
            path=path,
            manifest=read_manifest(path, KIND, verify=verify),
            labels=Labels.load(path / "labels"),
            train=Documents.load(path / "train"),
            test=Documents.load(path / "test"),
            test_filter=Ragged.load(path / "test" / "filter"),
            fit_rows=np.load(path / "split" / "fit_rows.npy", allow_pickle=False),
            validation_rows=np.load(path / "split" / "validation_rows.npy", allow_pickle=False),
            tokenizer_file=path / TOKENIZER,
        )

    def label_counts(self, rows: NDArray[np.integer[Any]] | None = None) -> NDArray[np.int64]:
        """[L] number of training documents of each label.

        Args:
            rows: Rows of ``train`` to count in; all of them by default.
        """
        labels = self.train.labels if rows is None else self.train.labels.take(rows)
        return labels.counts(len(self.labels))
