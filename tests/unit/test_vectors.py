"""Vectors in shards."""

from pathlib import Path

import numpy as np
import pytest

from xcflow.vectors import ShardedVectors


@pytest.fixture
def blocks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, 3)).astype(np.float32) for rows in (4, 4, 1)]


@pytest.fixture
def vectors(tmp_path: Path, blocks: list[np.ndarray]) -> ShardedVectors:
    ShardedVectors.write(tmp_path / "v", iter(blocks))
    return ShardedVectors.open(tmp_path / "v")


def test_rows_of_all_shards_in_any_order(vectors: ShardedVectors, blocks: list[np.ndarray]):
    everything = np.concatenate(blocks).astype(np.float16).astype(np.float32)
    assert len(vectors) == 9
    assert vectors.dim == 3
    for rows in ([8, 0, 4, 3, 0, 7], [], [5]):
        taken = vectors.take(np.array(rows, np.int64))
        assert taken.dtype == np.float32
        np.testing.assert_array_equal(taken, everything[rows])
    np.testing.assert_array_equal(vectors.all(), everything)


def test_a_shard_is_one_memory_mapped_file_of_half_precision(
    vectors: ShardedVectors, tmp_path: Path
):
    files = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert files == ["00000.npy", "00001.npy", "00002.npy"]
    assert np.load(tmp_path / "v" / "00000.npy").dtype == np.float16
    assert all(isinstance(shard, np.memmap) for shard in vectors._shards)


def test_more_shards_than_one_digit_counts(tmp_path: Path):
    ShardedVectors.write(tmp_path / "v", (np.full((1, 2), i) for i in range(12)))
    assert ShardedVectors.open(tmp_path / "v").all()[:, 0].tolist() == list(range(12))
