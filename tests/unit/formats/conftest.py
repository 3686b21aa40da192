"""What the formats' tests share: the same small catalogue in the project's own format."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st

from xcflow.catalogue.ingest import Ingest
from xcflow.catalogue.readers import Chunk, open_catalogue
from xcflow.config import Config

Document = tuple[str, list[int]]


@dataclass
class Content:
    """Texts of labels; text and rows of labels of documents; rows of the filter's pairs."""

    labels: list[str]
    train: list[Document]
    test: list[Document]
    pairs: list[tuple[int, int]] = field(default_factory=list)


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files; what is called .gz is compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def write_jsonl(folder: Path, content: Content) -> Path:
    def documents(rows: list[Document]) -> list[dict[str, object]]:
        return [
            {"id": str(i), "text": text, "labels": list(map(str, labels))}
            for i, (text, labels) in enumerate(rows)
        ]

    rows = {
        "labels": [{"id": str(i), "text": text} for i, text in enumerate(content.labels)],
        "train": documents(content.train),
        "test": documents(content.test),
        "test_filter": [{"id": str(d), "labels": [str(label)]} for d, label in content.pairs],
    }
    files = {f"{k}.jsonl": "".join(json.dumps(r) + "\n" for r in v) for k, v in rows.items()}
    return write(folder, files)


def read(folder: Path, role: str = "train", rows: int = 1000) -> Chunk:
    """All rows of a role in one chunk."""
    whole = Chunk()
    for chunk in open_catalogue(folder).chunks(role, rows):
        assert 0 < len(chunk) + len(chunk.faults) <= rows
        for name in ("lines", "ids", "texts", "labels", "faults"):
            getattr(whole, name).extend(getattr(chunk, name))
    return whole


def told(chunk: Chunk) -> list[tuple[str, int, str]]:
    return [(fault.file, fault.line, fault.reason) for fault in chunk.faults]


def assert_reads_alike(one: Path, other: Path, rows: int) -> None:
    for role in ("labels", "train", "test", "test_filter"):
        left, right = read(one, role, rows), read(other, role, rows)
        assert left.faults == right.faults == []
        assert left.ids == right.ids
        assert left.texts == right.texts
        assert left.labels == right.labels


def ingested(catalogue: Path, folder: Path) -> dict[str, bytes]:
    """Bytes of every array that a catalogue becomes, but for the tokens."""
    folder.mkdir()
    work = Ingest(open_catalogue(catalogue), Config(), folder)
    work.read()
    work.split()
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def contents(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Content]:
    def of_size(labels: list[str]) -> st.SearchStrategy[Content]:
        rows = st.lists(st.integers(0, len(labels) - 1), max_size=4)
        documents = st.lists(st.tuples(texts, rows), max_size=6)
        pair = st.tuples(st.integers(0, 7), st.integers(0, len(labels) - 1))
        pairs = st.lists(pair, max_size=4)
        return st.builds(Content, st.just(labels), documents, documents, pairs)

    return st.lists(texts, min_size=1, max_size=4).flatmap(of_size)


SMALL = Content(
    labels=["trees and woods", "birds", "rivers", "stones"],
    train=[
        ("how trees talk", [0]),
        ("owls in old trees", [1, 0]),
        ("a river of stones", [3, 2]),
        ("nothing known", []),
        ("birds of the river", [2, 1]),
    ],
    test=[("trees by the river", [2, 0]), ("singing birds", [1])],
    pairs=[(1, 0), (0, 3), (1, 2)],
)


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """The functions of this module."""
    return SimpleNamespace(
        write=write,
        write_jsonl=write_jsonl,
        read=read,
        told=told,
        assert_reads_alike=assert_reads_alike,
        ingested=ingested,
        contents=contents,
    )


@pytest.fixture(scope="session")
def small() -> Content:
    return SMALL
