"""String tables and ragged rows: what is written piece by piece is read back whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.catalogue import string_table
from xcflow.catalogue.arrays import ArrayWriter, RaggedWriter
from xcflow.catalogue.string_table import StringTable, StringTableWriter
from xcflow.ragged import Ragged

# Everything UTF-8 can hold: no lone surrogates.
strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=20)
rows = st.lists(st.lists(st.integers(0, 60_000), max_size=5), max_size=20)


@given(pieces=st.lists(strings, max_size=4))
def test_a_table_written_in_pieces_is_the_list_of_all(pieces: list[list[str]], tmp_path_factory):
    prefix = tmp_path_factory.mktemp("table") / "names"
    with StringTableWriter(prefix) as writer:
        for piece in pieces:
            writer.append_strings(piece)
    expected = [text for piece in pieces for text in piece]
    table = StringTable.load(prefix)
    assert len(table) == len(expected)
    assert table.to_list() == expected
    assert [table[i] for i in range(len(table))] == expected
    assert [text for chunk in table.chunks(3) for text in chunk] == expected


@given(table=strings, wanted=strings)
def test_find_gives_the_first_row_or_minus_one(table: list[str], wanted: list[str]):
    expected = [table.index(text) if text in table else -1 for text in wanted]
    found = StringTable.from_list(table).find(wanted)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@given(table=strings.filter(bool), data=st.data())
def test_take_gives_rows_in_the_order_asked_for(table: list[str], data: st.DataObject):
    asked = data.draw(st.lists(st.integers(0, len(table) - 1)))
    taken = StringTable.from_list(table).take(np.array(asked, np.int64))
    assert taken == [table[row] for row in asked]


def test_long_strings_make_parts_shorter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(string_table, "CHUNK_BYTES", 10)
    table = StringTable.from_list(["abcd", "efgh", "ijk", "x" * 30, "", "l", "m", "n"])
    assert list(table.spans(3)) == [(0, 2), (2, 3), (3, 4), (4, 7), (7, 8)]


def test_a_row_beyond_the_end_is_an_error():
    table = StringTable.from_list(["a"])
    assert table[-1] == "a"
    with pytest.raises(IndexError):
        table[1]


def test_a_written_table_equals_a_saved_one(tmp_path: Path):
    texts = ["", "ä", "日本語", "x" * 1000]
    StringTable.from_list(texts).save(tmp_path / "saved")
    with StringTableWriter(tmp_path / "written") as writer:
        for text in texts:
            writer.append_strings([text])
    for part in ("data.npy", "offsets.npy"):
        saved = (tmp_path / f"saved.{part}").read_bytes()
        assert (tmp_path / f"written.{part}").read_bytes() == saved


@given(pieces=st.lists(rows, max_size=4))
def test_ragged_rows_written_in_pieces(pieces: list[list[list[int]]], tmp_path_factory):
    prefix = tmp_path_factory.mktemp("ragged") / "rows"
    with RaggedWriter(prefix, np.uint16) as writer:
        for piece in pieces:
            writer.append(Ragged.from_rows(piece, np.int64))
    expected = [row for piece in pieces for row in piece]
    loaded = Ragged.load(prefix)
    assert loaded.data.dtype == np.uint16
    assert [loaded[i].tolist() for i in range(len(loaded))] == expected
    assert loaded.lengths.tolist() == [len(row) for row in expected]
    middle = loaded.slice(len(loaded) // 2, len(loaded))
    assert middle.lengths.tolist() == [len(row) for row in expected[len(expected) // 2 :]]


def test_the_header_of_a_long_array_keeps_its_place(tmp_path: Path):
    path = tmp_path / "a.npy"
    with ArrayWriter(path, np.int32) as writer:
        for _ in range(11):
            writer.append(np.arange(100_000))
    array = np.load(path, allow_pickle=False)
    assert array.shape == (1_100_000,)
    assert array[-1] == 99_999
