"""Pairs of words that stand together in several texts and mean more than both alone.

A sum of word vectors forgets the order of the words: the parts of an author's name, of a product's
or a place's mean little each for itself. A phrase gets a row of the token table of its own, which
starts at zero, so an untrained bag of embeddings is the same with phrases as without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from xcflow.ragged import Ragged

PHRASE_ARRAYS = ("encoder.phrases", "encoder.words")

_BLOCK = 100_000
_SPAN = 2  # words of a pair are neighbours, or have one word between them
# While pairs are counted, those seen once are forgotten when there are more pairs than this: bounds
# memory (lossy counting, Manku & Motwani, VLDB 2002).
_TRACKED = 8_000_000


@dataclass(frozen=True, eq=False)
class Phrases:
    """The phrases of a catalogue, as pairs of tokens of a vocabulary of V.

    Attributes:
        keys: [P] int64 ``first * V + second`` of each phrase, rising.
        words: [V] which tokens are words or parts of words; others (punctuation) may stand in
            between.
    """

    keys: NDArray[np.int64]
    words: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def none(cls) -> Self:
        """No phrases, for any vocabulary."""
        return cls(np.empty(0, np.int64), np.empty(0, np.bool_))

    @classmethod
    def of(
        cls, texts: Sequence[Ragged], words: NDArray[np.bool_], *, most: int, min_count: int
    ) -> Self:
        """The most frequent pairs of words.

        Args:
            texts: Token rows.
            words: As the attribute.
            most: At most so many phrases.
            min_count: A phrase stands in the texts at least so often.
        """
        keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for tokens in texts if most else ():
            for start in range(0, len(tokens), _BLOCK):
                block = tokens.slice(start, min(start + _BLOCK, len(tokens)))
                found, once = np.unique(_pairs(block, words)[0], return_counts=True)
                keys, place = np.unique(np.concatenate([keys, found]), return_inverse=True)
                both = np.concatenate([counts, once])
                counts = np.bincount(place, both, len(keys)).astype(np.int64)
                if len(keys) > _TRACKED:
                    keys, counts = keys[counts > 1], counts[counts > 1]
        keys, counts = keys[counts >= min_count], counts[counts >= min_count]
        return cls(np.sort(keys[np.argsort(-counts, kind="stable")[:most]]), words)

    def added_to(self, tokens: Ragged) -> Ragged:
        """Token rows, followed by ``V + p`` for each phrase p that stands in them."""
        if not len(self):
            return tokens
        keys, rows = _pairs(tokens, self.words)
        place = np.searchsorted(self.keys, keys)
        place[place == len(self)] = 0
        known = self.keys[place] == keys
        offsets = np.searchsorted(rows[known], np.arange(len(tokens) + 1))
        return tokens.beside(Ragged(len(self.words) + place[known], offsets))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``restored`` needs; nothing where there are no phrases."""
        return dict(zip(PHRASE_ARRAYS, (self.keys, self.words), strict=True)) if len(self) else {}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of ``arrays``; others may stand among them."""
        if PHRASE_ARRAYS[0] not in arrays:
            return cls.none()
        return cls(*(arrays[name] for name in PHRASE_ARRAYS))


def word_tokens(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[V] which tokens hold a letter or a digit."""
    names = (tokenizer.id_to_token(row) or "" for row in range(tokenizer.get_vocab_size()))
    return np.array([any(map(str.isalnum, name)) for name in names], np.bool_)


def _pairs(tokens: Ragged, words: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The key of each two words that stand together, and the row they stand in, rising."""
    kept = tokens.keep(words[tokens.data])
    ids, row_ids = kept.data.astype(np.int64), kept.row_ids()
    keys, rows = [], []
    for span in range(1, _SPAN + 1):
        together = row_ids[span:] == row_ids[:-span]
        keys.append((ids[:-span] * len(words) + ids[span:])[together])
        rows.append(row_ids[span:][together])
    order = np.argsort(np.concatenate(rows), kind="stable")
    return np.concatenate(keys)[order], np.concatenate(rows)[order]
