"""Which auxiliary vector a new label inherits, and where it then stands."""

import numpy as np
import pytest
import torch

from xcflow.labels import inheritance
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.labels.inheritance import NO_VECTOR, augmented, inherited_rows, mean_directions
from xcflow.ragged import Ragged

PLANE = np.eye(4, dtype=np.float16)


def unit(*rows):
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_hand(new, known, rows, nearest):
    """One label after the other, as the docstring has it."""
    found = []
    for vector in new:
        order = np.argsort(-(known.astype(np.float32) @ vector), kind="stable")
        votes: dict[int, float] = {}
        for label in [i for i in order if rows[i] != NO_VECTOR][:nearest]:
            cosine = float(known[label].astype(np.float32) @ vector)
            votes[rows[label]] = votes.get(rows[label], 0.0) + max(cosine, 0.0)
        found.append(max(votes, key=votes.__getitem__))
    return found


@pytest.mark.parametrize("nearest", [1, 2, 5, 100])
def test_the_nearest_labels_vote_by_their_cosines(nearest):
    rng = np.random.default_rng(3)
    known = unit(*rng.normal(size=(60, 8))).astype(np.float16)
    new = unit(*rng.normal(size=(20, 8)))
    rows = rng.integers(-1, 7, 60).astype(np.int32)
    found = inherited_rows(new, known, rows, nearest)
    assert found.tolist() == by_hand(new, known, rows, nearest)


def test_the_one_nearest_label_decides_alone():
    found = inherited_rows(unit([1, 0.2, 0, 0], [0, 0, 1, 0.9]), PLANE, np.arange(4, 8), 1)
    assert found.tolist() == [4, 6]


def test_two_of_a_cluster_outvote_a_nearer_label():
    rows = np.array([0, 1, 1, 2], np.int32)
    assert inherited_rows(unit([1, 0.8, 0.8, 0]), PLANE, rows, 3).tolist() == [1]
    assert inherited_rows(unit([1, 0.8, 0.8, 0]), PLANE, rows, 1).tolist() == [0]


@pytest.mark.parametrize(
    ("rows", "nearest"), [([NO_VECTOR] * 4, 3), ([0, 1, 2, 3], 0)], ids=["no vectors", "none asked"]
)
def test_where_nothing_is_to_be_inherited(rows, nearest):
    found = inherited_rows(unit([1, 0, 0, 0]), PLANE, np.array(rows, np.int32), nearest)
    assert found.tolist() == [NO_VECTOR]


def test_no_new_label():
    found = inherited_rows(np.empty((0, 4), np.float32), PLANE, np.arange(4, dtype=np.int32), 3)
    assert len(found) == 0


@pytest.mark.parametrize("parts", [(8,), (4, 4), (3, 5)])
@pytest.mark.parametrize("on_unit", [True, False])
def test_a_label_stands_where_training_would_put_it(parts, on_unit):
    rng = np.random.default_rng(1)
    encoded = rng.normal(size=(5, 8)).astype(np.float32)
    rows = np.array([2, 0, 1, 1, 2], np.int32)
    table = rng.normal(size=(3, 8)).astype(np.float16)
    trained = AuxiliaryVectors(rows, 3, parts, on_unit=on_unit)
    trained.table.weight.copy_(torch.from_numpy(table.astype(np.float32)))
    expected = trained.augment(torch.from_numpy(encoded), torch.arange(5), training=False)
    found = augmented(encoded, rows, table, parts, on_unit=on_unit)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_a_vector_a_label_stands_at_its_text():
    encoded = np.array([[3, 4], [0, 2]], np.float32)
    none = np.full(2, NO_VECTOR, np.int32)
    found = augmented(encoded, none, np.empty((0, 2), np.float16), (2,), on_unit=True)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 1]])


@pytest.mark.parametrize("block", [1, 2, 100])
def test_the_mean_direction_of_a_labels_documents(block, monkeypatch):
    monkeypatch.setattr(inheritance, "_BLOCK", block)
    documents = unit([1, 0, 0], [0, 1, 0], [0, 0, 1]).astype(np.float16)
    labels = Ragged.from_rows([[0, 2], [2], [1]])
    means, counts = mean_directions(documents, labels, np.array([2, 3, 1]), 4)
    assert counts.tolist() == [2, 0, 1]
    np.testing.assert_allclose(means, [[0.5**0.5, 0.5**0.5, 0], [0, 0, 0], [0, 0, 1]], atol=1e-6)
