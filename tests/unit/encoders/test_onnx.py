"""Transformers that answer by onnxruntime against the trained ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xcflow.config import EncoderConfig
from xcflow.encoders.bag import BagOfEmbeddings
from xcflow.encoders.build import load_encoder, save_encoder
from xcflow.encoders.frozen import load_frozen
from xcflow.encoders.frozen_transformer import onnx_file
from xcflow.encoders.onnx_export import export
from xcflow.encoders.side_by_side import SideBySide
from xcflow.encoders.transformer import Transformer, pretrained_transformer, transformer_of
from xcflow.errors import ArtifactError, ConfigError, MissingExtraError
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged

VOCABULARY = 75  # of the tiny model


def transformer(model: str, **settings: object) -> Transformer:
    config = EncoderConfig(kind="transformer", model=model, bf16="off", **settings)
    return pretrained_transformer(config, model_folder(model) / "tokenizer.json").eval()


def write(encoder: Transformer | SideBySide, folder: Path) -> Path:
    folder.mkdir()
    save_encoder(encoder, folder, {"auxiliary.weight": torch.zeros(3, 2)})
    export(encoder, folder)
    return folder


def bag(seed: int) -> BagOfEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    return BagOfEmbeddings(torch.randn(VOCABULARY, 8, generator=generator), 0.1).eval()


def rows(vocabulary: int, longest: int, seed: int = 0) -> Ragged:
    """Rows of many lengths in no order: empty, as long as the model reads, and longer."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation([0, 1, 2, longest - 2, longest + 5, *rng.integers(1, longest, 20)])
    return Ragged.from_rows([rng.integers(5, vocabulary, n) for n in lengths])


@pytest.fixture(scope="module")
def tiny(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transformer and its exports."""
    return write(transformer(str(pretrained)), tmp_path_factory.mktemp("tiny") / "encoder")


@pytest.fixture(scope="module")
def beside_bags(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same beside two bags of embeddings."""
    encoder = SideBySide([transformer(str(pretrained)), bag(1), bag(2)]).eval()
    return write(encoder, tmp_path_factory.mktemp("beside") / "encoder")


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model's first two layers."""
    return write(transformer("minilm", layers=2), tmp_path_factory.mktemp("minilm") / "encoder")


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("folder", ["tiny", "beside_bags"])
def test_float32_gives_the_vectors_of_torch(
    folder: str, unit: bool, request: pytest.FixtureRequest
):
    path = request.getfixturevalue(folder)
    trained, frozen = load_encoder(path)[0], load_frozen(path, "fp32")
    assert (frozen.dim, frozen.parts) == (trained.dim, trained.parts)
    for tokens in (rows(VOCABULARY, 24), rows(VOCABULARY, 24, seed=1)):
        found = frozen.encode(tokens, unit=unit)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, trained.encode(tokens, unit=unit), atol=1e-4)


def test_the_packaged_model(minilm: Path):
    tokens = rows(30_000, 200)
    expected = load_encoder(minilm)[0].encode(tokens).numpy()
    exact = load_frozen(minilm, "fp32").encode(tokens)
    np.testing.assert_allclose(exact, expected, atol=1e-4)
    cosines = (load_frozen(minilm, "int8").encode(tokens) * expected).sum(1)
    assert np.median(cosines) > 0.98
    assert cosines.min() > 0.95
    sizes = [onnx_file(minilm, precision).stat().st_size for precision in ("fp32", "int8")]
    assert sizes[0] > 3.5 * sizes[1]


def test_a_model_of_another_family(tmp_path: Path):
    settings = {
        "model_type": "distilbert",
        "vocab_size": VOCABULARY,
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 24,
    }
    kind = {"kind": "transformer", "cls_id": 2, "sep_id": 3, "bf16": "off", "dropout": 0.1}
    encoder = transformer_of(kind | {"architecture": settings}).eval()
    frozen = load_frozen(write(encoder, tmp_path / "encoder"), "fp32")
    tokens = rows(VOCABULARY, 24)
    np.testing.assert_allclose(frozen.encode(tokens), encoder.encode(tokens), atol=1e-4)


@pytest.mark.parametrize("folder", ["tiny", "beside_bags"])
def test_no_rows(folder: str, request: pytest.FixtureRequest):
    frozen = load_frozen(request.getfixturevalue(folder), "int8")
    assert frozen.encode(Ragged.from_rows([])).shape == (0, frozen.dim)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_in_int8_a_text_has_the_same_vector_whatever_it_is_encoded_with(
    minilm: Path, threads: str, monkeypatch: pytest.MonkeyPatch
):
    tokens = rows(30_000, 40)
    together = load_frozen(minilm, "int8").encode(tokens)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    frozen = load_frozen(minilm, "int8")
    alone = [frozen.encode(tokens.slice(row, row + 1)) for row in range(len(tokens))]
    np.testing.assert_array_equal(np.concatenate(alone), together)
    np.testing.assert_array_equal(frozen.encode(tokens), together)


def test_the_same_weights_give_the_same_bytes(tiny: Path, pretrained: Path, tmp_path: Path):
    program = (
        "import pathlib, sys\n"
        "from xcflow.encoders.build import load_encoder\n"
        "from xcflow.encoders.onnx_export import export\n"
        "export(load_encoder(pathlib.Path(sys.argv[1]))[0], pathlib.Path(sys.argv[2]))\n"
    )
    again = tmp_path / "another process"
    again.mkdir()
    subprocess.run([sys.executable, "-c", program, str(tiny), str(again)], check=True)
    learning = transformer(str(pretrained)).train()
    write(learning, tmp_path / "twice")
    assert learning.training
    for precision in ("fp32", "int8"):
        expected = onnx_file(tiny, precision).read_bytes()
        for folder in (again, tmp_path / "twice"):
            assert onnx_file(folder, precision).read_bytes() == expected
        for telling in (b".py", str(tmp_path).encode(), b"stack_trace"):
            assert telling not in expected


def test_a_model_that_cannot_be_exported(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("cannot follow")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ConfigError, match="a transformer of type bert cannot be written as ONNX"):
        export(transformer(str(pretrained)), tmp_path)


def test_without_onnxruntime_the_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed.*xcflow\[onnx\]"):
        load_frozen(tiny, "int8")


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40])
def test_a_damaged_export_is_named(content: bytes | None, pretrained: Path, tmp_path: Path):
    save_encoder(transformer(str(pretrained)), tmp_path)
    if content is not None:
        onnx_file(tmp_path, "fp32").write_bytes(content)
    with pytest.raises(ArtifactError, match="holds no readable encoder"):
        load_frozen(tmp_path, "fp32")


@pytest.mark.parametrize("folder", ["tiny", "beside_bags"])
def test_torch_is_not_needed(folder: str, request: pytest.FixtureRequest):
    program = (
        "import sys, json, pathlib, xcflow.serving.predictor\n"
        "from xcflow.encoders.frozen import load_frozen\n"
        "from xcflow.ragged import Ragged\n"
        "frozen = load_frozen(pathlib.Path(sys.argv[1]), 'int8')\n"
        "frozen.encode(Ragged.from_rows([[5, 6], [7]]))\n"
        "heavy = {'torch', 'transformers', 'onnx', 'pandas', 'mlflow', 'kfp', 'sklearn'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    command = [sys.executable, "-c", program, str(request.getfixturevalue(folder))]
    done = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(done.stdout) == []
