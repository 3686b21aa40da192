"""Phrases against counting by hand."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from tokenizers import Tokenizer

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.encoders import phrases as module
from xcflow.encoders.build import initial_encoder
from xcflow.encoders.phrases import Phrases, word_tokens
from xcflow.ragged import Ragged

WORDS = np.array([True, True, True, False, True])  # 3 is a comma
TEXTS = Ragged.from_rows([[0, 3, 1, 2], [], [0, 1], [3], [1, 2, 4], [4, 3], [0, 4, 1]], np.uint8)


def pairs_by_hand(tokens: Ragged) -> Counter[tuple[int, int]]:
    rows = ([t for t in tokens[i].tolist() if WORDS[t]] for i in range(len(tokens)))
    spans = ((*pairwise(row), *zip(row, row[2:], strict=False)) for row in rows)
    return Counter(pair for pairs in spans for pair in pairs)


@pytest.mark.parametrize("block", [100, 2])
@pytest.mark.parametrize(("most", "min_count"), [(9, 1), (9, 2), (1, 1), (0, 1)])
def test_the_most_frequent_pairs_are_phrases(
    most: int, min_count: int, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_BLOCK", block)
    found = Phrases.of([TEXTS, TEXTS], WORDS, most=most, min_count=2 * min_count)
    counts = pairs_by_hand(TEXTS)
    frequent = [pair for pair, n in counts.items() if n >= min_count]
    best = sorted(frequent, key=lambda pair: (-counts[pair], pair))[:most]
    assert [divmod(key, len(WORDS)) for key in found.keys.tolist()] == sorted(best)


def test_pairs_seen_once_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_TRACKED", 2)
    found = Phrases.of([TEXTS], WORDS, most=9, min_count=1)
    assert [divmod(key, len(WORDS)) for key in found.keys.tolist()] == [(0, 1), (1, 2)]


def test_phrases_follow_the_tokens_of_their_text():
    found = Phrases.of([TEXTS], WORDS, most=9, min_count=2)  # 0 1 and 1 2
    rows = found.added_to(TEXTS)
    assert [rows[i].tolist() for i in range(len(rows))] == [
        [0, 3, 1, 2, 5, 6],
        [],
        [0, 1, 5],
        [3],
        [1, 2, 4, 6],
        [4, 3],
        [0, 4, 1, 5],
    ]
    nothing = TEXTS.slice(0, 0)
    assert len(found.added_to(nothing)) == 0
    assert Phrases.none().added_to(TEXTS) is TEXTS


def test_phrases_are_kept_as_arrays():
    for phrases in (Phrases.of([TEXTS], WORDS, most=9, min_count=2), Phrases.none()):
        kept = Phrases.restored(load(save(phrases.arrays())))
        assert kept.added_to(TEXTS).data.tolist() == phrases.added_to(TEXTS).data.tolist()


def test_words_have_letters_or_digits(pretrained: Path):
    tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    names = [tokenizer.id_to_token(row) for row in range(tokenizer.get_vocab_size())]
    expected = [any(c.isalnum() for c in name) for name in names]
    assert word_tokens(tokenizer).tolist() == expected


def test_a_phrase_says_nothing_before_it_has_learned(themed: Dataset, pretrained: Path):
    def bag(phrases: int) -> torch.nn.Module:
        config = EncoderConfig(model=str(pretrained), phrases=phrases, phrase_min_count=2)
        return initial_encoder(config, themed)

    tokens = themed.train.tokens
    with_phrases, without = bag(1000), bag(0)
    assert len(with_phrases.phrases) > 0
    assert torch.equal(with_phrases.encode(tokens), without.encode(tokens))
    with_phrases.table.weight[-1] += 1.0
    assert not torch.equal(with_phrases.encode(tokens), without.encode(tokens))
