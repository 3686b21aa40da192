"""The transformer against plain transformers code, on the packaged MiniLM and on tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from xcflow.catalogue.tokenizer import build_tokenizer
from xcflow.config import DataConfig, EncoderConfig
from xcflow.encoders import transformer
from xcflow.encoders.transformer import Transformer, pretrained_transformer
from xcflow.errors import ConfigError
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged

TEXTS = (
    "a mail reader for the terminal",
    "red",
    "fonts",
    "library for reading and writing images in many formats, with bindings for other languages",
    "a game of cards",
)


def encoder_of(folder: Path, **settings: object) -> Transformer:
    config = EncoderConfig(kind="transformer", model=str(folder), bf16="off", **settings)
    return pretrained_transformer(config, folder / "tokenizer.json").eval()


@pytest.fixture(scope="module")
def minilm() -> Transformer:
    """The packaged model's first layer."""
    config = EncoderConfig(kind="transformer", model="minilm", layers=1, bf16="off")
    return pretrained_transformer(config, model_folder("minilm") / "tokenizer.json").eval()


def tokens_of(folder: Path, texts: tuple[str, ...]) -> Ragged:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return Ragged.from_rows([e.ids for e in encodings], np.uint16)


def reference(folder: Path, layers: int, texts: tuple[str, ...]) -> torch.Tensor:
    """Mean of the last hidden states, one text at a time, by the library's own code."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]"
    )
    model = AutoModel.from_pretrained(str(folder), num_hidden_layers=layers).eval()
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
        with torch.no_grad():
            rows.append(model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0))
    return torch.stack(rows)


def test_the_packaged_model_gives_the_vectors_of_plain_transformers_code(minilm: Transformer):
    folder = model_folder("minilm")
    expected = reference(folder, 1, TEXTS)
    found = minilm.encode(tokens_of(folder, TEXTS), unit=False)
    assert found.shape == (5, 384)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_all_layers_by_default(pretrained: Path):
    texts = ("red fox", "abc 123 xyz", "z")
    tokens = tokens_of(pretrained, texts)
    for layers in (0, 1, 2):
        found = encoder_of(pretrained, layers=layers).encode(tokens, unit=False)
        torch.testing.assert_close(found, reference(pretrained, layers or 2, texts))


@pytest.mark.parametrize("budget", [1, 20, 4096])
def test_a_text_has_one_vector_whatever_it_is_encoded_with(
    pretrained: Path, budget: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transformer, "_TOKENS_PER_PART", budget)
    encoder = encoder_of(pretrained)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 70, n) for n in rng.permutation(np.arange(1, 20))]
    together = encoder(Ragged.from_rows(rows))
    for row, vector in zip(rows, together, strict=True):
        torch.testing.assert_close(encoder(Ragged.from_rows([row]))[0], vector)


def test_a_long_text_is_cut_at_the_last_position(pretrained: Path):
    encoder = encoder_of(pretrained)
    row = np.arange(5, 65)
    positions = 24
    cut = encoder(Ragged.from_rows([row[: positions - 2], row[:3]]))
    torch.testing.assert_close(encoder(Ragged.from_rows([row, row[:3]])), cut)


def test_gradients_reach_every_weight(pretrained: Path):
    encoder = encoder_of(pretrained).train()
    encoder(Ragged.from_rows([[5, 6, 7], [8]])).square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("budget", [20, 4096])
def test_gradients_are_those_of_plain_transformers_code(
    pretrained: Path, budget: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transformer, "_TOKENS_PER_PART", budget)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 70, n) for n in (3, 1, 9, 3, 17, 4)]
    weights = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    encoder = encoder_of(pretrained, dropout=0.0).train()
    (encoder(Ragged.from_rows(rows)) * weights).sum().backward()
    found = {name: p.grad for name, p in encoder.model.named_parameters()}
    encoder.zero_grad()
    cls_id, sep_id = encoder._ends
    for row, weight in zip(rows, weights, strict=True):
        ids = torch.tensor([[cls_id, *row.tolist(), sep_id]])
        (encoder.model(input_ids=ids).last_hidden_state[0].mean(0) * weight).sum().backward()
    for name, parameter in encoder.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_bfloat16_stays_close_and_gives_float32(pretrained: Path):
    tokens = Ragged.from_rows([[5, 6, 7], [8]])
    config = EncoderConfig(kind="transformer", model=str(pretrained), bf16="on")
    rounded = pretrained_transformer(config, pretrained / "tokenizer.json").eval()(tokens)
    assert rounded.dtype == torch.float32
    exact = encoder_of(pretrained)(tokens).detach()
    assert float((rounded.detach() - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_distilbert_with_and_without_prefix(pretrained: Path, tmp_path: Path):
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=80, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=24
    )
    torch.manual_seed(3)
    DistilBertModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((pretrained / "tokenizer.json").read_bytes())
    texts = ("red fox", "abc")
    tokens = tokens_of(tmp_path, texts)
    for layers in (1, 2):
        found = encoder_of(tmp_path, layers=layers).encode(tokens, unit=False)
        torch.testing.assert_close(found, reference(tmp_path, layers, texts))
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"distilbert.{k}": v for k, v in weights.items()}, tmp_path / "model.safetensors")
    torch.testing.assert_close(encoder_of(tmp_path).encode(tokens, unit=False), found)


def test_a_word_that_joins_the_vocabulary_starts_at_the_mean_of_its_pieces(
    pretrained: Path, tmp_path: Path
):
    data = DataConfig(catalogue_words=10, catalogue_word_min_count=1)
    config = EncoderConfig(kind="transformer", model=str(pretrained), bf16="off")
    joined = build_tokenizer(config, data, lambda: [["mail red", "mail"]])
    joined.save(str(tmp_path / "tokenizer.json"))
    before = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    pieces = before.encode("mail", add_special_tokens=False).ids
    assert len(pieces) > 1
    encoder = pretrained_transformer(config, tmp_path / "tokenizer.json")
    table = encoder.model.get_input_embeddings().weight
    old = encoder_of(pretrained).model.get_input_embeddings().weight
    assert torch.equal(table[: len(old)], old)
    torch.testing.assert_close(table[joined.token_to_id("mail")], old[pieces].mean(0))
    assert len(table) == joined.get_vocab_size() > len(old)


def test_dropout_acts_in_training_only_and_only_at_both_ends(pretrained: Path):
    encoder = encoder_of(pretrained, dropout=0.5)
    tokens = Ragged.from_rows([[5, 6, 7], [8]])
    inside = {name: m.p for name, m in encoder.model.named_modules() if isinstance(m, nn.Dropout)}
    assert {name for name, p in inside.items() if p} == {"embeddings.dropout"}
    assert torch.equal(encoder(tokens), encoder(tokens))
    torch.manual_seed(0)
    dropped = encoder.train()(tokens)
    assert 0.2 < float((dropped == 0).float().mean()) < 0.8
    assert torch.equal(encoder.encode(tokens), encoder.eval().encode(tokens))


def test_more_layers_than_there_are(pretrained: Path):
    with pytest.raises(ConfigError, match=r"encoder.layers is 3, but .* has 2"):
        encoder_of(pretrained, layers=3)


def test_weights_of_another_model(make_pretrained, tmp_path: Path):
    folder = make_pretrained(tmp_path / "model", layers=1)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"has no tensor encoder\.layer\.1\."):
        encoder_of(folder)


def test_a_tokenizer_without_the_tokens_around_a_text(make_pretrained, tmp_path: Path):
    folder = make_pretrained(tmp_path / "model")
    text = (folder / "tokenizer.json").read_text().replace("[CLS]", "<s>")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"has no \[CLS\] and \[SEP\] tokens"):
        encoder_of(folder)
