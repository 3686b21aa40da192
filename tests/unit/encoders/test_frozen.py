"""Encoders for answering against the trained ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xcflow.encoders.bag import BagOfEmbeddings
from xcflow.encoders.base import Encoder
from xcflow.encoders.build import save_encoder
from xcflow.encoders.files import SETTINGS, WEIGHTS
from xcflow.encoders.frozen import load_frozen, unit_parts
from xcflow.encoders.parts import unit_parts as torch_unit_parts
from xcflow.encoders.phrases import Phrases
from xcflow.encoders.side_by_side import SideBySide
from xcflow.errors import ArtifactError
from xcflow.ragged import Ragged

VOCABULARY, WIDTH = 40, 8


def bag(seed: int, phrases: Phrases | None = None) -> BagOfEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    rows = VOCABULARY + (len(phrases) if phrases else 0)
    encoder = BagOfEmbeddings(torch.randn(rows, WIDTH, generator=generator), 0.1, phrases)
    with torch.no_grad():
        encoder.residual.weight.normal_(generator=generator)
        encoder.residual.bias.normal_(generator=generator)
    return encoder


def texts(seed: int) -> Ragged:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 2, 30, *rng.integers(0, 20, 30)]
    return Ragged.from_rows([rng.integers(0, VOCABULARY, n) for n in lengths], np.uint16)


def phrases() -> Phrases:
    words = np.arange(VOCABULARY) % 7 != 0
    return Phrases.of([texts(1), texts(2)], words, most=200, min_count=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bag(1),
        lambda: bag(1, phrases()),
        lambda: SideBySide([bag(1, phrases()), bag(2, phrases())]),
    ],
    ids=["bag", "with phrases", "two bags"],
)
@pytest.mark.parametrize("unit", [True, False])
def test_vectors_are_those_of_the_trained_encoder(make, unit: bool, tmp_path: Path):
    trained: Encoder = make().eval()
    save_encoder(trained, tmp_path, {"auxiliary.weight": torch.zeros(3, WIDTH)})
    frozen = load_frozen(tmp_path)
    assert (frozen.dim, frozen.parts) == (trained.dim, trained.parts)
    for tokens in (texts(2), texts(3), texts(4).slice(0, 0)):
        expected = trained.encode(tokens, unit=unit).numpy()
        found = frozen.encode(tokens, unit=unit)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_text_is_answered_alike_alone_and_among_others(tmp_path: Path):
    save_encoder(bag(1, phrases()).eval(), tmp_path)
    frozen, tokens = load_frozen(tmp_path), texts(2)
    alone = [frozen.encode(tokens.slice(row, row + 1)) for row in range(len(tokens))]
    np.testing.assert_array_equal(np.concatenate(alone), frozen.encode(tokens))


def test_unit_parts():
    vectors = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    expected = torch_unit_parts(torch.from_numpy(vectors), (4, 8)).numpy()
    np.testing.assert_allclose(unit_parts(vectors, (4, 8)), expected, atol=1e-6)


@pytest.mark.parametrize("file", [SETTINGS, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40])
def test_a_damaged_encoder_is_named(file: str, content: bytes | None, tmp_path: Path):
    save_encoder(bag(1).eval(), tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError, match="holds no readable encoder"):
        load_frozen(tmp_path)


def test_a_bag_is_answered_without_torch(tmp_path: Path):
    save_encoder(bag(1, phrases()).eval(), tmp_path)
    code = (
        "import sys, json, pathlib, xcflow.serving.predictor\n"
        "from xcflow.encoders.frozen import load_frozen\n"
        f"load_frozen(pathlib.Path({str(tmp_path)!r}))\n"
        "heavy = {'torch', 'transformers', 'pandas', 'mlflow', 'kfp', 'sklearn'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(done.stdout) == []
