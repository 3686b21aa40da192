"""Parquet tables."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from xcflow.catalogue.formats import parquet_table
from xcflow.catalogue.readers import open_catalogue
from xcflow.errors import DataError

STRINGS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def write(folder, tables, row_group_size=None):
    folder.mkdir(exist_ok=True)
    for name, columns in tables.items():
        path = folder / f"{name}.parquet"
        parquet.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return folder


def tables_of(content, ids=STRINGS[0], texts=STRINGS[0], labels=STRINGS[0], lists=pa.list_):
    def numbers(values, kind):
        values = values if pa.types.is_integer(kind) else list(map(str, values))
        return pa.array(values, kind)

    def label_lists(rows):
        rows = rows if pa.types.is_integer(labels) else [list(map(str, row)) for row in rows]
        return pa.array(rows, lists(labels))

    def documents(rows):
        return {
            "labels": label_lists([row for _, row in rows]),
            "id": numbers(range(len(rows)), ids),
            "year": pa.array([1.5] * len(rows)),
            "text": pa.array([text for text, _ in rows], texts),
        }

    return {
        "labels": {
            "id": numbers(range(len(content.labels)), ids),
            "text": pa.array(content.labels, texts),
        },
        "trn": documents(content.train),
        "tst": documents(content.test),
        "tst_filter": {
            "id": numbers([document for document, _ in content.pairs], ids),
            "labels": label_lists([[label] for _, label in content.pairs]),
        },
    }


def read_train(folder, tools, small, **columns):
    tables = tables_of(small)
    right = {"id": pa.array(["d1", "d2", "d3"]), "text": pa.array(["a", "b", "c"])}
    right["labels"] = pa.array([["0"], [], ["1", "1"]])
    kept = {k: v for k, v in {**right, **columns}.items() if v is not None}
    return tools.read(write(folder, {**tables, "trn": kept}))


def not_utf8(kind: pa.DataType) -> pa.Array:
    stored = pa.array([b"ok", b"n\xff", b"ok2"], pa.binary())
    return pa.Array.from_buffers(kind, 3, stored.buffers())


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"id": pa.array(["d1", None, "d3"])}, "id must be a string, got null"),
        ({"text": pa.array(["a", None, "c"])}, "text must be a string, got null"),
        (
            {"labels": pa.array([["0"], None, ["1"]])},
            "labels must be a list of label ids, got null",
        ),
        ({"labels": pa.array([["0"], [None], ["1"]])}, "a label id must be a string, got null"),
        ({"text": not_utf8(pa.string())}, "is not UTF-8: byte 0xff at position 2 of 2"),
        ({"id": not_utf8(pa.string())}, "is not UTF-8: byte 0xff at position 2 of 2"),
    ],
)
def test_a_malformed_row_is_a_fault_with_its_number(tmp_path, tools, small, columns, reason):
    chunk = read_train(tmp_path, tools, small, **columns)
    assert len(chunk) == 2
    assert chunk.lines == [1, 3]
    assert tools.told(chunk) == [("trn.parquet", 2, reason)]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"text": None}, "expected one column text, the columns are id, labels"),
        ({"text": pa.array([1, 2, 3])}, "the column text must be of strings, it is int64"),
        ({"id": pa.array([1.0, 2.0, 3.0])}, "the column id must be of strings, it is double"),
        (
            {"labels": pa.array(["0", "1", "1"])},
            "the column labels must be a list of label ids, it is string",
        ),
        (
            {"labels": pa.array([[0.5], [], []])},
            "the column labels must be a list of strings or integers, it is list",
        ),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path, tools, small, columns, reason):
    with pytest.raises(DataError, match=rf"trn\.parquet: {reason}"):
        read_train(tmp_path, tools, small, **columns)


def test_rows_without_any_label(tmp_path, tools, small):
    assert read_train(tmp_path, tools, small, labels=pa.array([[], [], []])).labels == [[]] * 3


def test_a_damaged_file_is_one_error(tmp_path, tools, small):
    path = write(tmp_path, tables_of(small)) / "trn.parquet"
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:-9], whole[9:], b"\0" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"trn\.parquet: cannot be read as Parquet \("
        ) as caught:
            tools.read(tmp_path)
        assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_told_with_its_row(tmp_path, tools, small, monkeypatch):
    monkeypatch.setattr(parquet_table, "BATCH_ROWS", 2)
    path = write(tmp_path, tables_of(small), row_group_size=2) / "trn.parquet"
    data = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"trn\.parquet, line 3: cannot be read as Parquet"):
        tools.read(tmp_path)


def test_missing_and_doubled_files_are_named(tmp_path, small):
    folder = write(tmp_path, tables_of(small))
    (folder / "test.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"both test\.parquet and tst\.parquet stand here"):
        open_catalogue(folder)
    (folder / "test.parquet").unlink()
    (folder / "labels.parquet").unlink()
    with pytest.raises(DataError, match=r"misses labels\.parquet$"):
        open_catalogue(folder)


@given(
    data=st.data(),
    ids=st.sampled_from([*STRINGS, pa.int64(), pa.uint8()]),
    texts=st.sampled_from(STRINGS),
    labels=st.sampled_from([*STRINGS[:2], pa.int32()]),
    lists=st.sampled_from([pa.list_, pa.large_list]),
    row_group_size=st.integers(1, 5),
    rows=st.integers(1, 5),
)
def test_round_trip(data, ids, texts, labels, lists, row_group_size, rows, tools, tmp_path_factory):
    content = data.draw(tools.contents(TEXTS))
    tables = tables_of(content, ids, texts, labels, lists)
    catalogue = write(tmp_path_factory.mktemp("parquet"), tables, row_group_size)
    same = tools.write_jsonl(tmp_path_factory.mktemp("jsonl"), content)
    tools.assert_reads_alike(catalogue, same, rows)


def test_the_data_set_is_that_of_json_lines(tmp_path, tools, small):
    catalogue = write(tmp_path / "parquet", tables_of(small))
    same = tools.write_jsonl(tmp_path / "jsonl", small)
    assert tools.ingested(catalogue, tmp_path / "one") == tools.ingested(same, tmp_path / "two")
