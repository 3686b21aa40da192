"""The reader of the project's own format: each malformed thing by file, line and reason."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.catalogue.formats import lines
from xcflow.catalogue.readers import Chunk, Fault, catalogue_digest, open_catalogue
from xcflow.errors import DataError

LABELS = b'{"id": "l1", "text": "one"}\n'
ROW = b'{"id": "d1", "text": "a text", "labels": ["l1"]}\n'


def make_catalogue(folder: Path, **files: bytes) -> Path:
    """A valid catalogue with some files replaced; ``__`` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {"labels__jsonl": LABELS, "train__jsonl": ROW, "test__jsonl": ROW}
    for name, content in {**defaults, **files}.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def read(folder: Path, role: str = "train", rows: int = 1000) -> list[Chunk]:
    return list(open_catalogue(folder).chunks(role, rows))


def read_train(tmp_path: Path, content: bytes) -> Chunk:
    (chunk,) = read(make_catalogue(tmp_path, train__jsonl=content))
    return chunk


def test_rows_of_each_role(tmp_path: Path):
    folder = make_catalogue(tmp_path, test_filter__jsonl=b'{"id": "d1", "labels": ["l1", "l2"]}\n')
    (labels,) = read(folder, "labels")
    assert (labels.ids, labels.texts, labels.labels) == (["l1"], ["one"], [[]])
    (train,) = read(folder, "train")
    assert (train.ids, train.texts, train.labels) == (["d1"], ["a text"], [["l1"]])
    (filtered,) = read(folder, "test_filter")
    assert (filtered.ids, filtered.texts, filtered.labels) == (["d1"], [""], [["l1", "l2"]])


def test_other_names_and_gzip_are_accepted(tmp_path: Path):
    for name, content in {
        "labels.jsonl.gz": LABELS,
        "trn.jsonl.gz": ROW,
        "tst.jsonl": ROW,
        "tst_filter.jsonl.gz": b'{"id": "d1", "labels": []}',
    }.items():
        data = gzip.compress(content) if name.endswith(".gz") else content
        (tmp_path / name).write_bytes(data)
    reader = open_catalogue(tmp_path)
    assert {role: path.name for role, path in reader.files.items()} == {
        "labels": "labels.jsonl.gz",
        "train": "trn.jsonl.gz",
        "test": "tst.jsonl",
        "test_filter": "tst_filter.jsonl.gz",
    }
    assert read(tmp_path)[0].ids == ["d1"]


def test_what_is_accepted_without_a_word(tmp_path: Path):
    """A byte order mark, CRLF, blank lines, further keys, no line end at the end."""
    extra = b'{"year": 1, "id": "d2", "text": "", "labels": [], "id2": null}'
    content = b"\xef\xbb\xbf" + ROW.replace(b"\n", b"\r\n") + b"\r\n  \n" + extra
    chunk = read_train(tmp_path, content)
    assert chunk.faults == []
    assert chunk.ids == ["d1", "d2"]
    assert chunk.lines == [1, 4]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "d1", "text": "a \xff", "labels": []}', "is not UTF-8: byte 0xff at position 25"),
        (ROW.decode().encode("utf-16-le"), "is not JSON"),
        (b'{"id": "d1", "text": "cut of', "ends before its JSON object does: the line was cut off"),
        (b'{"id": "d1", "text"', "ends before its JSON object does: the line was cut off"),
        (b"{'id': 'd1'}", "is not JSON: expecting property name enclosed in double quotes"),
        (b"d1,a text,l1", "is not JSON: expecting value at character 1 of 12"),
        (b'{"id": 17, "text": "", "labels": []}', "id must be a string, got the number 17"),
        (b'{"id": null, "text": "", "labels": []}', "id must be a string, got null"),
        (b'{"id": "d", "text": ["a"], "labels": []}', "text must be a string, got a list"),
        (b'{"id": "d", "text": true, "labels": []}', "text must be a string, got the truth value"),
        (b'{"text": "", "labels": []}', "id is missing"),
        (b'{"id": "d", "labels": []}', "text is missing"),
        (b'{"id": "d", "text": ""}', "labels is missing"),
        (b'{"id": "d", "text": "", "labels": "l1"}', "labels must be a list of label ids, got the"),
        (b'{"id": "d", "text": "", "labels": {}}', "labels must be a list of label ids, got an ob"),
        (
            b'{"id": "d", "text": "", "labels": [1]}',
            "a label id must be a string, got the number 1",
        ),
        (b'["d", "", []]', "expected an object with id, text, labels, got a list"),
        (b'{"id": "d", "text": "\\ud83d", "labels": []}', "text holds half a surrogate pair"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"id": ' + b"1" * 5000 + b"}", "integer"),
    ],
)
def test_a_malformed_row_is_a_fault_with_its_line(tmp_path: Path, line: bytes, reason: str):
    chunk = read_train(tmp_path, ROW + b"\n" + line + b"\n" + ROW.replace(b"d1", b"d2"))
    assert chunk.ids == ["d1", "d2"]
    assert chunk.lines == [1, 4 if b"\n" not in line else 5]
    fault = chunk.faults[0]
    assert (fault.file, fault.line) == ("train.jsonl", 3)
    assert reason in fault.reason
    assert "\n" not in fault.reason
    assert len(fault.excerpt) <= 120


