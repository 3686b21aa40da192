"""Ragged rows against lists of lists."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.ragged import Ragged

rows_of = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=7)


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[i].tolist() for i in range(len(ragged))]


@given(rows_of)
def test_rows_are_those_that_went_in(rows: list[list[int]]):
    ragged = Ragged.from_rows(rows, np.uint8)
    assert as_lists(ragged) == rows
    assert ragged.data.dtype == np.uint8
    assert ragged.offsets.dtype == np.int64
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.row_ids().tolist() == [i for i, row in enumerate(rows) for _ in row]
    flat = [value for row in rows for value in row]
    assert ragged.counts(12).tolist() == [flat.count(value) for value in range(12)]


@given(rows=rows_of.filter(len), data=st.data())
def test_taking_rows(rows: list[list[int]], data: st.DataObject):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    for dtype in (np.int64, np.int32):
        taken = Ragged.from_rows(rows).take(np.array(chosen, dtype))
        assert as_lists(taken) == [rows[i] for i in chosen]
        assert taken.offsets[0] == 0


@given(rows=rows_of, data=st.data())
def test_slices_of_slices(rows: list[list[int]], data: st.DataObject):
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = Ragged.from_rows(rows).slice(start, stop)
    assert as_lists(part) == rows[start:stop]
    assert part.offsets[0] == 0
    assert as_lists(part.slice(0, len(part))) == rows[start:stop]
    assert as_lists(part.take(np.arange(len(part)))) == rows[start:stop]


@given(pairs=st.lists(st.tuples(*[st.lists(st.integers(0, 9), max_size=4)] * 2), max_size=6))
def test_values_that_another_holds_too(pairs: list[tuple[list[int], list[int]]]):
    first, second = (Ragged.from_rows([pair[side] for pair in pairs]) for side in (0, 1))
    found = first.also_in(second)
    assert found.tolist() == [value in b for a, b in pairs for value in a]
    kept = first.keep(~found)
    assert as_lists(kept) == [[value for value in a if value not in b] for a, b in pairs]


@given(st.lists(rows_of, min_size=1, max_size=4))
def test_rows_end_to_end(parts: list[list[list[int]]]):
    joined = Ragged.concatenate([Ragged.from_rows(rows) for rows in parts])
    assert as_lists(joined) == [row for rows in parts for row in rows]


@given(rows_of)
def test_files(tmp_path_factory, rows: list[list[int]]):
    prefix: Path = tmp_path_factory.mktemp("ragged") / "rows"
    Ragged.from_rows(rows, np.uint16).save(prefix)
    for mmap in (True, False):
        loaded = Ragged.load(prefix, mmap=mmap)
        assert as_lists(loaded) == rows
        assert loaded.data.dtype == np.uint16


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 99)))))
def test_rows_beside_rows(pairs: list[tuple[list[int], list[int]]]):
    first = Ragged.from_rows([a for a, _ in pairs], np.uint8)
    second = Ragged.from_rows([b for _, b in pairs], np.int64)
    assert as_lists(first.beside(second)) == [a + b for a, b in pairs]
