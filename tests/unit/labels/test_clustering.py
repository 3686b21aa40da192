"""Balanced hierarchical 2-means."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xcflow.labels.clustering import balanced_clusters


def unit(points: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(points, dim, generator=generator), dim=1)


def cohesion(vectors: torch.Tensor, members: np.ndarray) -> float:
    """Mean similarity of points to the centroid of their cluster, cluster by cluster."""
    total = 0.0
    for cluster in np.unique(members):
        inside = vectors[torch.from_numpy(members == cluster)]
        total += float((inside @ torch.nn.functional.normalize(inside.mean(0), dim=0)).sum())
    return total / len(vectors)


@given(points=st.integers(1, 70), seed=st.integers(0, 9), data=st.data())
def test_any_number_of_clusters_is_used_evenly(points: int, seed: int, data: st.DataObject):
    clusters = data.draw(st.integers(1, points))
    vectors = unit(points, 3, seed)
    members = balanced_clusters(vectors, clusters, seed=seed)
    sizes = np.bincount(members, minlength=clusters)
    assert members.shape == (points,)
    assert members.dtype == np.int32
    assert len(sizes) == clusters
    assert sizes.sum() == points
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(members, balanced_clusters(vectors, clusters, seed=seed))


@pytest.mark.parametrize("clusters", [2, 3, 7, 16, 29])
def test_clusters_hold_together_better_than_random_ones(clusters: int):
    vectors = unit(300, 8, 1)
    members = balanced_clusters(vectors, clusters, seed=3)
    shuffled = np.random.default_rng(0).permutation(members)
    assert cohesion(vectors, members) > cohesion(vectors, shuffled) + 0.05


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_separate_groups_are_found(groups: int):
    centres = torch.eye(8)[:groups]
    truth = np.random.default_rng(groups).permutation(np.repeat(np.arange(groups), 25))
    noise = 0.02 * torch.randn(len(truth), 8, generator=torch.Generator().manual_seed(2))
    vectors = torch.nn.functional.normalize(centres[torch.from_numpy(truth)] + noise, dim=1)
    # A split that starts with both points in one group can end between groups: of several seeds
    # the best one must find them.
    pairs = [
        len(set(zip(truth, balanced_clusters(vectors, groups, seed=s), strict=True)))
        for s in range(5)
    ]
    assert min(pairs) == groups


def test_siblings_have_neighbouring_numbers():
    vectors = unit(64, 4, 4)
    fine = balanced_clusters(vectors, 8, seed=1)
    np.testing.assert_array_equal(fine // 4, balanced_clusters(vectors, 2, seed=1))


@pytest.mark.parametrize("clusters", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("vectors", [torch.zeros(10, 3), torch.eye(3)[torch.zeros(10).long()]])
def test_points_that_cannot_be_told_apart_are_dealt_out(vectors: torch.Tensor, clusters: int):
    sizes = np.bincount(balanced_clusters(vectors, clusters, seed=0))
    assert sizes.max() - sizes.min() <= 1


def test_as_many_clusters_as_points():
    members = balanced_clusters(unit(11, 3, 0), 11, seed=0)
    assert sorted(members.tolist()) == list(range(11))


def test_more_points_than_a_block(monkeypatch: pytest.MonkeyPatch):
    vectors = unit(50, 3, 6)
    whole = balanced_clusters(vectors, 6, seed=0)
    monkeypatch.setattr("xcflow.labels.clustering._BLOCK", 7)
    np.testing.assert_array_equal(balanced_clusters(vectors, 6, seed=0), whole)


@pytest.mark.parametrize("clusters", [0, 4])
def test_impossible_numbers_are_refused(clusters: int):
    with pytest.raises(ValueError, match=f"cannot make {clusters} clusters of 3 points"):
        balanced_clusters(unit(3, 2, 0), clusters, seed=0)