ZIPPED = gzip.compress(ROW, mtime=0)


def damaged_gzip(place: int) -> bytes:
    data = bytearray(gzip.compress(ROW * 1000, mtime=0))
    data[place] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "trn__jsonl__gz",
            gzip.compress(ROW * 9, mtime=0)[:-9],
            r"trn\.jsonl\.gz, line \d+: .*cut off",
        ),
        (
            "trn__jsonl__gz",
            damaged_gzip(60),
            r"trn\.jsonl\.gz, line \d+: the gzip stream .* damaged",
        ),
        ("trn__jsonl__gz", damaged_gzip(-8), r"line 1001: the gzip stream is damaged \(CRC check"),
        (
            "trn__jsonl__gz",
            gzip.compress(ROW, mtime=0) + b"junk",
            r"line 2: the gzip stream is damaged",
        ),
        ("trn__jsonl__gz", ROW, r"trn\.jsonl\.gz: is not gzip, though its name ends in \.gz"),
        (
            "trn__jsonl",
            gzip.compress(ROW, mtime=0),
            r"trn\.jsonl: is gzip, though its name lacks \.gz",
        ),
    ],
)
def test_a_file_that_cannot_be_read_further(tmp_path: Path, name: str, content: bytes, reason: str):
    folder = make_catalogue(tmp_path, **{name: content})
    (folder / "train.jsonl").unlink()
    with pytest.raises(DataError, match=reason) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_an_empty_file_has_no_rows(tmp_path: Path):
    folder = make_catalogue(tmp_path, train__jsonl=b"", test__jsonl=b"\n\n")
    assert read(folder, "train") == read(folder, "test") == []


def test_a_file_without_line_ends_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: is longer than 1 MiB"):
        read_train(tmp_path, ROW + b" " * (2**20 + 1))


def test_missing_files_are_named_with_all_names_looked_for(tmp_path: Path):
    (tmp_path / "labels.jsonl").write_bytes(LABELS)
    (tmp_path / "tst.jsonl").write_bytes(ROW)
    message = f"{tmp_path}: misses train.jsonl or train.jsonl.gz or trn.jsonl or trn.jsonl.gz"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_catalogue(tmp_path)


def test_two_files_for_one_role_are_refused(tmp_path: Path):
    folder = make_catalogue(tmp_path, trn__jsonl=ROW)
    with pytest.raises(DataError, match=r"both train\.jsonl and trn\.jsonl stand here"):
        open_catalogue(folder)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nowhere", "no such folder"), ("file", "is a file"), ("empty", "looked for labels.jsonl")],
)
def test_what_is_no_catalogue(tmp_path: Path, path: str, reason: str):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=re.escape(reason)):
        open_catalogue(tmp_path / path)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.lists(
    st.fixed_dictionaries({"id": texts, "text": texts, "labels": st.lists(texts, max_size=3)}),
    max_size=12,
)


@given(rows=documents, size=st.integers(1, 5), compress=st.booleans(), ascii_only=st.booleans())
def test_round_trip_in_chunks(rows, size, compress, ascii_only, tmp_path_factory):
    lines = [json.dumps(row, ensure_ascii=ascii_only).encode() for row in rows]
    content = b"\n".join(lines)
    folder = make_catalogue(tmp_path_factory.mktemp("c"))
    (folder / "train.jsonl").unlink()
    name = "train.jsonl.gz" if compress else "train.jsonl"
    (folder / name).write_bytes(gzip.compress(content) if compress else content)
    chunks = read(folder, rows=size)
    assert all(0 < len(chunk) <= size for chunk in chunks)
    got = [
        {"id": i, "text": t, "labels": ls}
        for chunk in chunks
        for i, t, ls in zip(chunk.ids, chunk.texts, chunk.labels, strict=True)
    ]
    assert got == rows
    assert [line for chunk in chunks for line in chunk.lines] == list(range(1, len(rows) + 1))


@given(content=st.binary(max_size=300))
def test_any_bytes_are_rows_faults_or_one_error(content: bytes, tmp_path_factory):
    folder = make_catalogue(tmp_path_factory.mktemp("c"), train__jsonl=content)
    try:
        chunks = read(folder)
    except DataError:
        return
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    rows = sum(len(chunk) for chunk in chunks)
    faults: list[Fault] = [fault for chunk in chunks for fault in chunk.faults]
    assert rows + len(faults) == len(lines)


def test_the_digest_sees_content_and_roles_but_not_the_place(tmp_path: Path):
    one = catalogue_digest(make_catalogue(tmp_path / "one"))
    assert one == catalogue_digest(make_catalogue(tmp_path / "two"))
    swapped = make_catalogue(tmp_path / "three", labels__jsonl=ROW, train__jsonl=LABELS)
    assert catalogue_digest(swapped) != one
    filtered = make_catalogue(tmp_path / "four", test_filter__jsonl=b"")
    assert catalogue_digest(filtered) != one
