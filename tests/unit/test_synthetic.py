"""Generated catalogues: the same each time, of the shape that they promise."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import Synthetic

SIZES = Synthetic(labels=2_000, documents=25_000, test_documents=300)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    SIZES.write(folder)
    return folder


def rows(folder: Path, role: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{role}.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_the_same_numbers_give_the_same_bytes(catalogue: Path, tmp_path: Path):
    SIZES.write(tmp_path / "again")
    Synthetic(labels=2_000, documents=25_000, test_documents=300, seed=2).write(tmp_path / "other")
    for role in ("labels", "train", "test"):
        name = f"{role}.jsonl.gz"
        written = (catalogue / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == written
        assert (tmp_path / "other" / name).read_bytes() != written


def test_documents_name_one_to_five_labels_that_there_are(catalogue: Path):
    labels = [row["id"] for row in rows(catalogue, "labels")]
    assert len(set(labels)) == len(labels) == 2_000
    for role, size in (("train", 25_000), ("test", 300)):
        documents = rows(catalogue, role)
        assert len({row["id"] for row in documents}) == len(documents) == size
        assert all(row["text"] for row in documents)
        assert {len(row["labels"]) for row in documents} == {1, 2, 3, 4, 5}
        assert all(len(set(row["labels"])) == len(row["labels"]) for row in documents)
        assert {label for row in documents for label in row["labels"]} <= set(labels)


def test_no_document_of_the_test_split_is_one_of_training(catalogue: Path):
    texts = {row["text"] for row in rows(catalogue, "train")}
    assert not any(row["text"] in texts for row in rows(catalogue, "test"))


def test_label_frequencies_follow_the_power_law(catalogue: Path):
    counts = Counter(label for row in rows(catalogue, "train") for label in row["labels"])
    falling = np.sort(list(counts.values()))[::-1]
    middle = slice(20, 1_000)  # where neither a topic's size nor chance matters much
    ranks = np.arange(1, len(falling) + 1)
    slope = np.polyfit(np.log(ranks[middle]), np.log(falling[middle]), 1)[0]
    assert slope == pytest.approx(-SIZES.exponent, abs=0.1)


def test_a_document_shares_words_with_its_labels(catalogue: Path):
    words = {row["id"]: set(row["text"].split()) for row in rows(catalogue, "labels")}
    names = list(words)
    own, other = 0, 0
    for i, row in enumerate(rows(catalogue, "test")):
        text = set(row["text"].split())
        own += len(text & words[row["labels"][0]])
        other += len(text & words[names[i]])
    assert own > 300  # of four words, each with probability 0.6
    assert other < 0.1 * own
