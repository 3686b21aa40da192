import gzip
import json

import numpy as np
import pytest

from xcflow.disk import claimed
from xcflow.errors import BusyError, DataError, StorageError
from xcflow.topk import TopK
from xcflow_pipelines import predicting
from xcflow_pipelines.predicting import predict_file, read_queries


class LengthPredictor:
    """Answers each text with the labels that its length and its first letters name."""

    label_ids = tuple(f"label {i}" for i in range(100))

    def top_k(self, texts, k, voice="fused"):
        labels = np.array([[len(t) % 100, *range(k - 1)] for t in texts], np.int32)
        labels[:, 3:] = -1
        scores = np.tile(np.linspace(1, 0, k, dtype=np.float32), (len(texts), 1))
        return TopK(labels, scores)

    def probabilities(self, scores):
        return scores / 2


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_one_row_for_each_in_order(tmp_path, monkeypatch, name):
    monkeypatch.setattr(predicting, "BATCH", 4)
    texts = ["x" * n for n in (5, 1, 9, 0, 3, 7, 7, 2, 8, 4)]
    rows = [{"id": f"d{i}", "text": text, "more": 1} for i, text in enumerate(texts)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    assert predict_file(LengthPredictor(), source, tmp_path / name, 5) == 10
    answers = read_rows(tmp_path / name)
    assert [a["id"] for a in answers] == [r["id"] for r in rows]
    assert [a["labels"][0]["id"] for a in answers] == [f"label {len(t)}" for t in texts]
    assert [len(a["labels"]) for a in answers] == [3] * 10
    assert answers[0]["labels"][1] == {"id": "label 0", "score": 0.75, "probability": 0.375}


def test_unlikely_labels_are_left_out(tmp_path):
    source = write_rows(tmp_path / "in.jsonl", [{"id": "d", "text": "abc"}])
    predict_file(LengthPredictor(), source, tmp_path / "out.jsonl", 5, min_probability=0.4)
    (answer,) = read_rows(tmp_path / "out.jsonl")
    assert [label["id"] for label in answer["labels"]] == ["label 3"]


def test_compressed_input_is_known_by_its_content(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(gzip.compress(b'{"id": "a", "text": "b"}\n'))
    assert [query.id for query in read_queries(source)] == ["a"]


def test_byte_order_mark_windows_lines_and_blank_lines_are_tolerated(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes('\ufeff{"id": "a", "text": "b"}\r\n\r\n{"id": "c", "text": ""}'.encode())
    assert [query.id for query in read_queries(source)] == ["a", "c"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b"', "is not JSON"),
        (b"[1]", "is no object"),
        (b'{"id": 1, "text": "x"}', '"id" is missing or no string'),
        (b'{"id": "b"}', '"text" is missing or no string'),
        (b'{"id": "b", "text": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_and_leaves_no_output(tmp_path, line, reason):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"id": "a", "text": "x"}\n' + line + b"\n")
    with pytest.raises(DataError, match=f"in.jsonl, line 2: .*{reason}"):
        predict_file(LengthPredictor(), source, target, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_damaged_archive_is_named(tmp_path):
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(b'{"id": "a", "text": "b"}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="damaged"):
        list(read_queries(source))


def test_an_older_output_stays_when_the_new_one_fails(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("nonsense")
    target.write_text("before")
    with pytest.raises(DataError):
        predict_file(LengthPredictor(), source, target, 3)
    assert target.read_text() == "before"


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "text": "b"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        predict_file(LengthPredictor(), source, tmp_path / "file" / "out.jsonl", 3)


def test_a_file_is_answered_by_one_at_a_time(tmp_path):
    source = write_rows(tmp_path / "in.jsonl", [{"id": "d", "text": "abc"}])
    target = tmp_path / "out.jsonl"
    with claimed(target), pytest.raises(BusyError, match="is being written by another"):
        predict_file(LengthPredictor(), source, target, 5)
    (tmp_path / ".out.jsonl.partial-1").write_text("left by a process that was killed")
    assert predict_file(LengthPredictor(), source, target, 5) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_a_folder_is_no_file_to_write(tmp_path):
    source = write_rows(tmp_path / "in.jsonl", [{"id": "d", "text": "abc"}])
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        predict_file(LengthPredictor(), source, tmp_path, 5)
