"""The raw data of the Extreme Classification Repository: one JSON object on each line.

``trn.json`` and ``tst.json`` hold the documents (``uid``, ``title``, ``content``, ``target_ind``:
the rows of their labels, from 0), ``lbl.json`` the labels (``uid``, ``title``, maybe ``content``).
The data sets with titles in their name are made of the titles alone, so the folder's name decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from xcflow.catalogue.formats.finding_files import find, plain_or_gzip, standing
from xcflow.catalogue.formats.json_rows import check_string, named, parsed
from xcflow.catalogue.formats.lines import fault, filled_lines
from xcflow.catalogue.formats.repository_files import FILTERS, filter_rows
from xcflow.catalogue.formats.row_ids import RowIds
from xcflow.catalogue.formats.row_reader import Row, RowReader
from xcflow.catalogue.readers import Fault, Role

NAMES: Mapping[Role, list[str]] = {
    "labels": plain_or_gzip("lbl.json"),
    "train": plain_or_gzip("trn.json"),
    "test": plain_or_gzip("tst.json"),
    "test_filter": FILTERS,
}
TEXT_KEYS = ["title", "content"]


class RepositoryJsonReader(RowReader):
    """Reads the raw data; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files: Mapping[Role, Path] = find(self.folder, NAMES, optional=["test_filter"])
        self._keys = ["title"] if "title" in self.folder.absolute().name.lower() else TEXT_KEYS
        kind = f"repository-json ({' and '.join(self._keys)})"
        self.parts: Mapping[str, Path] = {f"{kind} {k}": v for k, v in self.files.items()}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether one of the files with documents or labels stands there."""
        names = [name for role, names in NAMES.items() if role != "test_filter" for name in names]
        return bool(standing(folder, names))

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        return "trn.json, tst.json and lbl.json (each plain or .gz)"

    def rows(self, role: Role) -> Iterator[Row | Fault]:
        """See ``RowReader.rows``."""
        if role == "test_filter":
            return filter_rows(self.files[role], self._test_ids.of, self._label_ids.of)
        return self._objects(role)

    def _objects(self, role: Role) -> Iterator[Row | Fault]:
        path = self.files[role]
        for index, (number, line) in enumerate(filled_lines(path)):
            try:
                row = _checked(parsed(line))
                labels = [] if role == "labels" else _targets(row)
                text = " ".join(filter(None, (_text(row, key) for key in self._keys)))
                uid = _uid(row)
            except ValueError as error:
                yield fault(path, number, str(error), line)
            else:
                # A label's id must be its own, because documents name it by its row.
                row_id = self._label_ids.of(index) if role == "labels" else uid or str(index)
                yield Row(number, row_id, text, [self._label_ids.of(label) for label in labels])

    @cached_property
    def _label_ids(self) -> RowIds:
        return RowIds(_uids(self.files["labels"]))

    @cached_property
    def _test_ids(self) -> RowIds:
        return RowIds(_uids(self.files["test"]))


def _uids(path: Path) -> Iterator[str]:
    """The uid of each row, empty where there is none."""
    for _, line in filled_lines(path):
        try:
            yield _uid(_checked(parsed(line)))
        except ValueError:  # a fault of the row itself, told when the row is read
            yield ""


def _checked(row: Any) -> dict[str, Any]:
    """Refuse what is no object with a title or content.

    Raises:
        ValueError: With the reason.
    """
    if type(row) is not dict:
        raise ValueError(f"expected an object with uid, title, content, got {named(row)}")
    if not any(key in row for key in TEXT_KEYS):
        raise ValueError("title is missing")
    return row


def _uid(row: Mapping[str, Any]) -> str:
    uid = row.get("uid")
    if type(uid) is int:
        return str(uid)
    uid = "" if uid is None else uid
    check_string("uid", uid)
    return str(uid).strip()


def _text(row: Mapping[str, Any], key: str) -> str:
    text = row.get(key)
    text = "" if text is None else text
    check_string(key, text)
    return str(text)


def _targets(row: Mapping[str, Any]) -> list[int]:
    if "target_ind" not in row:
        raise ValueError("target_ind is missing")
    labels = row["target_ind"]
    if type(labels) is not list:
        raise ValueError(f"target_ind must be a list of label rows, got {named(labels)}")
    for label in labels:
        if type(label) is not int:
            raise ValueError(f"a label row must be an integer, got {named(label)}")
    return labels
