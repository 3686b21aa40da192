"""What is remembered of a catalogue, so that a later one can be held against it.

A bundle carries it along: it outlives the data set, and is at hand wherever the model is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import read_manifest
from xcflow.catalogue import dataset as data
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.hashing import Hashes, hash_strings
from xcflow.catalogue.string_table import StringTable
from xcflow.errors import ArtifactError

FOLDER = "profile"
FACTS = "facts.json"
# The folders of a bundle that hold its profile.
PARTS = ("labels", FOLDER)
# Longer texts count as texts of this length.
MAX_CHARS = 4095
_CHUNK = 20_000


@dataclass(frozen=True, eq=False)
class Profile:
    """A catalogue in a few bytes for each label and document.

    Attributes:
        catalogue: The catalogue's digest.
        label_ids: The id of each of ``L`` labels.
        label_texts: The text of each.
        label_counts: [L] training documents of each.
        document_ids: Hash of each document's id, training and test, sorted, each once.
        document_lengths: [MAX_CHARS + 1] how many documents have that many characters.
        label_lengths: The same of label texts.
        tokens: Tokens of all texts.
        unknown_tokens: How many of them the tokenizer has no entry for.
    """

    catalogue: str
    label_ids: StringTable
    label_texts: StringTable
    label_counts: NDArray[np.int64]
    document_ids: Hashes
    document_lengths: NDArray[np.int64]
    label_lengths: NDArray[np.int64]
    tokens: int
    unknown_tokens: int

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The profile of a data set."""
        train, test = dataset.train, dataset.test
        meta = dataset.manifest.meta
        return cls(
            catalogue=meta["catalogue_digest"],
            label_ids=dataset.labels.ids,
            label_texts=dataset.labels.texts,
            label_counts=dataset.label_counts(),
            document_ids=np.union1d(hashes_of(train.ids), hashes_of(test.ids)),
            document_lengths=lengths_of(train.texts) + lengths_of(test.texts),
            label_lengths=lengths_of(dataset.labels.texts),
            tokens=meta["tokens"],
            unknown_tokens=round(meta["unknown_tokens_share"] * meta["tokens"]),
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The profile of the catalogue that a data set or a bundle is of.

        Raises:
            ArtifactError: It is neither, not whole, or a bundle without a profile.
        """
        if read_manifest(folder).kind == data.KIND:
            return cls.of(Dataset.open(folder))
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The profile in a bundle, of which only ``PARTS`` need be there.

        Raises:
            ArtifactError: It has none.
        """
        try:
            facts: dict[str, Any] = json.loads((folder / FOLDER / FACTS).read_text())
        except OSError:
            reason = "holds no profile of a catalogue: give a data set or a model's bundle"
            raise ArtifactError(f"{folder}: {reason}") from None
        arrays = {
            name: np.load(folder / FOLDER / f"{name}.npy", allow_pickle=False)
            for name in ("label_counts", "document_ids", "document_lengths", "label_lengths")
        }
        return cls(
            label_ids=StringTable.load(folder / "labels" / "ids"),
            label_texts=StringTable.load(folder / "labels" / "texts"),
            **facts,
            **arrays,
        )

    def save(self, folder: Path) -> None:
        """Write what a bundle does not hold anyway, its labels."""
        place = folder / FOLDER
        place.mkdir()
        np.save(place / "label_counts.npy", self.label_counts)
        np.save(place / "document_ids.npy", self.document_ids)
        np.save(place / "document_lengths.npy", self.document_lengths)
        np.save(place / "label_lengths.npy", self.label_lengths)
        facts = {
            "catalogue": self.catalogue,
            "tokens": self.tokens,
            "unknown_tokens": self.unknown_tokens,
        }
        (place / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def hashes_of(table: StringTable) -> Hashes:
    """[N] the hash of each string."""
    return hash_strings(chain.from_iterable(table.chunks(_CHUNK)))


def lengths_of(table: StringTable) -> NDArray[np.int64]:
    """[MAX_CHARS + 1] how many strings have that many characters; the last one takes the rest."""
    counts = np.bincount(np.minimum(table.char_counts(), MAX_CHARS), minlength=MAX_CHARS + 1)
    return counts.astype(np.int64, copy=False)
