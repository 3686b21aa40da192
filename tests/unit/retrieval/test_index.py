"""Exact and approximate search."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.config import RetrievalConfig
from xcflow.retrieval import exact, index
from xcflow.retrieval.exact import search
from xcflow.retrieval.index import Kind, VectorIndex, index_kind, recall_at
from xcflow.topk import NO_LABEL, TopK

KINDS: tuple[Kind, ...] = ("flat", "scan", "ivf")


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def config(kind: Kind) -> RetrievalConfig:
    return RetrievalConfig(index=kind, ivf_probe=0.5)


@given(
    queries=st.integers(0, 5), keys=st.integers(0, 9), k=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_exact_search_is_a_sorted_product(queries: int, keys: int, k: int, seed: int):
    q, x = unit(queries, 3, seed), unit(keys, 3, seed + 1)
    found = search(q, x, k)
    assert found.labels.shape == found.scores.shape == (queries, k)
    products = q @ x.T
    order = np.argsort(-products, axis=1)[:, :k]
    n = min(k, keys)
    np.testing.assert_array_equal(found.labels[:, :n], order)
    np.testing.assert_allclose(
        found.scores[:, :n], np.take_along_axis(products, order, 1), atol=1e-6
    )
    assert (found.labels[:, n:] == NO_LABEL).all()
    assert (found.scores[:, n:] == -np.inf).all()


def test_exact_search_goes_by_blocks_and_takes_any_layout(monkeypatch: pytest.MonkeyPatch):
    q, x = unit(10, 4, 0), unit(20, 4, 1)
    whole = search(q, x, 5)
    monkeypatch.setattr(exact, "_QUERIES", 3)
    for keys in (x, np.asfortranarray(x), x.astype(np.float64)):
        found = search(q[::1], keys, 5)
        np.testing.assert_array_equal(found.labels, whole.labels)


@given(
    queries=st.integers(0, 4), keys=st.integers(0, 12), k=st.integers(1, 9), seed=st.integers(0, 99)
)
def test_keys_in_blocks_are_searched_as_if_they_were_whole(
    queries: int, keys: int, k: int, seed: int
):
    q, x = unit(queries, 4, seed), unit(keys, 4, seed + 1)
    cuts = np.sort(np.random.default_rng(seed).integers(0, keys + 1, 2))
    found, whole = exact.search_blocks(q, np.split(x, cuts), k), search(q, x, k)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-6)
    assert exact.search_blocks(q, [], k).labels.shape == (queries, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.6, 1.0])
def test_a_restricted_index_finds_nearly_all_of_what_it_may(kind: Kind, share: float):
    vectors, queries = unit(2000, 8, 0), unit(50, 8, 1)
    only = np.random.default_rng(2).random(2000) < share
    index = VectorIndex.build(vectors, config(kind)).restricted_to(only)
    found = index.search(queries, 60)
    shown = found.labels != NO_LABEL
    assert only[found.labels[shown]].all()
    assert (found.scores[~shown] == -np.inf).all()
    expected = search(queries, vectors[only], 60)
    rows = np.append(np.flatnonzero(only), NO_LABEL)[expected.labels]
    exactly = TopK(rows.astype(np.int32), expected.scores)
    assert recall_at(found, exactly) >= (0.85 if kind == "ivf" else 1.0)
    assert len(index) == 2000  # places stay what they were


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_nearly_all_and_keeps_it_on_disk(kind: Kind, tmp_path: Path):
    vectors, queries = unit(2000, 8, 0), unit(50, 8, 1)
    index = VectorIndex.build(vectors, config(kind))
    exactly = search(queries, vectors, 10)
    found = index.search(queries, 10)
    assert len(index) == 2000
    assert recall_at(found, exactly) >= (0.9 if kind == "ivf" else 1.0)
    assert (np.diff(found.scores, axis=1) <= 1e-6).all()
    products = np.einsum("nkd,nd->nk", vectors[found.labels], queries)
    np.testing.assert_allclose(found.scores, products, atol=2e-3)
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", kind)
    again = loaded.search(queries, 10)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.scores, found.scores)
    assert {path.name for path in tmp_path.iterdir()} == (
        {"index.npy"} if kind == "flat" else {"index.npy", "index.faiss"}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", [1, 3, 70])
def test_fewer_vectors_than_asked_for(kind: Kind, vectors: int):
    index = VectorIndex.build(unit(vectors, 4, 0), config(kind))
    found = index.search(unit(5, 4, 1), 100)
    assert found.labels.shape == (5, 100)
    assert ((found.labels == NO_LABEL) == (found.scores == -np.inf)).all()
    assert (found.labels[:, vectors:] == NO_LABEL).all()
    for row in found.labels:
        present = row[row != NO_LABEL]
        assert len(set(present.tolist())) == len(present) >= min(vectors, 1)
    # An inverted file has lists that are not read.
    share = (found.labels[:, :vectors] != NO_LABEL).mean()
    assert share >= {"flat": 1.0, "scan": 1.0, "ivf": 0.4}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries(kind: Kind):
    index = VectorIndex.build(unit(80, 4, 0), config(kind))
    assert index.search(np.empty((0, 4), np.float32), 3).labels.shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_give_the_same_bytes(kind: Kind, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        VectorIndex.build(unit(300, 8, 0), config(kind)).save(tmp_path / name / "index")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "vectors", "expected"),
    [
        ({}, 100, "flat"),
        ({}, 101, "scan"),
        ({}, 200, "scan"),
        ({}, 201, "ivf"),
        ({"index": "ivf"}, 1, "ivf"),
        ({"index": "flat"}, 10**9, "flat"),
    ],
)
def test_the_kind_follows_the_size_unless_it_is_given(
    settings: dict[str, str], vectors: int, expected: Kind
):
    retrieval = RetrievalConfig(flat_limit=100, scan_limit=200, **settings)  # type: ignore[arg-type]
    assert index_kind(retrieval, vectors) == expected


def test_recall_counts_what_was_found_of_what_there_is():
    exactly = TopK(np.array([[1, 2, 3], [4, 5, NO_LABEL]], np.int32), np.zeros((2, 3), np.float32))
    found = TopK(
        np.array([[3, 9, 1], [NO_LABEL, NO_LABEL, 5]], np.int32), np.zeros((2, 3), np.float32)
    )
    assert recall_at(found, exactly) == pytest.approx(3 / 5)
    nothing = TopK.none(2, 3)
    assert recall_at(nothing, nothing) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_is_answered_alike_alone_and_among_others(kind: Kind):
    vectors, queries = unit(3000, 32, 0), unit(40, 32, 1)
    built = VectorIndex.build(vectors, config(kind))
    together = built.search(queries, 100)
    least = 0.5 if kind == "ivf" else 0.99  # random vectors have no lists
    assert recall_at(together, search(queries, vectors, 100)) >= least
    for row, query in enumerate(queries):
        alone = built.search(query[None], 100)
        np.testing.assert_array_equal(alone.labels[0], together.labels[row])
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_a_lone_query_wakes_no_other_thread():
    code = (
        "import os, numpy as np\n"
        "from xcflow.retrieval.index import VectorIndex\n"
        "import faiss\n"
        "index = VectorIndex(np.eye(400, 8, dtype=np.float32), 'flat')\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before, query = count(), np.ones((9, 8), np.float32)\n"
        "index.search(query[:1], 5)\n"
        "index.products(query[:1], np.zeros(5, np.int64), np.arange(5))\n"
        "alone = count() - before\n"
        "index.search(query, 5)\n"  # these are shared
        "print(alone, count() - before, faiss.omp_get_max_threads())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["0", "2", "3"]


def test_a_scan_is_made_in_blocks(monkeypatch: pytest.MonkeyPatch):
    vectors, queries = unit(900, 7, 0), unit(9, 7, 1)  # an odd width
    built = VectorIndex.build(vectors, config("scan"))
    whole = built.search(queries, 20)
    monkeypatch.setattr(index, "_PRODUCTS", 1000)
    parts = built.search(queries, 20)
    np.testing.assert_array_equal(parts.labels, whole.labels)


@pytest.mark.parametrize("half", [True, False])
def test_products_of_pairs(half: bool):
    vectors, queries = unit(80, 8, 0), unit(7, 8, 1)
    rows = np.sort(np.random.default_rng(2).choice([0, 1, 3, 4, 6], 400))  # 2 and 5 have none
    places = np.random.default_rng(3).integers(0, 80, 400)
    built = VectorIndex.build(vectors, config("scan"), half=half)
    assert built.vectors.dtype == (np.float16 if half else np.float32)
    found = built.products(queries, rows, places)
    expected = (queries[rows] * np.asarray(built.vectors, np.float32)[places]).sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_scan_in_half_precision(tmp_path: Path):
    vectors, queries = unit(3000, 32, 0), unit(9, 32, 1)
    built = VectorIndex.build(vectors, config("scan"), half=True)
    found = built.search(queries, 50)
    assert recall_at(found, search(queries, vectors, 50)) >= 0.98
    built.save(tmp_path / "index")
    again = VectorIndex.load(tmp_path / "index", "scan").search(queries, 50)
    np.testing.assert_array_equal(again.scores, found.scores)
