"""Texts in and answers out, in every format."""

import gzip
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import float32, parquet
from pyarrow import string as arrow_string

from xcflow.errors import ConfigError, DataError
from xcflow.serving.batch import rows_in
from xcflow.serving.batch.rows_in import ENDINGS, batches_of, read_queries, survey

TEXTS = ["x" * n for n in (5, 1, 9, 0, 3, 7, 7, 2, 8, 4, 6, 6, 1)]
ROWS = [(f"d{i}", text) for i, text in enumerate(TEXTS)]
BEST = [
    (i, [(f"label {len(t)}", 1.0, 0.5), ("label 0", 0.75, 0.375), ("label 1", 0.5, 0.25)])
    for i, t in ROWS
]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# A row of a CSV file that is all white space is a blank line, in any other format it is a row.
IDS = st.text(st.sampled_from(string.ascii_letters + "\"',;\r\n é斑"), min_size=1).map("i".__add__)


@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize("source", ENDINGS)
def test_every_format_to_every_format(
    tmp_path, small_parts, answer, write_rows, read_answers, source, target
):
    file = write_rows(tmp_path / f"in{source}", ROWS)
    outcome = answer(file, tmp_path / f"out{target}")
    assert (outcome.texts, outcome.before) == (13, 0)
    assert read_answers(tmp_path / f"out{target}") == BEST
    assert {p.name for p in tmp_path.iterdir()} == {f"in{source}", f"out{target}"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(IDS, WORDS), max_size=15),
    source=st.sampled_from(ENDINGS),
    target=st.sampled_from(ENDINGS),
)
def test_any_ids_and_texts_come_through(
    small_parts, answer, write_rows, read_answers, rows, source, target
):
    with tempfile.TemporaryDirectory() as folder:
        file = write_rows(Path(folder, f"in{source}"), rows)
        assert answer(file, Path(folder, f"out{target}")).texts == len(rows)
        answers = read_answers(Path(folder, f"out{target}"))
        assert [(i, labels[0][0]) for i, labels in answers] == [
            (i, f"label {len(text)}") for i, text in rows
        ]


@pytest.mark.parametrize("target", ENDINGS)
def test_no_texts_are_a_whole_file_too(tmp_path, answer, write_rows, read_answers, target):
    assert answer(write_rows(tmp_path / "in.csv", []), tmp_path / f"out{target}").texts == 0
    assert read_answers(tmp_path / f"out{target}") == []
    if target == ".csv.gz":
        head = gzip.decompress((tmp_path / "out.csv.gz").read_bytes())
        assert head == b"id,rank,label,score,probability\n"


@pytest.mark.parametrize("target", ENDINGS)
def test_unlikely_labels_are_left_out(tmp_path, answer, write_rows, read_answers, target):
    source = write_rows(tmp_path / "in.jsonl", [("d", "abc"), ("e", "")])
    answer(source, tmp_path / f"out{target}", min_probability=0.4)
    expected = [("d", [("label 3", 1.0, 0.5)]), ("e", [("label 0", 1.0, 0.5)])]
    assert read_answers(tmp_path / f"out{target}") == expected
    answer(source, tmp_path / f"out{target}", min_probability=0.6)
    assert read_answers(tmp_path / f"out{target}") == (
        [] if ".csv" in target else [("d", []), ("e", [])]
    )


