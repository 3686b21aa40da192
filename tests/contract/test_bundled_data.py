"""The bundled data set is what its meta.json says, and holds together."""

import gzip
import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder():
    return Path(str(resources.files("xcflow") / "data" / "debian-related"))


@pytest.fixture(scope="module")
def meta(folder):
    return json.loads((folder / "meta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(folder):
    def read(name):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    return {name: read(name) for name in ("labels", "trn", "tst", "tst_filter")}


def test_files_are_untouched(folder, meta):
    for name, digest in meta["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_counts_are_those_stated(meta, rows):
    counted = {
        "train_points": len(rows["trn"]),
        "test_points": len(rows["tst"]),
        "labels": len(rows["labels"]),
        "train_pairs": sum(len(row["labels"]) for row in rows["trn"]),
        "test_pairs": sum(len(row["labels"]) for row in rows["tst"]),
    }
    assert counted == {name: meta[name] for name in counted}


def test_every_named_label_exists_and_has_a_training_document(rows):
    labels = {row["id"] for row in rows["labels"]}
    trained = {label for row in rows["trn"] for label in row["labels"]}
    tested = {label for row in rows["tst"] for label in row["labels"]}
    assert trained == labels
    assert tested <= labels


def test_the_filter_belongs_to_the_test_documents_and_hides_no_truth(rows):
    for row, left_out in zip(rows["tst"], rows["tst_filter"], strict=True):
        assert row["id"] == left_out["id"]
        assert not set(row["labels"]) & set(left_out["labels"])


def test_no_document_is_in_both_splits(rows):
    assert not {row["id"] for row in rows["trn"]} & {row["id"] for row in rows["tst"]}
