"""What a bundle holds of its catalogue, whichever step writes it."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.hashing import Hashes, hash_strings
from xcflow.catalogue.profile import Profile
from xcflow.catalogue.string_table import StringTableWriter
from xcflow.serving.bundle import DOCUMENT_HASHES, DOCUMENT_TEXTS, EXAMPLES
from xcflow.training.data import Splits

_ROWS = 20_000
_TEXT_CHARS = 200  # kept of a training document, to be shown beside an answer
_EXAMPLES = 12


def voting_documents(dataset: Dataset) -> NDArray[np.int64]:
    """Rows of the training documents that vote: all that have labels, held out ones too."""
    return np.union1d(dataset.fit_rows, dataset.validation_rows)


def text_hashes(dataset: Dataset, rows: NDArray[np.int64]) -> Hashes:
    """[N] the hash of the whole text of each given training document."""
    blocks = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
    return hash_strings(chain.from_iterable(map(dataset.train.texts.take, blocks)))


def save_catalogue(
    dataset: Dataset, splits: Splits, voting: NDArray[np.int64], folder: Path
) -> None:
    """Write labels, the texts that answers are explained by, examples, and the profile.

    Args:
        dataset: The catalogue.
        splits: Its splits.
        voting: Rows of the documents that vote, in the order of their vectors.
        folder: The bundle.
    """
    (folder / "labels").mkdir()
    dataset.labels.ids.save(folder / "labels" / "ids")
    dataset.labels.texts.save(folder / "labels" / "texts")
    with StringTableWriter(folder / DOCUMENT_TEXTS) as writer:
        for start in range(0, len(voting), _ROWS):
            texts = dataset.train.texts.take(voting[start : start + _ROWS])
            writer.append_strings([text[:_TEXT_CHARS] for text in texts])
    np.save(folder / DOCUMENT_HASHES, text_hashes(dataset, voting))
    examples = json.dumps(_examples(dataset, splits), indent=1)
    (folder / EXAMPLES).write_text(examples + "\n", encoding="utf-8")
    Profile.of(dataset).save(folder)


def _examples(dataset: Dataset, splits: Splits) -> list[str]:
    """Texts to try a model with: validation documents, spread over the split."""
    rows = splits.validation.rows
    chosen = rows[np.linspace(0, len(rows) - 1, min(_EXAMPLES, len(rows))).astype(np.int64)]
    return [text[:_TEXT_CHARS] for text in dataset.train.texts.take(chosen)]
