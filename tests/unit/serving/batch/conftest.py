"""A predictor that answers by rules, and batches so small that short files have many parts."""

import csv
import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

from xcflow.catalogue.string_table import StringTable
from xcflow.home import Home
from xcflow.serving.batch import job as job_module
from xcflow.serving.batch import rows_in
from xcflow.serving.batch.job import BatchJob
from xcflow.topk import TopK


class LengthPredictor:
    """Answers each text with three labels, the first of which its length names."""

    label_ids = StringTable.from_list([f"label {i}" for i in range(100)])

    def __init__(self, digest="a model"):
        self.manifest = SimpleNamespace(digest=digest)
        self.asked = []

    def top_k(self, texts, k, voice="fused"):
        self.asked += texts
        labels = np.array([[len(t) % 100, *range(k - 1)] for t in texts], np.int32)
        labels[:, 3:] = -1
        scores = np.tile(np.linspace(1, 0, k, dtype=np.float32), (len(texts), 1))
        return TopK(labels, scores)

    def probabilities(self, scores):
        return scores / 2


def write_rows(path, rows):
    """Write ``(id, text)`` rows in the format that the name tells."""
    if path.suffix == ".parquet":
        from pyarrow import Table, parquet

        columns = {"id": [row[0] for row in rows], "text": [row[1] for row in rows]}
        parquet.write_table(Table.from_pydict(columns), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        if ".csv" in path.name:
            csv.writer(stream).writerows([("id", "text"), *rows])
        else:
            stream.writelines(json.dumps({"id": i, "text": t}) + "\n" for i, t in rows)
    return path


def read_answers(path):
    """Rows ``(id, [(label, score, probability)])``; a CSV file has none for an empty answer."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows = parquet.read_table(path).to_pylist()
        return [
            (
                row["id"],
                [
                    (label, round(score, 6), round(probability, 4))
                    for label, score, probability in zip(
                        row["labels"], row["scores"], row["probabilities"], strict=True
                    )
                ],
            )
            for row in rows
        ]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as stream:
        if ".csv" not in path.name:
            rows = [json.loads(line) for line in stream]
            return [(row["id"], [tuple(x.values()) for x in row["labels"]]) for row in rows]
        answers = []
        for row in csv.DictReader(stream):
            if row["rank"] == "1":
                answers.append((row["id"], []))
            assert row["id"] == answers[-1][0]
            answers[-1][1].append((row["label"], float(row["score"]), float(row["probability"])))
            assert int(row["rank"]) == len(answers[-1][1])
        return answers


@pytest.fixture
def small_parts(monkeypatch):
    """Batches of two texts, parts of three batches."""
    monkeypatch.setattr(rows_in, "BATCH_TEXTS", 2)
    monkeypatch.setattr(job_module, "BATCHES_IN_PART", 3)


@pytest.fixture
def answer(tmp_path):
    """Run a job on paths; returns its outcome."""

    def run(source, target, k=5, min_probability=0.0, predictor=None):
        job = BatchJob(str(source), str(target), k, min_probability)
        return job.run(predictor or LengthPredictor(), Home.at(tmp_path / "home"))

    return run


@pytest.fixture(name="write_rows")
def write_rows_fixture():
    return write_rows


@pytest.fixture(name="read_answers")
def read_answers_fixture():
    return read_answers


@pytest.fixture(name="LengthPredictor")
def length_predictor_fixture():
    return LengthPredictor
