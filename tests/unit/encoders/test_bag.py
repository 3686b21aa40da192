"""The bag of embeddings against loops and dense autograd."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save
from tokenizers import Tokenizer

from xcflow.catalogue.tokenizer import build_tokenizer
from xcflow.config import DataConfig, EncoderConfig
from xcflow.encoders.bag import IDF_POWER, BagOfEmbeddings, _Occurrences, _sum_rows, initial_table
from xcflow.ragged import Ragged

VOCABULARY, DIM = 12, 5


def make_bag(dropout: float = 0.0, seed: int = 0) -> BagOfEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    bag = BagOfEmbeddings(torch.randn(VOCABULARY, DIM, generator=generator), dropout)
    with torch.no_grad():
        bag.residual.weight.copy_(torch.randn(DIM, DIM, generator=generator))
        bag.residual.bias.copy_(torch.randn(DIM, generator=generator))
    return bag


def random_tokens(rows: int, seed: int, longest: int = 6, shortest: int = 0) -> Ragged:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, rows)
    return Ragged.from_rows([rng.integers(0, VOCABULARY, n) for n in lengths], np.uint8)


def slow_forward(bag: BagOfEmbeddings, table: torch.Tensor, tokens: Ragged) -> torch.Tensor:
    rows = []
    for i in range(len(tokens)):
        total = torch.zeros(DIM)
        for token in tokens[i].tolist():
            total = total + table[token]
        v = total / max(len(tokens[i]), 1) ** 0.5
        rows.append(v + bag.residual.weight @ torch.relu(v) + bag.residual.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_and_gradients(training: bool):
    bag = make_bag().train(training)
    tokens = random_tokens(9, seed=1)
    table = bag.table.weight.clone().requires_grad_()
    expected = slow_forward(bag, table, tokens)
    found = bag(tokens)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    parameters = list(bag.parameters())
    expected_gradients = torch.autograd.grad((expected * weights).sum(), [table, *parameters])
    (found * weights).sum().backward()
    for parameter, gradient in zip(parameters, expected_gradients[1:], strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    if training:
        seen = np.unique(tokens.data)
        leaf = bag.table._leaf
        assert leaf is not None
        torch.testing.assert_close(leaf.grad, expected_gradients[0][torch.from_numpy(seen).long()])


@settings(max_examples=20)
@given(
    rows=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_sums_of_rows_pass_the_numerical_gradient_check(rows: list[list[int]], seed: int):
    tokens = Ragged.from_rows(rows, np.int64)
    generator = torch.Generator().manual_seed(seed)
    occurrences = _Occurrences.of(tokens)
    assert occurrences.tokens.tolist() == sorted({token for row in rows for token in row})
    size = len(occurrences.tokens)
    table = torch.randn(size, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: _sum_rows(t, occurrences), (table,))
    places = {int(token): place for place, token in enumerate(occurrences.tokens)}
    for row, total in zip(rows, _sum_rows(table, occurrences), strict=True):
        torch.testing.assert_close(total, table[[places[token] for token in row]].sum(0))


def test_only_tokens_of_the_batch_learn():
    bag = make_bag().train()
    before = bag.table.weight.clone()
    bag(Ragged.from_rows([[3, 3, 7], [0]])).sum().backward()
    bag.sparse_step(0.1)
    changed = (bag.table.weight != before).any(1)
    assert torch.nonzero(changed).ravel().tolist() == [0, 3, 7]


def test_dropout_is_for_training_only():
    bag = make_bag(dropout=0.5)
    tokens = random_tokens(20, seed=3, shortest=1)
    torch.manual_seed(0)
    dropped = bag.train()(tokens)
    assert 0.3 < float((dropped == 0).float().mean()) < 0.7
    torch.testing.assert_close(bag.eval()(tokens), slow_forward(bag, bag.table.weight, tokens))
    bag.train()
    assert torch.equal(bag.encode(tokens, unit=False), bag.eval()(tokens))
    bag.train().encode(tokens)
    assert bag.training


def test_encoding_goes_by_blocks_in_order(monkeypatch: pytest.MonkeyPatch):
    bag, tokens = make_bag(), random_tokens(10, seed=4, shortest=1)
    whole = bag.encode(tokens)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(10))
    monkeypatch.setattr("xcflow.encoders.base.ENCODE_ROWS", 3)
    torch.testing.assert_close(bag.encode(tokens), whole)
    assert bag.encode(tokens.slice(0, 0)).shape == (0, DIM)


def test_a_checkpoint_restores_everything():
    first, second = make_bag(seed=1).train(), make_bag(seed=2).train()
    tokens = random_tokens(4, seed=5, shortest=1)

    def learn(bag: BagOfEmbeddings) -> torch.Tensor:
        vectors = bag(tokens)
        vectors.square().sum().backward()
        bag.sparse_step(0.1)
        return vectors.detach()

    learn(first)
    second.restore(load(save(first.state(training=True))), training=True)
    assert torch.equal(learn(first), learn(second))
    for name, tensor in first.state(training=True).items():
        assert torch.equal(tensor, second.state(training=True)[name])


def test_the_saved_model_is_without_moments():
    first, second = make_bag(seed=1), make_bag(seed=2)
    state = first.state(training=False)
    assert set(state) == {
        "encoder.table.weight",
        "encoder.residual.weight",
        "encoder.residual.bias",
    }
    second.restore(state, training=False)
    tokens = random_tokens(4, seed=5)
    assert torch.equal(first.eval()(tokens), second.eval()(tokens))


class TestInitialTable:
    """The token table before training."""

    texts = ("abc red abc", "red zq abc", "zq abc", "zq")

    def make(self, folder: Path, words: int, frequency: np.ndarray | None = None) -> torch.Tensor:
        config = EncoderConfig(model=str(folder))
        data = DataConfig(catalogue_words=words, catalogue_word_min_count=1)
        tokenizer = build_tokenizer(config, data, lambda: [list(self.texts)])
        path = folder.parent / f"tokenizer-{words}.json"
        tokenizer.save(str(path))
        if frequency is None:
            frequency = np.zeros(tokenizer.get_vocab_size(), np.int64)
        return initial_table(config, path, frequency, len(self.texts))

    def test_rows_are_centred_scaled_and_of_mean_length_one(self, pretrained: Path):
        stored = load_file(pretrained / "model.safetensors")["embeddings.word_embeddings.weight"]
        frequency = np.arange(len(stored)) % 5
        table = self.make(pretrained, 0, frequency)
        idf = np.log(5.0 / (frequency + 1.0)) + 1e-3
        expected = (stored - stored.mean(0)) * torch.from_numpy(idf**IDF_POWER).float()[:, None]
        torch.testing.assert_close(table, expected / expected.norm(dim=1).mean())
        assert float(table.norm(dim=1).mean()) == pytest.approx(1.0)

    def test_a_new_word_starts_as_the_sum_of_its_pieces(self, pretrained: Path):
        table = self.make(pretrained, 10)
        tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
        joined = Tokenizer.from_file(str(pretrained.parent / "tokenizer-10.json"))
        assert len(table) == joined.get_vocab_size()
        for word in ("abc", "zq"):
            pieces = torch.tensor(tokenizer.encode(word, add_special_tokens=False).ids)
            assert len(pieces) == len(word)
            expected = table[pieces].sum(0)
            torch.testing.assert_close(table[joined.token_to_id(word)], expected)

    def test_new_words_that_cannot_be_read_differ(self, pretrained: Path):
        config = EncoderConfig(model=str(pretrained))
        data = DataConfig(catalogue_words=9, catalogue_word_min_count=1)
        tokenizer = build_tokenizer(config, data, lambda: [["机器 学习 ab"]])
        path = pretrained.parent / "tokenizer-chinese.json"
        tokenizer.save(str(path))
        frequency = np.zeros(tokenizer.get_vocab_size(), np.int64)
        table = initial_table(config, path, frequency, 1)
        assert torch.equal(table, initial_table(config, path, frequency, 1))
        words = torch.tensor([tokenizer.token_to_id(word) for word in "机器学习"])
        vectors = table[words]
        cosines = torch.nn.functional.normalize(vectors, dim=1) @ vectors.T
        lengths = vectors.norm(dim=1)
        torch.testing.assert_close(lengths, lengths[:1].expand(4))
        assert 0.5 < float(lengths[0] / table[:80].norm(dim=1).mean()) < 2.0
        assert float((cosines / lengths - torch.eye(4)).abs().max()) < 0.9

    def test_spare_rows_of_the_pretrained_table_are_left_out(self, make_pretrained, tmp_path: Path):
        padded = make_pretrained(tmp_path / "padded", spare_rows=7)
        size = Tokenizer.from_file(str(padded / "tokenizer.json")).get_vocab_size()
        assert len(self.make(padded, 0)) == size
        table = self.make(padded, 10)
        joined = Tokenizer.from_file(str(padded.parent / "tokenizer-10.json"))
        assert len(table) == joined.get_vocab_size() == size + 2
        pieces = [joined.token_to_id("z"), joined.token_to_id("##q")]
        torch.testing.assert_close(table[joined.token_to_id("zq")], table[pieces].sum(0))
