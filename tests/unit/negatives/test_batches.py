"""The order in which documents are learned from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xcflow.negatives.batches import Curriculum, DocumentMemory, document_order


def unit(points: int, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(points, dim, generator=generator), dim=1)


@given(
    documents=st.integers(1, 40),
    epoch=st.integers(0, 9),
    size=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_every_document_comes_once_and_an_order_can_be_made_again(
    documents: int, epoch: int, size: int, seed: int
):
    arguments = (epoch, unit(documents, 3), documents, Curriculum(2, size, 1), seed)
    order = document_order(*arguments)
    assert sorted(order.tolist()) == list(range(documents))
    np.testing.assert_array_equal(order, document_order(*arguments))


def test_clusters_double_from_the_epoch_they_begin_with():
    curriculum = Curriculum(start_epoch=3, initial_size=4, double_every=2)
    sizes = [curriculum.cluster_size(epoch) for epoch in range(9)]
    assert sizes == [1, 1, 1, 4, 4, 8, 8, 16, 16]
    assert Curriculum(0, 5, 0).cluster_size(99) == 5


def purity(order: np.ndarray, theme: np.ndarray, size: int) -> float:
    """Share of documents that stand in the commonest theme of their stretch of the order."""
    stretches = theme[order].reshape(-1, size)
    return float(np.mean([np.bincount(s).max() / size for s in stretches]))


def test_near_duplicates_lie_side_by_side():
    rng = np.random.default_rng(1)
    found, by_chance = [], []
    for seed in range(10):
        theme = rng.permutation(np.repeat(np.arange(8), 6))
        memory = torch.eye(8)[torch.from_numpy(theme)] + 0.02 * unit(48, 8, seed)
        order = document_order(0, memory, 48, Curriculum(0, 6, 0), seed)
        found.append(purity(order, theme, 6))
        by_chance.append(purity(rng.permutation(48), theme, 6))
    assert np.mean(found) > 0.85
    assert np.mean(by_chance) < 0.5


def test_order_differs_between_epochs_and_seeds():
    memory, curriculum = unit(40, 4), Curriculum(1, 4, 0)
    for changed in ((2, 0), (1, 1)):
        other = document_order(changed[0], memory, 40, curriculum, changed[1])
        assert (document_order(1, memory, 40, curriculum, 0) != other).any()


def test_clusters_come_in_random_order():
    side = np.arange(64) % 2
    memory = torch.nn.functional.normalize(
        2.0 * torch.eye(8)[torch.from_numpy(side)] + 0.3 * unit(64, 8), dim=1
    )
    order = document_order(0, memory, 64, Curriculum(0, 4, 0), 7)
    # Siblings lie on the same side; side by side they would fill half of the order.
    assert 0.2 < side[order[:32]].mean() < 0.8
    assert purity(order, side, 4) == 1.0


def test_documents_of_a_cluster_are_shuffled():
    memory, curriculum = unit(40, 4), Curriculum(0, 20, 0)
    orders = [document_order(epoch, memory, 40, curriculum, 0) for epoch in range(2)]
    assert (orders[0] != np.sort(orders[0])).any()
    assert (orders[0][:20] != orders[1][:20]).any()


def test_the_order_follows_the_memory_that_it_is_given():
    themes = np.arange(48) // 6, np.arange(48) % 8
    for now, other in (themes, themes[::-1]):
        memory = torch.eye(8)[torch.from_numpy(now)] + 0.02 * unit(48, 8)
        order = document_order(5, memory, 48, Curriculum(5, 6, 0), 7)
        assert purity(order, now, 6) > 0.7
        assert purity(order, other, 6) < 0.6


@pytest.mark.parametrize("width", [8, 20])
def test_a_wide_memory_keeps_vectors_as_they_are(width: int):
    memory = DocumentMemory(5, 8, width, seed=1)
    vectors = unit(2, 8)
    memory.put(np.array([3, 1]), 7.0 * vectors)
    torch.testing.assert_close(memory.vectors[[3, 1]], vectors)
    assert not memory.vectors[[0, 2, 4]].any()


def test_a_narrow_memory_keeps_who_is_alike():
    vectors = unit(200, 256, seed=2)
    memory = DocumentMemory(200, 256, 128, seed=1)
    memory.put(np.arange(200), vectors)
    assert memory.vectors.shape == (200, 128)
    torch.testing.assert_close(memory.vectors.norm(dim=1), torch.ones(200))
    error = (memory.vectors @ memory.vectors.T - vectors @ vectors.T).abs()
    assert error.mean() < 1.5 / 128**0.5
