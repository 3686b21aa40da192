"""Encoders written to a folder and read back."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.encoders import build
from xcflow.encoders.build import initial_encoder, load_encoder, save_encoder
from xcflow.errors import ArtifactError
from xcflow.ragged import Ragged


@pytest.fixture(
    params=[
        ("bag_of_embeddings", 1),
        ("bag_of_embeddings", 2),
        ("transformer", 1),
        ("transformer_with_bag", 1),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def config(request: pytest.FixtureRequest, pretrained: Path) -> EncoderConfig:
    kind, bags = request.param
    return EncoderConfig(kind=kind, bags=bags, model=str(pretrained), bf16="off")


def test_vectors_are_the_same_after_saving(config: EncoderConfig, themed: Dataset, tmp_path: Path):
    encoder = initial_encoder(config, themed)
    before = encoder.encode(themed.labels.tokens)
    save_encoder(encoder, tmp_path, {"auxiliary.weight": torch.ones(2, 3)})
    loaded, tensors = load_encoder(tmp_path)
    assert not loaded.training
    assert loaded.dim == encoder.dim
    assert torch.equal(loaded.encode(themed.labels.tokens), before)
    assert torch.equal(tensors["auxiliary.weight"], torch.ones(2, 3))


def test_a_saved_encoder_needs_no_pretrained_model(
    config: EncoderConfig, themed: Dataset, pretrained: Path, tmp_path: Path
):
    moved = shutil.copytree(pretrained, tmp_path / "model")
    encoder = initial_encoder(dataclasses.replace(config, model=str(moved)), themed)
    (tmp_path / "saved").mkdir()
    save_encoder(encoder, tmp_path / "saved")
    shutil.rmtree(moved)
    loaded, _ = load_encoder(tmp_path / "saved")
    assert torch.equal(loaded.encode(themed.labels.tokens), encoder.encode(themed.labels.tokens))


def test_saving_twice_gives_the_same_bytes(config: EncoderConfig, themed: Dataset, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_encoder(initial_encoder(config, themed), tmp_path / name)
    for file in ("encoder.json", "encoder.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_frequency_counts_a_token_once_in_a_text(monkeypatch: pytest.MonkeyPatch):
    rows = [[1, 1, 4], [4], [], [0, 4, 0], [2]]
    expected = [sum(token in row for row in rows) for token in range(6)]
    for block in (100, 2):
        monkeypatch.setattr(build, "_BLOCK", block)
        found = build._document_frequency(Ragged.from_rows(rows, np.uint8), 6)
        assert found.tolist() == expected


def test_the_cosine_of_encoders_side_by_side_is_the_mean_of_their_cosines(
    themed: Dataset, pretrained: Path
):
    cosines = {}
    for kind in ("bag_of_embeddings", "transformer", "transformer_with_bag"):
        config = EncoderConfig(kind=kind, model=str(pretrained), bf16="off")
        vectors = initial_encoder(config, themed).encode(themed.labels.tokens)
        cosines[kind] = vectors @ vectors.T
    mean = (cosines["bag_of_embeddings"] + cosines["transformer"]) / 2
    torch.testing.assert_close(cosines["transformer_with_bag"], mean)


@pytest.fixture
def saved(themed: Dataset, pretrained: Path, tmp_path: Path) -> Path:
    save_encoder(initial_encoder(EncoderConfig(model=str(pretrained)), themed), tmp_path)
    return tmp_path


def test_a_damaged_folder_is_refused(saved: Path):
    weights = saved / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="holds no readable encoder"):
        load_encoder(saved)
    weights.unlink()
    with pytest.raises(ArtifactError, match="holds no readable encoder"):
        load_encoder(saved)


def test_another_kind_is_refused(saved: Path):
    (saved / "encoder.json").write_text('{"kind": "oracle"}')
    with pytest.raises(ArtifactError, match="unknown kind of encoder 'oracle'"):
        load_encoder(saved)
