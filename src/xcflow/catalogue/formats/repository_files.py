"""What the formats of the Extreme Classification Repository share: rows without ids, and filters.

There, labels and documents are numbered from 0 by their place in a file. Files that belong
together are read side by side; where their lengths do not fit, rows after some place would get the
labels of others, so the catalogue is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from xcflow.catalogue.formats.finding_files import plain_or_gzip
from xcflow.catalogue.formats.lines import decoded, each, filled_lines, lines
from xcflow.catalogue.formats.row_reader import Row
from xcflow.catalogue.readers import Fault, Misstatement
from xcflow.errors import DataError

T = TypeVar("T")

LABEL_TEXTS = plain_or_gzip("Y.txt", "lbl_X.txt")
# The last is a slip in a README that others copied their files' names from.
FILTERS = plain_or_gzip("filter_labels_test.txt", "tst_filter_labels.txt", "filter_labels_text.txt")


class Side(NamedTuple, Generic[T]):
    """One of the files whose n-th rows belong together.

    Attributes:
        path: The file.
        rows: Line and value of each row; the value is empty where the row is.
        stated: The number of rows by the file's header, where it has one.
    """

    path: Path
    rows: Iterable[tuple[int, T | Fault]]
    stated: int | None = None


def texts(path: Path) -> Iterator[tuple[int, str | Fault]]:
    """Line and text of each row of a file with one text a line; a blank line is a row too."""
    return each(path, lines(path), decoded)


def without_blank_end(rows: Iterable[tuple[int, T]], size: int) -> Iterator[tuple[int, T]]:
    """The rows, without blank ones that stand behind the first ``size`` at the end."""
    blank: list[tuple[int, T]] = []
    for row, item in enumerate(rows):
        if row >= size and is_blank(item[1]):
            blank.append(item)
        else:
            yield from blank
            blank.clear()
            yield item


def numbered_labels(
    rows: Iterable[tuple[int, str | Fault]], path: Path, size: int, said: str
) -> Iterator[Row | Fault]:
    """Labels whose ids are the numbers of their rows.

    Args:
        rows: Line and text of each.
        path: Their file.
        size: How many there should be. Another number is a fault: a text with a line break inside
            would give every later label the number of another.
        said: Where that is written, and what.
    """
    found = 0
    for label, (number, text) in enumerate(without_blank_end(rows, size)):
        yield text if isinstance(text, Fault) else Row(number, str(label), text, [])
        found = label + 1
    if found != size:
        yield Fault(path.name, 1, f"{said}, there are {found:,}")


def documents(texts: Side[str], labels: Side[Sequence[int]]) -> Iterator[Row | Fault]:
    """Documents whose texts stand in one file and whose labels in another.

    Blank rows at the end of one file are no rows where the other has ended. A header with another
    number of rows is a misstatement.

    Raises:
        DataError: One file has more rows than the other.
    """
    text_rows, rows_of_labels = iter(texts.rows), iter(labels.rows)
    for document in count():
        text, found = next(text_rows, None), next(rows_of_labels, None)
        if text is None or found is None:
            break
        yield _document(document, text, found)
    size = document
    # An empty last row without a line end is not there; the header tells whether it was meant.
    is_one_more = labels.stated == size + 1
    if text is not None:
        rest = _rest(text, text_rows)
        if rest > is_one_more:
            raise _unequal(texts.path, size + rest, labels.path, size)
        found = (text[0], ())
    elif found is not None:
        if rest := _rest(found, rows_of_labels):
            raise _unequal(labels.path, size + rest, texts.path, size)
        text = (found[0], "")
    if is_one_more and text is not None and found is not None:
        yield _document(size, text, found)
        size += 1
    for side in (texts, labels):
        yield from misstated(side.path, side.stated, size)


def misstated(path: Path, stated: int | None, size: int) -> Iterator[Misstatement]:
    """A misstatement where a header says another number of rows than there are."""
    if stated not in (None, size):
        yield Misstatement(path.name, 1, f"the header says {stated:,} rows, there are {size:,}")


def filter_rows(
    path: Path, document_id: Callable[[int], str], label_id: Callable[[int], str]
) -> Iterator[Row | Fault]:
    """The pairs of a filter: on each line the row of a document and the row of a label."""
    for number, pair in each(path, filled_lines(path), _filter_pair):
        if isinstance(pair, Fault):
            yield pair
        else:
            document, label = pair
            yield Row(number, document_id(document), "", [label_id(label)])


def index(text: bytes) -> int:
    """The integer that a text is.

    Raises:
        ValueError: It is something else; ``int`` alone takes underscores and spaces too.
    """
    if not text.removeprefix(b"-").isdigit():
        shown = text[:20].decode(errors="replace")
        raise ValueError(f"expected a row's number, got {shown!r}")
    return int(text)


def is_blank(value: object) -> bool:
    """Whether there is nothing in a row."""
    return not (value.strip() if isinstance(value, str | bytes) else value)


def _filter_pair(line: bytes) -> tuple[int, int]:
    try:
        document, label = map(index, line.split())
    except ValueError:
        raise ValueError("expected the row of a document and of a label") from None
    return document, label


def _document(
    document: int, text: tuple[int, str | Fault], labels: tuple[int, Sequence[int] | Fault]
) -> Row | Fault:
    (line, words), (_, found) = text, labels
    if isinstance(words, Fault):
        return words
    if isinstance(found, Fault):
        return found
    return Row(line, str(document), words, [str(label) for label in found])


def _rest(first: tuple[int, T | Fault], others: Iterator[tuple[int, T | Fault]]) -> int:
    """The number of rows up to the last one that is not empty."""
    last = 0
    for size, (_, value) in enumerate(chain([first], others), start=1):
        if not is_blank(value):
            last = size
    return last


def _unequal(longer: Path, rows: int, shorter: Path, fewer: int) -> DataError:
    reason = (
        f"holds {rows:,} rows, {shorter.name} {fewer:,}: a text with a line break inside, or one "
        "of the files was cut off"
    )
    return DataError(reason, longer)
