"""Auxiliary vectors and the map from labels to them."""

import numpy as np
import pytest
import torch

from xcflow.config import ClusteringConfig
from xcflow.encoders.parts import unit_parts
from xcflow.labels.auxiliary import NO_VECTOR, AuxiliaryVectors, map_labels


def unit(points: int, dim: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(points)
    return torch.nn.functional.normalize(torch.randn(points, dim, generator=generator), dim=1)


def config(**values: float) -> ClusteringConfig:
    return ClusteringConfig(**values)  # type: ignore[arg-type]


def test_frequent_labels_get_a_row_of_their_own():
    counts = np.array([3, 90, 0, 40, 40, 7, 40, 1, 0, 20])
    settings = config(clusters=3, private_labels=4, private_min_count=20, min_cluster_size=1)
    rows, size = map_labels(unit(10), counts, settings, seed=1)
    assert size == 7
    shared = [0, 2, 5, 7, 8, 9]
    assert np.bincount(rows[shared], minlength=3).tolist() == [2, 2, 2]
    assert rows[[1, 3, 4, 6]].tolist() == [3, 4, 5, 6]


def test_of_frequent_labels_only_so_many():
    counts = np.array([50, 60, 70, 80])
    settings = config(clusters=1, private_labels=2, private_min_count=20, min_cluster_size=1)
    rows, size = map_labels(unit(4), counts, settings, seed=1)
    assert (rows.tolist(), size) == ([0, 0, 1, 2], 3)


def test_all_labels_private():
    settings = config(clusters=5, private_labels=9, private_min_count=1)
    rows, size = map_labels(unit(3), np.array([1, 1, 1]), settings, seed=1)
    assert (rows.tolist(), size) == ([0, 1, 2], 3)


def test_without_clusters_no_label_has_a_vector():
    rows, size = map_labels(torch.empty(0), np.array([99, 0]), config(clusters=0), seed=1)
    assert (rows.tolist(), size) == ([NO_VECTOR] * 2, 0)


@pytest.mark.parametrize(
    ("labels", "min_size", "expected"), [(1, 2, 1), (2, 2, 1), (5, 2, 2), (5, 1, 5), (9, 100, 1)]
)
def test_more_clusters_than_labels_allow_are_not_made(labels: int, min_size: int, expected: int):
    settings = config(clusters=4096, private_labels=0, min_cluster_size=min_size)
    rows, size = map_labels(unit(labels), np.zeros(labels, np.int64), settings, seed=1)
    assert size == expected
    assert set(rows.tolist()) == set(range(expected))


def auxiliary(
    rows: list[int], size: int, *, on_unit: bool = True, norm: float = 0.7
) -> AuxiliaryVectors:
    return AuxiliaryVectors(
        np.array(rows, np.int32),
        size,
        (4,),
        on_unit=on_unit,
        norm=norm,
        generator=torch.Generator().manual_seed(3),
    )


@pytest.mark.parametrize("on_unit", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_formula(on_unit: bool, training: bool):
    vectors = auxiliary([1, 0, 1, 2], 3, on_unit=on_unit)
    encoded = 5.0 * torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    found = vectors.augment(encoded, torch.tensor([2, 3]), training=training)
    for i, row in enumerate([1, 2]):
        base = encoded[i] / encoded[i].norm() if on_unit else encoded[i]
        expected = base + vectors.table.weight[row]
        torch.testing.assert_close(found[i].detach(), expected / expected.norm())


def test_without_rows_it_is_plain_normalisation():
    vectors = auxiliary([NO_VECTOR] * 3, 0)
    encoded = 3.0 * unit(3)
    found = vectors.augment(encoded, torch.arange(3), training=True)
    torch.testing.assert_close(found, unit(3))
    vectors.step(1.0)


def test_only_rows_of_the_batch_learn():
    vectors = auxiliary([0, 1, 1, 2], 3)
    before = vectors.table.weight.clone()
    encoded = unit(3).requires_grad_()
    loss = vectors.augment(encoded, torch.tensor([0, 1, 2]), training=True)[:, 0].sum()
    loss.backward()
    assert encoded.grad is not None
    vectors.step(0.01)
    changed = (vectors.table.weight != before).any(1)
    assert changed.tolist() == [True, True, False]


def test_vectors_start_in_random_directions_at_the_given_norm():
    weight = auxiliary([0], 5).table.weight
    assert torch.equal(weight, auxiliary([0], 5).table.weight)
    torch.testing.assert_close(weight.norm(dim=1), torch.full((5,), 0.7))
    assert float((weight @ weight.T).fill_diagonal_(0).abs().max()) < 0.48
    assert not auxiliary([0], 5, norm=0.0).table.weight.any()


def test_at_norm_zero_labels_start_at_their_texts():
    vectors = auxiliary([0, 1, 1], 2, norm=0.0)
    found = vectors.augment(3.0 * unit(3), torch.arange(3), training=False)
    torch.testing.assert_close(found, unit(3))


def test_each_part_of_an_encoder_follows_the_formula():
    rows, parts = np.array([1, 0, 1], np.int32), (3, 5)
    made = AuxiliaryVectors(
        rows, 2, parts, on_unit=True, norm=0.7, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(4)
    encoded = unit_parts(torch.randn(3, 8, generator=generator), parts)
    found = made.augment(encoded, torch.arange(3), training=False)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    start = 0
    for width in parts:
        part = slice(start, start + width)
        base = torch.nn.functional.normalize(encoded[:, part], dim=1)
        added = base + made.table.weight[torch.tensor([1, 0, 1]), part]
        torch.testing.assert_close(made.table.weight[:, part].norm(dim=1), torch.full((2,), 0.7))
        expected = torch.nn.functional.normalize(added, dim=1) / 2**0.5
        torch.testing.assert_close(found[:, part], expected)
        start += width
