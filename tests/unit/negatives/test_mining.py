"""Negatives from nearest-neighbour search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcflow.config import RetrievalConfig
from xcflow.negatives import mining
from xcflow.retrieval.index import index_kind
from xcflow.topk import NO_LABEL
from xcflow.vectors import ShardedVectors


@pytest.fixture
def documents(tmp_path: Path) -> ShardedVectors:
    rng = np.random.default_rng(0)
    ShardedVectors.write(tmp_path / "v", iter([rng.standard_normal((20, 4)) for _ in range(2)]))
    return ShardedVectors.open(tmp_path / "v")


def test_the_nearest_labels_of_each_document(
    documents: ShardedVectors, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mining, "_BLOCK", 3)
    labels = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)
    rows = np.array([35, 2, 17, 20, 3])
    mined = mining.mine(documents, rows, labels, 4, RetrievalConfig())
    expected = np.argsort(-(documents.take(rows) @ labels.T), axis=1)[:, :4]
    np.testing.assert_array_equal(mined, expected)


def test_fewer_labels_than_asked_for(documents: ShardedVectors):
    labels = np.eye(4, dtype=np.float32)[:2]
    mined = mining.mine(documents, np.arange(3), labels, 4, RetrievalConfig())
    assert mined.dtype == np.int32
    assert (mined[:, 2:] == NO_LABEL).all()
    assert np.sort(mined[:, :2]).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("settings", "exactly", "kind"),
    [({}, 299, "ivf"), ({}, 300, "flat"), ({"index": "scan"}, 299, "scan")],
)
def test_many_labels_are_searched_in_inverted_lists(
    documents: ShardedVectors,
    settings: dict[str, Any],
    exactly: int,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(mining, "_SEARCHED_EXACTLY", exactly)
    config = RetrievalConfig(**settings)
    assert index_kind(mining._searched_once(config, 300), 300) == kind
    labels = np.random.default_rng(1).standard_normal((300, 4)).astype(np.float32)
    mined = mining.mine(documents, np.arange(9), labels, 4, config)
    assert (mined[:, 0] != NO_LABEL).all()


def test_a_document_is_compared_with_no_more_labels_the_more_there_are():
    shares = [
        mining._searched_once(RetrievalConfig(), labels).ivf_probe
        for labels in (10**5, 10**6, 10**7)
    ]
    assert shares == [0.01, 0.002, 0.0002]
