"""A pre-trained model and data sets so small that a test trains on them in milliseconds."""

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from xcflow.artifact import Manifest
from xcflow.catalogue.dataset import Dataset, Documents, Labels
from xcflow.catalogue.string_table import StringTable
from xcflow.ragged import Ragged

DIM, POSITIONS = 16, 24
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = string.ascii_lowercase + string.digits


def _vocabulary() -> dict[str, int]:
    pieces = [*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), "中", "文", "red"]
    return {piece: i for i, piece in enumerate(pieces)}


def _save_tokenizer(path: Path) -> int:
    tokenizer = Tokenizer(WordPiece(_vocabulary(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.save(str(path))
    return int(tokenizer.get_vocab_size())


def make_pretrained(folder: Path, *, layers: int = 2, spare_rows: int = 0) -> Path:
    """A BERT with random weights; some keep unused rows at the end of the token table."""
    folder.mkdir()
    rows = _save_tokenizer(folder / "tokenizer.json") + spare_rows
    config = {
        "model_type": "bert",
        "vocab_size": rows,
        "hidden_size": DIM,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * DIM,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (rows, DIM),
        "embeddings.position_embeddings.weight": (POSITIONS, DIM),
        "embeddings.token_type_embeddings.weight": (2, DIM),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for name, wide, narrow in (
            ("attention.self.query", DIM, DIM),
            ("attention.self.key", DIM, DIM),
            ("attention.self.value", DIM, DIM),
            ("attention.output.dense", DIM, DIM),
            ("intermediate.dense", 2 * DIM, DIM),
            ("output.dense", DIM, 2 * DIM),
        ):
            shapes[f"{layer}.{name}.weight"] = (wide, narrow)
            shapes[f"{layer}.{name}.bias"] = (wide,)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    generator = torch.Generator().manual_seed(11)
    tensors = {
        name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    for name in norms:
        tensors |= {f"{name}.weight": torch.ones(DIM), f"{name}.bias": torch.zeros(DIM)}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(name="make_pretrained", scope="session")
def make_pretrained_fixture() -> Callable[..., Path]:
    return make_pretrained


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer BERT of width 16 that knows letters, digits and a few words."""
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "tiny")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _documents(prefix: str, texts: Sequence[str], labels: Sequence[Sequence[int]]) -> Documents:
    names = StringTable.from_list([f"{prefix}{i}" for i in range(len(texts))])
    return Documents(names, StringTable.from_list(texts), _tokens(texts), Ragged.from_rows(labels))


def _tokens(texts: Sequence[str]) -> Ragged:
    """One token for each character, from 5 on, as in the vocabulary of ``pretrained``."""
    return Ragged.from_rows(
        [[5 + _LETTERS.index(c) for c in t if c in _LETTERS] for t in texts], np.uint8
    )


def themed_dataset(tokenizer_file: Path, documents: int = 48, labels: int = 12) -> Dataset:
    """Documents that repeat the letter of their labels; a quarter is held out.

    Label 0 goes with every third document, the last label with none.
    """
    rng = np.random.default_rng(5)
    rows, texts = [], []
    for i in range(documents):
        own = [int(rng.integers(1, labels - 1))] + [0] * (i % 3 == 0)
        noise = "".join(rng.choice(list(string.digits), 3))
        rows.append(sorted(own))
        texts.append("".join(3 * _LETTERS[label] for label in own) + noise)
    held_out = np.arange(0, documents, 4)
    return Dataset(
        path=Path("in-memory"),
        manifest=Manifest("dataset", {}, "", {}, {}),
        labels=Labels(
            StringTable.from_list([f"l{i}" for i in range(labels)]),
            StringTable.from_list([2 * _LETTERS[i] for i in range(labels)]),
            _tokens([2 * _LETTERS[i] for i in range(labels)]),
        ),
        train=_documents("d", texts, rows),
        test=_documents("t", texts[:5], rows[:5]),
        test_filter=Ragged.from_rows([[]] * 5),
        fit_rows=np.setdiff1d(np.arange(documents), held_out),
        validation_rows=held_out,
        tokenizer_file=tokenizer_file,
    )


@pytest.fixture(scope="session")
def themed(pretrained: Path) -> Dataset:
    """48 documents, 12 labels: something that can be learned."""
    return themed_dataset(pretrained / "tokenizer.json")
