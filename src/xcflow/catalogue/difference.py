"""What of a catalogue is new beside the accepted one, as far as it is known before it is read.

Labels and documents are matched by their ids, as in ``drift``, which tells more once the
documents were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.contents import LabelTable
from xcflow.catalogue.hashing import Hashes
from xcflow.catalogue.matching import match_labels
from xcflow.catalogue.outline import Outline, documents_of, labels_of
from xcflow.catalogue.profile import Profile
from xcflow.catalogue.readers import EXCERPT_CHARS
from xcflow.config import DataConfig

EXAMPLES = 3


@dataclass(frozen=True)
class Change:
    """Some labels that changed in the same way.

    Attributes:
        count: How many.
        examples: A few of them in words, in the order of their catalogue.
    """

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LabelChanges:
    """What became of the labels.

    Attributes:
        before: Labels of the accepted catalogue.
        now: Labels of the new one.
        added: Labels whose ids the accepted one lacks.
        removed: Labels whose ids the new one lacks.
        renamed: Labels with another text.
    """

    before: int
    now: int
    added: Change
    removed: Change
    renamed: Change


@dataclass(frozen=True)
class DocumentChanges:
    """What became of the documents, training and test.

    Attributes:
        before: Documents of the accepted catalogue.
        now: Documents of the new one.
        added: How many were added; without their ids at least how many.
        removed: How many were removed; without their ids at least how many.
        exact: Whether the ids are known.
    """

    before: int
    now: int
    added: int
    removed: int
    exact: bool


@dataclass(frozen=True)
class Difference:
    """A new catalogue beside the accepted one.

    Attributes:
        labels: What became of the labels, None where that is not known.
        documents: What became of the documents, None where that is not known.
        unknown: What is not known, and why, in sentences.
    """

    labels: LabelChanges | None
    documents: DocumentChanges | None
    unknown: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The whole in sentences, one for each kind of change."""
        labels = _label_sentences(self.labels) if self.labels else ()
        documents = _document_sentences(self.documents) if self.documents else ()
        return (*labels, *documents, *self.unknown)


def find_difference(accepted: Profile, outline: Outline, config: DataConfig) -> Difference:
    """Compare a catalogue from outside with the accepted one.

    Args:
        accepted: The profile of the accepted catalogue.
        outline: The new catalogue.
        config: How it is read.

    Raises:
        DataError: A file cannot be read.
        StorageError: It cannot be fetched.
    """
    unknown = []
    before = LabelTable(accepted.label_ids, accepted.label_texts)
    with TemporaryDirectory() as scratch:
        found = labels_of(outline, config, Path(scratch))
        if isinstance(found, str):
            unknown.append(f"labels: not known before the data are read: {found}")
            labels = None
        else:
            labels = label_changes(before, found)
    documents = documents_of(outline, config)
    if isinstance(documents, str):
        unknown.append(f"documents: not known before the data are read: {documents}")
        return Difference(labels, None, tuple(unknown))
    return Difference(labels, _document_changes(accepted.document_ids, documents), tuple(unknown))


def label_changes(before: LabelTable, now: LabelTable) -> LabelChanges:
    """Match the labels of two catalogues by their ids."""
    match = match_labels(before, now)
    was = before.texts.take(match.old_rows[match.renamed[:EXAMPLES]])
    remarks = [f", was {_quoted(text)}" for text in was]
    return LabelChanges(
        len(before.ids),
        len(now.ids),
        added=_change(now, match.added),
        removed=_change(before, match.removed),
        renamed=_change(now, match.renamed, remarks),
    )


def _document_changes(before: Hashes, now: Hashes | int) -> DocumentChanges:
    if isinstance(now, int):
        more = now - len(before)
        return DocumentChanges(len(before), now, max(more, 0), max(-more, 0), exact=False)
    kept = len(np.intersect1d(before, now, assume_unique=True))
    return DocumentChanges(len(before), len(now), len(now) - kept, len(before) - kept, exact=True)


def _change(
    labels: LabelTable, rows: NDArray[np.int64], remarks: list[str] | None = None
) -> Change:
    shown = rows[:EXAMPLES]
    columns = labels.ids.take(shown), labels.texts.take(shown), remarks or [""] * len(shown)
    examples = (f"{i} {_quoted(text)}{remark}" for i, text, remark in zip(*columns, strict=True))
    return Change(len(rows), tuple(examples))


def _quoted(text: str) -> str:
    return f'"{" ".join(text.split())[:EXCERPT_CHARS]}"'


def _label_sentences(labels: LabelChanges) -> tuple[str, ...]:
    changes = {"added": labels.added, "removed": labels.removed, "renamed": labels.renamed}
    told = (
        f"{change.count:,} {name} (such as {'; '.join(change.examples)})"
        for name, change in changes.items()
        if change.count
    )
    sizes = f"labels: {labels.now:,}, {labels.before:,} in the accepted catalogue"
    return (sizes, *(f"labels: {sentence}" for sentence in told))


def _document_sentences(documents: DocumentChanges) -> tuple[str, ...]:
    sizes = f"documents: {documents.now:,}, {documents.before:,} in the accepted catalogue"
    atleast = "" if documents.exact else "at least "
    changes = {"added": documents.added, "removed": documents.removed}
    told = (f"documents: {atleast}{n:,} {name}" for name, n in changes.items() if n)
    return (sizes, *told)
