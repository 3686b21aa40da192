"""From a reader to the canonical data set on disk, in chunks.

What must be remembered about all rows is kept in a few bytes each (``Facts``); validation judges
it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from xcflow.catalogue.arrays import RaggedWriter
from xcflow.catalogue.dataset import TOKENIZER
from xcflow.catalogue.findings import Example, Tally
from xcflow.catalogue.hashing import Hashes, SeenHashes, find_hashes, hash_strings, hash_texts
from xcflow.catalogue.readers import (
    EXCERPT_CHARS,
    CatalogueReader,
    Chunk,
    Fault,
    Misstatement,
    Role,
)
from xcflow.catalogue.split import validation_split
from xcflow.catalogue.string_table import StringTable, StringTableWriter
from xcflow.catalogue.text_reader import TextReader
from xcflow.catalogue.tokenizer import build_tokenizer, unknown_token
from xcflow.config import Config
from xcflow.progress import Advance, log, progress
from xcflow.ragged import Ragged

# Texts are encoded in batches of at most this many characters, because the tokenizer needs some
# hundred bytes for each token. What stands behind them in a single text is not looked at.
BATCH_CHARS = 2**21


@dataclass
class Facts:
    """What is remembered of the rows of one file.

    Attributes:
        role: What the file holds.
        file: Its name inside the catalogue.
        rows_read: Rows met, readable or not, blank lines aside.
        pairs_read: Label ids met in its rows.
        lines: [N] line of each row that was kept.
        id_hashes: [N] hash of each id.
        text_hashes: [N] hash of each text, blind to case and white space.
        text_chars: [N] characters of each text without white space around it.
        faults: Rows that cannot be read (left out).
        misstated: Numbers of rows that are written somewhere and are wrong.
        empty_ids: Rows without an id (left out).
        repeated_ids: Rows whose id stood before (left out).
        unknown_labels: Label ids that the catalogue lacks (left out of their row).
        repeated_labels: Label ids that stand more than once in a row (kept once).
        unknown_documents: Rows of a filter for a document that the test split lacks (left out).
    """

    role: Role
    file: str
    rows_read: int = 0
    pairs_read: int = 0
    lines: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    id_hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    text_hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    text_chars: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    faults: Tally = field(default_factory=Tally)
    misstated: Tally = field(default_factory=Tally)
    empty_ids: Tally = field(default_factory=Tally)
    repeated_ids: Tally = field(default_factory=Tally)
    unknown_labels: Tally = field(default_factory=Tally)
    repeated_labels: Tally = field(default_factory=Tally)
    unknown_documents: Tally = field(default_factory=Tally)

    def __len__(self) -> int:
        return len(self.lines)


@dataclass
class TokenFacts:
    """What tokenising the texts of one role showed.

    Attributes:
        lengths: [N] tokens of each text before it was cut.
        unknown: Tokens without an entry in the vocabulary.
    """

    lengths: NDArray[np.int32]
    unknown: int


class Ingest:
    """Writes one catalogue into one folder; the methods are called in the order they stand in.

    Attributes:
        facts: Role -> what was seen; grows while files are read, so that a failure midway can
            still be reported.
        tokens: Role -> what the tokenizer made of the texts.
    """

    def __init__(self, reader: CatalogueReader, config: Config, folder: Path) -> None:
        self.reader = reader
        self.config = config
        self.folder = folder
        self.facts: dict[Role, Facts] = {}
        self.tokens: dict[Role, TokenFacts] = {}
        self._label_rows: dict[str, int] = {}

    def read(self) -> None:
        """Write ids, texts and label rows of everything.

        Raises:
            DataError: A file cannot be read at all.
        """
        self._read_labels()
        self._read_documents("train")
        self._read_documents("test")
        self._read_filter()

    def usable(self) -> NDArray[np.bool_]:
        """[N] whether a training document has a text and a known label."""
        labels = Ragged.load(self.folder / "train" / "labels").lengths
        has_both: NDArray[np.bool_] = (self.facts["train"].text_chars > 0) & (labels > 0)
        return has_both

    def split(self) -> None:
        """Write the rows to learn from and the rows held out."""
        fit, held_out = validation_split(
            self.facts["train"].id_hashes,
            self.usable(),
            self.config.data.validation_fraction,
            self.config.data.validation_documents,
        )
        folder = self.folder / "split"
        folder.mkdir()
        np.save(folder / "fit_rows.npy", fit)
        np.save(folder / "validation_rows.npy", held_out)

    def tokenize(self) -> Tokenizer:
        """Choose the tokenizer, from the documents to learn from and the labels, and apply it."""
        data = self.config.data
        tokenizer = build_tokenizer(self.config.encoder, data, self._texts_to_learn_from)
        tokenizer.save(str(self.folder / TOKENIZER))
        limits: dict[Role, int] = {
            "labels": data.max_label_tokens,
            "train": data.max_document_tokens,
            "test": data.max_document_tokens,
        }
        total = sum(len(self.facts[role]) for role in limits)
        with progress("tokenise", total, "texts") as advance:
            for role, limit in limits.items():
                folder = self.folder / role
                self.tokens[role] = write_tokens(tokenizer, folder, limit, data.chunk_rows, advance)
        return tokenizer

    def _texts_to_learn_from(self) -> Iterator[list[str]]:
        rows = self.config.data.chunk_rows
        fit = np.load(self.folder / "split" / "fit_rows.npy", allow_pickle=False)
        texts = StringTable.load(self.folder / "train" / "texts")
        for span in texts.spans(rows):
            start, stop = np.searchsorted(fit, span)
            yield texts.take(fit[start:stop])
        yield from StringTable.load(self.folder / "labels" / "texts").chunks(rows)

    def _read_labels(self) -> None:
        facts = self._begin("labels")
        with _table_writer(self.folder / "labels") as append:
            for chunk in self._chunks(facts):
                rows = zip(chunk.ids, chunk.texts, strict=True)
                texts = [text if text.strip() else label for label, text in rows]
                append(chunk.ids, texts)
                self._label_rows.update(zip(chunk.ids, count(len(self._label_rows)), strict=False))

    def _read_documents(self, role: Role) -> None:
        facts = self._begin(role)
        folder = self.folder / role
        with _table_writer(folder) as append, RaggedWriter(folder / "labels", np.int32) as labels:
            for chunk in self._chunks(facts):
                append(chunk.ids, chunk.texts)
                labels.append(self._label_rows_of(chunk, facts))

    def _read_filter(self) -> None:
        rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        labels: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        test = self.facts["test"]
        if "test_filter" in self.reader.files:
            facts = self._begin("test_filter")
            for chunk in self._chunks(facts):
                documents = find_hashes(test.id_hashes, hash_strings(chunk.ids))
                for i in np.flatnonzero(documents < 0).tolist():
                    facts.unknown_documents.add(_example(facts, chunk, i))
                found = self._label_rows_of(chunk, facts)
                pair_rows = documents[found.row_ids()]
                rows.append(pair_rows[pair_rows >= 0])
                labels.append(found.data[pair_rows >= 0])
        pairs = _rows_of_pairs(np.concatenate(rows), np.concatenate(labels), len(test))
        pairs.save(self.folder / "test" / "filter")

    def _begin(self, role: Role) -> Facts:
        facts = self.facts[role] = Facts(role, self.reader.files[role].name)
        return facts

    def _chunks(self, facts: Facts) -> Iterator[Chunk]:
        """The rows that are kept, chunk by chunk; remembers them and what is left out."""
        seen = SeenHashes()
        columns: list[tuple[NDArray[Any], ...]] = []
        try:
            for chunk in self.reader.chunks(facts.role, self.config.data.chunk_rows):
                facts.rows_read += len(chunk)
                for fault in chunk.faults:
                    _count_fault(fault, facts)
                hashes = hash_strings(chunk.ids)
                keep = _usable_ids(chunk, hashes, facts, seen)
                if not keep.all():
                    chunk, hashes = chunk.take(np.flatnonzero(keep).tolist()), hashes[keep]
                chars = np.fromiter((len(t.strip()) for t in chunk.texts), np.int32, len(chunk))
                lines = np.array(chunk.lines, np.uint32)
                columns.append((lines, hashes, hash_texts(chunk.texts), chars))
                yield chunk
            log(f"read {facts.rows_read:,} rows of {facts.file}")
        finally:
            if columns:
                parts = [np.concatenate(column) for column in zip(*columns, strict=True)]
                facts.lines, facts.id_hashes, facts.text_hashes, facts.text_chars = parts

    def _label_rows_of(self, chunk: Chunk, facts: Facts) -> Ragged:
        """The sorted label rows of each row of the chunk; counts what is unknown or repeated."""
        index, total = self._label_rows, sum(map(len, chunk.labels))
        flat = chain.from_iterable(chunk.labels)
        labels = np.fromiter((index.get(label, -1) for label in flat), np.int64, total)
        rows = np.repeat(np.arange(len(chunk)), np.fromiter(map(len, chunk.labels), np.int64))
        facts.pairs_read += total
        known = labels >= 0
        for i in np.unique(rows[~known]).tolist():
            unknown = [label for label in chunk.labels[i] if label not in index]
            remark = f"names {', '.join(map(repr, unknown[:5]))}"
            facts.unknown_labels.add(_example(facts, chunk, i, remark), len(unknown))
        found = _rows_of_pairs(rows[known], labels[known].astype(np.int32), len(chunk))
        lost = np.bincount(rows[known], minlength=len(chunk)) - found.lengths
        for i in np.flatnonzero(lost).tolist():
            facts.repeated_labels.add(_example(facts, chunk, i), int(lost[i]))
        return found


@contextmanager
def _table_writer(folder: Path) -> Iterator[Callable[[Sequence[str], Sequence[str]], None]]:
    """Makes the folder and gives a function that appends ids and texts to its string tables."""
    folder.mkdir()
    with StringTableWriter(folder / "ids") as ids, StringTableWriter(folder / "texts") as texts:

        def append(new_ids: Sequence[str], new_texts: Sequence[str]) -> None:
            ids.append_strings(new_ids)
            texts.append_strings(new_texts)

        yield append


def write_tokens(
    tokenizer: Tokenizer, folder: Path, limit: int, rows: int, advance: Advance
) -> TokenFacts:
    """Tokenise the texts of a folder, without special tokens, each cut after ``limit`` tokens.

    Token ids are stored in the smallest unsigned type that fits the vocabulary. A text without any
    token gets the unknown token, so that no row is empty.
    """
    dtype = np.min_scalar_type(tokenizer.get_vocab_size() - 1)
    reader, unknown_id = TextReader(tokenizer), unknown_token(tokenizer)
    lengths: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    unknown = 0
    with RaggedWriter(folder / "tokens", dtype) as writer:
        for texts in StringTable.load(folder / "texts").chunks(rows):
            for batch in _batches(texts):
                ids = reader.ids(batch)
                lengths.append(np.fromiter(map(len, ids), np.int32, len(ids)))
                unknown += sum(row.count(unknown_id) for row in ids)
                writer.append(_ragged([row[:limit] or [unknown_id] for row in ids], dtype))
                advance(len(ids))
    return TokenFacts(np.concatenate(lengths), unknown)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Consecutive texts of at most ``BATCH_CHARS`` together."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and chars + len(text) > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
        batch.append(text[:BATCH_CHARS])
        chars += len(text)
    yield batch


def _ragged(rows: list[list[int]], dtype: Any) -> Ragged:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
    return Ragged(np.fromiter(chain.from_iterable(rows), dtype, offsets[-1]), offsets)


def _rows_of_pairs(rows: NDArray[Any], labels: NDArray[np.int32], size: int) -> Ragged:
    """``size`` rows of sorted labels, each once, from (row, label) pairs in any order."""
    width = int(labels.max(initial=0)) + 1
    pairs = np.unique(rows.astype(np.int64) * width + labels)
    offsets = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(pairs // width, minlength=size), out=offsets[1:])
    return Ragged((pairs % width).astype(np.int32), offsets)


def _usable_ids(chunk: Chunk, hashes: Hashes, facts: Facts, seen: SeenHashes) -> NDArray[np.bool_]:
    """[N] whether a row has an id that did not stand before; counts those without."""
    empty = np.fromiter((not i.strip() for i in chunk.ids), bool, len(chunk))
    for i in np.flatnonzero(empty).tolist():
        facts.empty_ids.add(_example(facts, chunk, i))
    again = np.zeros(len(chunk), bool)
    if facts.role != "test_filter":  # rows of a filter for the same document add up
        again[~empty] = seen.add(hashes[~empty])
    for i in np.flatnonzero(again).tolist():
        facts.repeated_ids.add(_example(facts, chunk, i))
    return ~(empty | again)


def _example(facts: Facts, chunk: Chunk, row: int, remark: str = "") -> Example:
    text = chunk.texts[row][:EXCERPT_CHARS]
    return Example(facts.file, chunk.lines[row], chunk.ids[row], text, remark)


def _count_fault(fault: Fault, facts: Facts) -> None:
    example = Example(fault.file, fault.line, "", fault.excerpt, fault.reason)
    if isinstance(fault, Misstatement):
        facts.misstated.add(example)
    else:
        facts.rows_read += 1
        facts.faults.add(example)