def test_parquet_has_a_row_group_for_each_part(tmp_path, small_parts, answer, write_rows):
    answer(write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.parquet")
    with parquet.ParquetFile(tmp_path / "out.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        kinds = {field.name: field.type for field in file.schema_arrow}
    assert groups == [6, 6, 1]
    assert list(kinds) == ["id", "labels", "scores", "probabilities"]
    assert (kinds["id"], kinds["labels"].value_type) == (arrow_string(), arrow_string())
    assert kinds["scores"].value_type == kinds["probabilities"].value_type == float32()


@pytest.mark.parametrize("target", ENDINGS)
def test_the_same_texts_are_the_same_bytes(tmp_path, small_parts, answer, write_rows, target):
    contents = set()
    for name in ("a", "b"):
        source = write_rows(tmp_path / f"{name}.jsonl", ROWS)
        answer(source, tmp_path / f"out-{name}{target}")
        contents.add((tmp_path / f"out-{name}{target}").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [("in.txt", "out.csv", "in.txt"), ("in.csv", "out", "out"), ("in.csv", "s3://b/x.gz", "x.gz")],
)
def test_an_unknown_ending_is_named_beside_the_known_ones(tmp_path, answer, source, target, name):
    (tmp_path / source).write_text("")
    place = target if "://" in target else tmp_path / target
    with pytest.raises(ConfigError, match=rf"{name}: of unknown format: .* \.jsonl, .*\.parquet$"):
        answer(tmp_path / source, place)


def test_byte_order_mark_windows_lines_and_blank_lines_are_tolerated(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes('\ufeff{"id": "a", "text": "b"}\r\n\r\n{"id": "c", "text": ""}'.encode())
    assert [query.id for query in read_queries(source, "in")] == ["a", "c"]
    source = tmp_path / "in.csv"
    source.write_bytes('\ufefftext,more,id\r\nb,1,a\r\n\r\n"",2,c'.encode())
    assert [tuple(query) for query in read_queries(source, "in")] == [("a", "b"), ("c", "")]


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("in.jsonl", b'{"id": "a", "text": "x"}\n{"id": "b"', ", line 2", "was cut off"),
        ("in.jsonl", b"\n[1]", ", line 2", "expected an object with id, text, got a list"),
        ("in.jsonl", b'{"id": 1, "text": "x"}', ", line 1", "id must be a string"),
        ("in.jsonl", b'{"id": "b"}', ", line 1", "text is missing"),
        ("in.jsonl", b'{"id": "b", "text": "\xff"}', ", line 1", "not UTF-8"),
        ("in.jsonl", b'{"id": "b", "text": "\\ud800"}', ", line 1", "surrogate"),
        ("in.jsonl", gzip.compress(b"{}", mtime=0), "", "is gzip, though its name lacks .gz"),
        ("in.jsonl.gz", b"{}", "", "is not gzip, though its name ends in .gz"),
        ("in.jsonl.gz", gzip.compress(b"\n" * 999, mtime=0)[:-9], "", "ends too early"),
        ("in.csv", b"id,text\na,b\nc\n", ", line 3", "has 1 fields, the header has 2"),
        ("in.csv", b"id,words\na,b\n", ", line 1", "expected a header with one column text"),
        ("in.parquet", b"nonsense", "", "cannot be read as Parquet"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_answered(
    tmp_path, LengthPredictor, answer, name, content, where, reason
):
    (tmp_path / name).write_bytes(content)
    predictor = LengthPredictor()
    with pytest.raises(DataError, match=f"{name}{where}.*: .*{reason}"):
        answer(tmp_path / name, tmp_path / "out.jsonl", predictor=predictor)
    assert predictor.asked == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_null_in_parquet_is_named(tmp_path, answer, write_rows):
    source = write_rows(tmp_path / "in.parquet", [("a", "x"), ("b", None)])
    with pytest.raises(DataError, match=r"in\.parquet, line 2: text must be a string, got null"):
        answer(source, tmp_path / "out.jsonl")


def test_batches_are_bounded_by_texts_labels_and_characters(monkeypatch):
    monkeypatch.setattr(rows_in, "BATCH_LABELS", 3000)
    monkeypatch.setattr(rows_in, "BATCH_CHARS", 100)
    queries = [rows_in.Query(str(i), "x") for i in range(300)]
    assert [len(batch) for batch in batches_of(queries, 10)] == [100, 100, 100]
    assert [len(batch) for batch in batches_of(queries, 40)] == [75, 75, 75, 75]
    assert {len(batch) for batch in batches_of(queries, 9999)} == {1}
    long = [rows_in.Query(str(i), "x" * 60) for i in range(5)]
    assert [len(batch) for batch in batches_of(long, 1)] == [2, 2, 1]
    assert list(batches_of([], 1)) == []


def test_the_digest_is_of_the_rows(tmp_path, write_rows):
    def digest(name, rows):
        return survey(batches_of(read_queries(write_rows(tmp_path / name, rows), name), 5)).digest

    known = digest("a.jsonl", ROWS)
    assert digest("b.csv.gz", ROWS) == digest("c.parquet", ROWS) == known
    assert digest("d.jsonl", ROWS[::-1]) != known
    assert digest("e.jsonl", [("ab", "c")]) != digest("f.jsonl", [("a", "bc")])
