"""Sparse bags of words with the vocabulary that they were made with.

The files are ``trn_X_Xf.txt``, ``tst_X_Xf.txt`` and ``lbl_X_Xf.txt`` (or ``Yf.txt``) with label
matrices beside them; or, older, ``train.txt`` and ``test.txt``, whose header is ``rows features
labels`` and whose rows are ``label,label feature:value ...``. ``Xf.txt`` says which word a feature
is. A text is the row's words in the order of falling values, for the encoders read texts. Where
nothing stands for the labels they are as many as the header says, and their ids are their texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from xcflow.catalogue.formats.finding_files import find, plain_or_gzip, standing
from xcflow.catalogue.formats.label_matrix import TEST, TRAIN, LabelMatrix, find_matrices
from xcflow.catalogue.formats.lines import decoded, each, lines
from xcflow.catalogue.formats.repository_files import (
    FILTERS,
    LABEL_TEXTS,
    Side,
    documents,
    filter_rows,
    index,
    misstated,
    numbered_labels,
    texts,
)
from xcflow.catalogue.formats.repository_text import RepositoryTextReader
from xcflow.catalogue.formats.row_reader import Row, RowReader
from xcflow.catalogue.formats.sparse_text import Entries, SparseText, entries
from xcflow.catalogue.readers import Fault, Role
from xcflow.errors import DataError

VOCABULARY = plain_or_gzip("Xf.txt")
LABEL_FEATURES = plain_or_gzip("lbl_X_Xf.txt", "Yf.txt")
SPLITS: Mapping[Role, list[str]] = {
    "train": plain_or_gzip("trn_X_Xf.txt"),
    "test": plain_or_gzip("tst_X_Xf.txt"),
}
OLD_SPLITS: Mapping[Role, list[str]] = {
    "train": plain_or_gzip("train.txt"),
    "test": plain_or_gzip("test.txt"),
}


class RepositoryBowReader(RowReader):
    """Reads bags of words; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._is_old = not any(standing(self.folder, names) for names in SPLITS.values())
        optional: dict[Role, list[str]] = {
            # Texts tell more than features, where both stand there.
            "labels": LABEL_TEXTS if standing(self.folder, LABEL_TEXTS) else LABEL_FEATURES,
            "test_filter": FILTERS,
        }
        names = {**(OLD_SPLITS if self._is_old else SPLITS), **optional}
        files = find(self.folder, names, optional=optional)
        if not standing(self.folder, VOCABULARY):
            reason = (
                "holds bags of words without the words: add the texts (trn_X.txt, tst_X.txt, "
                "Y.txt) or the vocabulary (Xf.txt)"
            )
            raise DataError(reason, self.folder)
        self._matrices = {} if self._is_old else find_matrices(self.folder)
        self._vocabulary = find(self.folder, {"vocabulary": VOCABULARY})["vocabulary"]
        labelled = files["train"] if self._is_old else self._matrices[TRAIN]
        self.files: Mapping[Role, Path] = {"labels": labelled, **files}
        others = {**self._matrices, "vocabulary": self._vocabulary}
        parts = [*self.files.items(), *others.items()]
        self.parts: Mapping[str, Path] = {f"repository-bow {name}": path for name, path in parts}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the bags of words of one of the splits stand there, and no texts."""
        names = [*SPLITS.values(), *OLD_SPLITS.values()]
        has_bags = any(standing(folder, wanted) for wanted in names)
        return has_bags and not RepositoryTextReader.recognises(folder)

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        return "trn_X_Xf.txt, tst_X_Xf.txt and Xf.txt with trn_X_Y.txt and tst_X_Y.txt"

    def rows(self, role: Role) -> Iterator[Row | Fault]:
        """See ``RowReader.rows``."""
        path = self.files[role]
        if role == "test_filter":
            return filter_rows(path, str, str)
        if role == "labels":
            return self._labels(path)
        if self._is_old:
            return self._old_documents(path)
        matrix = LabelMatrix(self._matrices[TEST if role == "test" else TRAIN])
        bags = SparseText(path, "features")
        return documents(Side(path, self._texts(bags), bags.sizes[0]), matrix.side())

    def _labels(self, path: Path) -> Iterator[Row | Fault]:
        rows: Iterable[tuple[int, str | Fault]]
        if self._is_old:
            size = SparseText(self.files["train"], "features", "labels").sizes[2]
            said = f"{self.files['train'].name} says {size:,} labels"
        else:
            matrix = LabelMatrix(self._matrices[TRAIN])
            size, said = matrix.labels, matrix.said
        if path.name in LABEL_TEXTS:
            rows = texts(path)
        elif path.name in LABEL_FEATURES:
            rows = self._texts(SparseText(path, "features"))
        else:
            rows = ((1, "") for _ in range(size))
        return numbered_labels(rows, path, size, said)

    def _old_documents(self, path: Path) -> Iterator[Row | Fault]:
        file = SparseText(path, "features", "labels")
        size = 0
        for document, (number, row) in enumerate(each(path, file.lines(), self._old_row)):
            if isinstance(row, Fault):
                yield row
            else:
                text, labels = row
                yield Row(number, str(document), text, labels)
            size = document + 1
        yield from misstated(path, file.sizes[0], size)

    def _old_row(self, line: bytes) -> tuple[str, list[str]]:
        """The words and the labels of a row.

        Raises:
            ValueError: With the reason in a few words.
        """
        # A row that starts with a space has no labels.
        first, _, rest = line.partition(b" ")
        if b":" in first:
            first, rest = b"", line
        labels = [str(index(label)) for label in first.split(b",") if label]
        return self._text(entries(rest)), labels

    def _texts(self, bags: SparseText) -> Iterator[tuple[int, str | Fault]]:
        return each(bags.path, bags.lines(), lambda line: self._text(entries(line)))

    def _text(self, bag: Entries) -> str:
        """The words of a row.

        Raises:
            ValueError: A feature has no word.
        """
        words = self._words
        for feature, _ in bag:
            if not 0 <= feature < len(words):
                known = f"{self._vocabulary.name} has {len(words):,}"
                raise ValueError(f"feature {feature} has no word: {known} (from 0)")
        by_value = sorted(bag, key=lambda entry: -entry[1])
        return " ".join(words[feature] for feature, _ in by_value if words[feature])

    @cached_property
    def _words(self) -> Sequence[str]:
        words = []
        for number, line in lines(self._vocabulary):
            try:
                words.append(decoded(line).strip())
            except ValueError as error:
                raise DataError(str(error), self._vocabulary, number) from None
        return words
